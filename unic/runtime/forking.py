"""Scripts that start at once: forked from one process that has imported what they import.

The process runs no code of a script but its imports, and what a script imported while it ran it
imports before the next, so a script finds what it would find in a process of its own. It has a
single thread and computes nothing, so forking it is safe. It is known to the one that started it
alone, by an inherited socket. Over it comes for each script a channel of its own, as from a socket
that listens, but with no name in any file system: a request, answered by the script's process id
and then by how it ended. Where that socket closes, whatever the reason, all ends. For Linux, whose
kernel ends a process along with its parent.
"""

import ast
import atexit
import builtins
import ctypes
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple, NoReturn, TextIO

IS_AVAILABLE = sys.platform == "linux"
_HARMLESS = {  # what may start a thread, or a GPU, while it is imported
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")},
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # torch.cuda.is_available() without a context
}
_PATIENCE = 5.0  # seconds that an interrupted script has to clean up
_SET_PARENT_DEATH_SIGNAL, _SET_NAME = 1, 15  # of prctl
_RUN, _INTERRUPT = b"r", b"i"
_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGTSTP)


class CannotForkError(OSError):
    """The process to fork from cannot start, or cannot fork."""


class Ended(NamedTuple):
    """How a script ended."""

    status: int  # of its process, minus the number of the signal that killed it
    cpu_seconds: float  # user and system, of its process and of those it waited for


