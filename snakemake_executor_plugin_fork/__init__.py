"""Snakemake's local executor, whose Python scripts are forked from a process that has imported all.

Chosen by ``executor: fork``. A job then costs its own work and not its imports, which take seconds;
see :mod:`unic.runtime.forking`. What is no Python script in Snakemake's own environment runs as by
``executor: local``, and so does everything where forking is not possible.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import psutil
import snakemake.script
from snakemake.benchmark import benchmarked
from snakemake.executors import local
from snakemake.logging import logger
from snakemake.script import PythonScript
from snakemake.shell import shell
from snakemake_interface_executor_plugins.settings import ExecMode

from unic.runtime.forking import IS_AVAILABLE, CannotForkError, Server, describe_end
from unic.runtime.jobs import MARK, START

common_settings = local.common_settings
# As snakemake.shell.shell sets them for a script that it starts.
_THREADS = ("OMP", "GOTO", "OPENBLAS", "MKL", "NUMEXPR")
_FOLDERS = ("TMPDIR", "TMP", "TEMPDIR", "TEMP")


class JobError(Exception):
    """A job did not end well."""


class Executor(local.Executor):  # type: ignore[misc]
    """The local executor, with a server of forks for the scripts of the workflow."""

    def __post_init__(self) -> None:
        """Let scripts be forked.

        A job that Snakemake starts as a process of its own, here or on a cluster, has one script
        to run and nothing to gain.
        """
        super().__post_init__()
        is_main = self.workflow.exec_mode is ExecMode.DEFAULT
        has_input = self.workflow.execution_settings.debug
        if is_main and not IS_AVAILABLE:
            logger.info("Jobs are forked on Linux alone, here each imports for itself.")
        if is_main and IS_AVAILABLE and not has_input:
            ForkedScript.servers = Servers()
            snakemake.script.PythonScript = ForkedScript

    def cancel(self) -> None:
        """End all jobs; Ctrl-C by itself does not reach those that were forked."""
        ForkedScript.servers.interrupt()
        super().cancel()
        ForkedScript.servers.close()

    def shutdown(self) -> None:
        """Wait for the jobs, and end the server."""
        super().shutdown()
        ForkedScript.servers.close()


class Servers:
    """One server of forks at a time: started with the first job, and anew if it was killed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._server: Server | None = None
        self._is_given_up = False

    def find(self) -> Server | None:
        """The server, None where there can be none: a warning has then said why."""
        with self._lock:
            try:
                if not self._is_given_up and (self._server is None or not self._server.is_alive):
                    self._server = Server()
            except OSError as error:
                self.give_up(error)
            return None if self._is_given_up else self._server

    def give_up(self, error: OSError) -> None:
        """Fork no further job, and say why."""
        self._is_given_up = True
        logger.warning(f"jobs are not forked, each imports for itself: {error}")

    def interrupt(self) -> None:
        """End all jobs as by Ctrl-C."""
        if self._server is not None:
            self._server.interrupt()

    def close(self) -> None:
        """End the server; scripts are Snakemake's own again."""
        snakemake.script.PythonScript = PythonScript
        if self._server is not None:
            self._server.close()


class ForkedScript(PythonScript):  # type: ignore[misc]
    """A Python script of a rule that is forked, where nothing asks for a shell around it."""

    servers: ClassVar[Servers] = Servers()

    def execute_script(self, fname: str, edit: bool = False) -> None:
        """Run the file, which has Snakemake's preamble, to its end.

        Raises:
            JobError: If it fails, is killed, or the server is.
        """
        server = None if self._needs_shell() else self.servers.find()
        if server is None:
            super().execute_script(fname, edit=edit)
            return
        try:
            ended = server.run(fname, environment=self._environment(), watch=self._watch)
        except CannotForkError as error:
            self.servers.give_up(error)
            super().execute_script(fname, edit=edit)
            return
        except ChildProcessError as error:
            raise self._killed(f"was killed: {error}") from None
        except psutil.NoSuchProcess:
            raise self._killed("was killed when it started") from None
        if self.bench_record is not None:
            self.bench_record.cpu_time = ended.cpu_seconds  # of short jobs too
        if ended.status < 0:
            raise self._killed(describe_end(ended.status))
        if ended.status > 0:
            raise JobError(f"{self.rulename} {describe_end(ended.status)}")

    def _needs_shell(self) -> bool:
        surroundings = (self.container_img, self.conda_env, self.env_modules, self.shadow_dir)
        own_shell = (shell._process_prefix, shell._process_suffix, self.resources.get("shell_exec"))
        return any(surroundings) or any(own_shell)

    def _environment(self) -> dict[str, str]:
        threads = {f"{name}_NUM_THREADS": str(self.threads) for name in _THREADS}
        own = {"VECLIB_MAXIMUM_THREADS": str(self.threads), START: "forked"}
        folder = self.resources.get("tmpdir")
        folders = dict.fromkeys(_FOLDERS, folder) if folder else {}
        return os.environ | threads | folders | own

    def _watch(self, pid: int) -> AbstractContextManager[Any]:
        if self.bench_record is None:
            return nullcontext()
        watch: AbstractContextManager[Any] = benchmarked(pid, self.bench_record)
        return watch

    def _killed(self, end: str) -> JobError:
        """The error of a job that could not say it; its log says it all the same."""
        for log in self.log:
            with Path(log).open("a", encoding="utf-8") as stream:
                stream.write(f"\n{MARK}{self.rulename} {end}\n")
        return JobError(f"{self.rulename} {end}")
