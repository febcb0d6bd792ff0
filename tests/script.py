"""A script of the workflow in a process of its own, as Snakemake runs it, which may be killed."""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from snakemake.iocontainers import InputFiles, OutputFiles, Params

import unic.neighbors.exact.finished_rows

SCRIPTS = Path(__file__).parents[1] / "workflow" / "scripts"
RESOURCES = {"device": "cpu", "engine": "auto", "batch_size": 32, "processes": 1}
_processes = multiprocessing.get_context("forkserver")  # imports once, for all processes
_processes.set_forkserver_preload(
    [__name__, "unic.training.run", "unic.runtime.shards", "unic.training.simgcd"]
)


class Job(NamedTuple):
    """What a script is given."""

    script: str
    input: Mapping[str, Any]
    output: Mapping[str, str]
    params: Mapping[str, Any]
    log: str
    wildcards: Mapping[str, str]


def run_job(job: Job, *, kill_at: tuple[str, int] | None = None) -> int:
    """Run a script to its end, or to the moment at which it is killed.

    Args:
        job: What it is given.
        kill_at: Pattern of a file and a number: the process is killed (SIGKILL) when such a file
            is about to be there whole for that many times.

    Returns:
        The status of the process, -9 where it was killed.
    """
    process = _processes.Process(target=_run, args=(job, kill_at))
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    assert status is not None
    return status


def _run(job: Job, kill_at: tuple[str, int] | None) -> None:
    if kill_at is not None:
        _kill_at(*kill_at)
    snakemake = SimpleNamespace(
        input=InputFiles(fromdict=dict(job.input)),
        output=OutputFiles(fromdict=dict(job.output)),
        params=Params(fromdict=dict(job.params)),
        resources=SimpleNamespace(**RESOURCES),
        wildcards=SimpleNamespace(**job.wildcards),
        log=[job.log],
        threads=1,
    )
    unic.neighbors.exact.finished_rows._LONG["cpu"] = 0.0  # rows of a short pass are kept too
    runpy.run_path(str(SCRIPTS / job.script), init_globals={"snakemake": snakemake})


def _kill_at(pattern: str, number: int) -> None:
    left = number

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "os.rename" and Path(os.fspath(arguments[1])).match(pattern):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