class Server:
    """A process that imports what scripts import and is forked for each of them.

    It ends when it is closed and along with this process, and its scripts with it.

    Raises:
        CannotForkError: If it cannot start.
    """

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(os.getpid())]
        with theirs:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | _HARMLESS,
            )
        if not self._control.recv(1):
            self._control.close()
            raise CannotForkError(f"the process to fork from {self._describe_end()}")

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def run(
        self,
        script: str,
        *,
        environment: Mapping[str, str],
        watch: Callable[[int], AbstractContextManager[Any]],
    ) -> Ended:
        """Run a script in this folder as a main program, and wait for its end.

        It has the output streams that this process had when the server started, no input, and a
        session of its own.

        Args:
            script: A Python file.
            environment: All its environment variables.
            watch: Called with the process id; entered as long as the script runs.

        Raises:
            CannotForkError: If there is no room for another process; nothing of the script ran.
            ChildProcessError: If the server ends before the script, and the script with it.
        """
        request = {
            "script": script,
            "folder": str(Path.cwd()),
            "environment": dict(environment),
        }
        with self._open_channel() as channel:
            _write(channel, request)
            started = self._read(channel)
            if "error" in started:
                raise CannotForkError(started["error"])
            with watch(started["pid"]):
                _write(channel, {"go": True})
                return Ended(**self._read(channel))

    def interrupt(self) -> None:
        """Let all scripts end as by Ctrl-C, or after some seconds without asking them."""
        with suppress(OSError):
            self._control.send(_INTERRUPT)

    def close(self) -> None:
        """End the process, and all scripts without asking them."""
        self._control.close()
        self._process.wait()

    @contextmanager
    def _open_channel(self) -> Iterator[TextIO]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                socket.send_fds(self._control, [_RUN], [theirs.fileno()])
            except OSError:
                raise CannotForkError(f"the process to fork from {self._describe_end()}") from None
            channel = ours.makefile("rw", encoding="utf-8")
        try:
            yield channel
        finally:
            _close(channel)

    def _read(self, channel: TextIO) -> dict[str, Any]:
        try:
            line = channel.readline()
        except OSError:
            line = ""
        if not line:
            raise ChildProcessError(f"the process it was forked from {self._describe_end()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _describe_end(self) -> str:
        return describe_end(self._process.wait())


def describe_end(status: int) -> str:
    """How a process ended, in words that follow its name."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


class _Script(NamedTuple):
    channel: TextIO
    imported: BinaryIO  # where it leaves the names of the modules that it has imported

    def close(self) -> None:
        _close(self.channel)
        self.imported.close()


class _Forking:
    """The loop of the server; its methods return in the server alone."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.scripts: dict[int, _Script] = {}  # by process id
        self.wakeup, self.waking = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.deadline: float | None = None
        self.to_import: list[str] = []
        self.pid = os.getpid()
        self.parent = 0
        self.former: dict[signal.Signals, Any] = {}

    def serve(self, parent: int) -> NoReturn:
        self.former = {number: signal.getsignal(number) for number in _CAUGHT}
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it will say
        signal.signal(signal.SIGTERM, self._end_at_once)
        signal.signal(signal.SIGUSR1, self._end_with_parent)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTSTP, self._stop_together)
        signal.set_wakeup_fd(self.waking, warn_on_full_buffer=False)
        self.parent = parent
        _end_with(parent, signal.SIGUSR1)
        gc.disable()
        self.control.send(b".")
        control = self.control.fileno()
        while True:
            left = None if self.deadline is None else max(0, self.deadline - time.monotonic())
            ready, _, _ = select.select([control, self.wakeup], [], [], left)
            if self.wakeup in ready:
                os.read(self.wakeup, 4096)
            self._reap()
            if control in ready:
                self._obey()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self._signal(signal.SIGKILL)
                self.deadline = None

    def _obey(self) -> None:
        order, descriptors, _, _ = socket.recv_fds(self.control, 1, 1)
        if order == _RUN:
            with socket.socket(fileno=descriptors[0]) as opened:
                channel = opened.makefile("rw", encoding="utf-8")
            self._start(channel)
        elif order == _INTERRUPT:
            self._signal(signal.SIGINT)
            self.deadline = time.monotonic() + _PATIENCE
        else:
            self._end_at_once()

    def _start(self, channel: TextIO) -> None:
        line = channel.readline()
        if not line:  # who asks is gone
            _close(channel)
            return
        request = json.loads(line)
        _import(self.to_import)
        self.to_import.clear()
        _import_as(Path(request["folder"], request["script"]))
        gc.freeze()
        script = _Script(channel, os.fdopen(os.memfd_create("imported"), "r+b"))
        former = signal.pthread_sigmask(signal.SIG_BLOCK, _CAUGHT)
        try:
            pid = os.fork()
        except OSError as error:
            _write(channel, {"error": str(error)})
            script.close()
        else:
            if pid == 0:
                try:
                    self._become(request, script, former)
                except BaseException:
                    sys.excepthook(*sys.exc_info())
                finally:  # never back into the loop
                    os._exit(1)
            self.scripts[pid] = script
            _write(channel, {"pid": pid})
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def _become(self, request: dict[str, Any], script: _Script, mask: set[Any]) -> None:
        """Be a script: as if a new interpreter had just imported what the script imports."""
        _end_with(self.pid, signal.SIGKILL)
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number, handler in self.former.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if not script.channel.readline():  # nobody watches
            return
        _close(script.channel)
        for other in self.scripts.values():
            other.close()
        self.control.close()
        os.close(self.wakeup)
        os.close(self.waking)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        _forget()
        gc.enable()
        known = set(sys.modules)
        status = _run_as_main(request["script"])
        script.imported.write("\n".join(name for name in sys.modules if name not in known).encode())
        script.imported.flush()
        os._exit(status)

    def _reap(self) -> None:
        """Tell of the scripts that have ended, and end what they have left running."""
        for pid, script in list(self.scripts.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            del self.scripts[pid]
            ended = Ended(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime)
            _write(script.channel, ended._asdict())
            script.imported.seek(0)
            self.to_import += script.imported.read().decode().split()
            script.close()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.scripts:
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # it has yet to make a group of its own
                os.kill(pid, number)

    def _end_at_once(self, *_: object) -> NoReturn:
        self._signal(signal.SIGKILL)
        os._exit(0)

    def _end_with_parent(self, *_: object) -> None:
        if os.getppid() != self.parent:  # it may be a thread of the parent alone that has ended
            self._end_at_once()

    def _stop_together(self, *_: object) -> None:
        """Ctrl-Z, which reaches no session but that of the terminal."""
        self._signal(signal.SIGSTOP)
        os.kill(self.pid, signal.SIGSTOP)
        self._signal(signal.SIGCONT)


def _import_as(script: Path) -> None:
    """Import what the statements at the top level of a script import.

    What fails here fails again in the script itself, which reports it.
    """
    try:
        tree = ast.parse(script.read_bytes(), script)
    except (OSError, SyntaxError, ValueError):
        return
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            code = compile(ast.Module([statement], []), script, "exec")
            with suppress(Exception, SystemExit):
                exec(code, {"__name__": "__imports__"})


def _import(modules: Iterable[str]) -> None:
    for module in modules:
        with suppress(Exception, SystemExit):  # no file of its own, or not found from here
            importlib.import_module(module)


def _close(channel: TextIO) -> None:
    with suppress(OSError):  # what could not be written is still in it, and it is closed
        channel.close()


def _forget() -> None:
    """Draw anew what a process draws or finds out for itself when it starts."""
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    tempfile.tempdir = None


def _run_as_main(script: str) -> int:
    """Run a script as ``python script`` does, and what is to run at the end of a process."""
    _name_process(
        Path(script).stem.rpartition(".")[2]
    )  # of "tmp123.finetune.py" as of "finetune.py"
    path = Path(script).absolute()
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(path), __builtins__=builtins)
    sys.modules["__main__"] = main
    sys.argv = [script]
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), main.__dict__)
        status = 0
    except SystemExit as error:
        status = _status_of(error)
    except BaseException as error:
        traceback = error.__traceback__
        sys.excepthook(type(error), error, traceback and traceback.tb_next)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at any end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _status_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _end_with(parent: int, number: signal.Signals) -> None:
    """Get a signal when the parent ends, or at once if it has."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, int(number))
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _name_process(name: str) -> None:
    ctypes.CDLL(None).prctl(_SET_NAME, name.encode()[:15])


def _write(channel: TextIO, answer: Mapping[str, Any]) -> None:
    with suppress(OSError):  # who asked is gone, and the loop will see it
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    _Forking(socket.socket(fileno=int(sys.argv[1]))).serve(int(sys.argv[2]))
