"""Scripts that are forked behave as those that are run in a process of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import Semaphore, Thread
from typing import NoReturn, TextIO

import pytest

from unic.runtime.forking import IS_AVAILABLE, CannotForkError, Ended, Server

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not IS_AVAILABLE, reason="forks scripts on Linux alone")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    server = Server()
    yield server
    server.close()


def run(server: Server, code: str, name: str = "script.py", **environment: str) -> Ended:
    Path(name).write_text(code, encoding="utf-8")
    return server.run(name, environment=os.environ | environment, watch=lambda _: nullcontext())


def read(name: str) -> str:
    return Path(name).read_text(encoding="utf-8")


# It is as a process of its own

SURROUNDINGS = """\
import os, signal, sys, threading, __main__
umask = os.umask(0)
with open(sys.argv[0] + ".txt", "w") as file:
    print(os.getcwd(), sys.argv, __name__, __file__, sys.path[0], file=file)
    print(__main__.__dict__ is globals(), umask, threading.active_count(), file=file)
    print(sorted(name for name in os.environ if not name.endswith("_NUM_THREADS")), file=file)
    print(os.environ.get("OMP_NUM_THREADS"), sys.stdin.read(), file=file)
    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGTSTP, signal.SIGPIPE)
    print([signal.getsignal(number) for number in caught], file=file)
    print(signal.pthread_sigmask(signal.SIG_BLOCK, []), file=file)
    links = {fd: f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")}
    opened = {fd: os.readlink(link) for fd, link in links.items() if os.path.exists(link)}
    print(sorted(link for link in opened.values() if "imported" not in link), file=file)
"""


def test_a_script_finds_what_it_finds_in_a_process_of_its_own(server: Server) -> None:
    assert run(server, SURROUNDINGS, OMP_NUM_THREADS="7") == (0, pytest.approx(0, abs=0.5))
    forked = read("script.py.txt")
    subprocess.run(
        [sys.executable, "script.py"],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "7"},
        stdin=subprocess.DEVNULL,
    )
    assert forked.splitlines() == read("script.py.txt").splitlines()


def test_output_goes_where_that_of_the_server_goes(tmp_path: Path) -> None:
    (tmp_path / "speaker.py").write_text("import sys\nprint('out')\nsys.exit('unic: error: no')\n")
    code = """
from contextlib import nullcontext
from unic.runtime.forking import Server
server = Server()
ended = server.run("speaker.py", environment={}, watch=lambda _: nullcontext())
print(ended.status, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("out\n1\n", "unic: error: no\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('why')", 1),
        ("raise ValueError('why')", 1),
        ("def (", 1),
        ("import no_such_module", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_the_end_of_a_script_is_told(server: Server, code: str, status: int) -> None:
    assert run(server, code).status == status
    assert run(server, "").status == 0  # of the next one as well


def test_what_is_registered_for_the_end_runs_once_and_threads_are_waited_for(
    server: Server,
) -> None:
    code = """
import atexit, threading, time
def write(line):
    with open("end", "a") as file: print(line, file=file)
atexit.register(write, "end")
threading.Thread(target=lambda: (time.sleep(0.2), write("thread"))).start()
"""
    run(server, code)
    server.close()
    assert read("end") == "thread\nend\n"


def test_nothing_of_a_script_is_in_the_next_one(server: Server) -> None:
    code = """
import logging, os, random, sys, warnings, tempfile
import numpy
known = "known" in globals() or hasattr(logging, "known") or "known" in os.environ
drawn = random.random(), numpy.random.random(), numpy.random.default_rng().random()
with open("seen", "a") as file:
    print(known, logging.root.handlers, len(warnings.filters), *drawn, file=file)
known = logging.known = True
os.environ["known"] = "1"
logging.basicConfig(level=logging.DEBUG)
warnings.simplefilter("error")
random.seed(0)
numpy.random.seed(0)
"""
    for _ in range(2):
        assert run(server, code).status == 0
    first, second = (line.split() for line in read("seen").splitlines())
    assert first[:3] == second[:3]
    assert first[:2] == ["False", "[]"]
    assert len({*first[3:], *second[3:]}) == 6


def test_imports_are_those_of_the_server(server: Server) -> None:
    Path("heavy.py").write_text("import os\nimported_by = os.getpid()\n")
    code = "import heavy, os\nassert heavy.imported_by {} os.getpid()"
    assert run(server, code.format("==")).status == 0  # not found by the server
    server.close()
    with changed(PYTHONPATH=os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])):
        server = Server()
        assert run(server, code.format("!=")).status == 0
        server.close()


def test_what_a_script_imports_late_the_next_one_finds_imported(server: Server) -> None:
    code = "import sys\nif 'fractions' in sys.modules: sys.exit(3)\n{}\n"
    assert run(server, code.format("def main():\n  import fractions\nmain()")).status == 0
    assert run(server, code.format("")).status == 3


@contextmanager
def changed(**variables: str) -> Iterator[None]:
    former = dict(os.environ)
    os.environ.update(variables)
    yield
    os.environ.clear()
    os.environ.update(former)


CHECK = """
import os, sys
server = f"/proc/{os.getppid()}"
assert os.listdir(f"{server}/task") == [str(os.getppid())], "threads"
assert "/dev/nvidia" not in open(f"{server}/maps").read(), "a GPU"
if "torch" in sys.modules:
    assert not sys.modules["torch"].cuda._is_in_bad_fork(), "CUDA"
"""


def test_the_imports_of_all_stages_start_no_thread_and_no_gpu(server: Server) -> None:
    scripts = sorted((ROOT / "workflow/scripts").rglob("*.py"))
    assert scripts
    for script in scripts:
        imports = script.read_text(encoding="utf-8").partition("\nwith job(")[0]
        assert run(server, imports + CHECK, script.name).status == 0, script


# All that ends, ends together


def wait_for(path: str) -> None:
    deadline = time.monotonic() + 20
    while not Path(path).is_file():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


STUCK = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with open("pids", "w") as file: file.write(f"{os.getppid()} {os.getpid()} {child.pid}")
os.rename("pids", "started")
try: time.sleep(60)
finally: open("cleaned", "w").close()
"""
HOLDER = """
import sys
from contextlib import nullcontext
from unic.runtime.forking import Server
server = Server()
server.run(sys.argv[1], environment=dict(__import__("os").environ), watch=lambda _: nullcontext())
"""


@contextmanager
def stuck_script(folder: Path, name: str = "stuck.py") -> Iterator[tuple[int, list[int]]]:
    """A script that runs, with a child of its own: who asked for it, and server, script, child."""
    (folder / name).write_text(STUCK)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, name], cwd=folder)
    wait_for(str(folder / "started"))
    pids = list(map(int, (folder / "started").read_text().split()))
    yield holder.pid, pids
    holder.kill()
    holder.wait()


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 3
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline, [pid for pid in pids if is_running(pid)]
        time.sleep(0.01)


@pytest.mark.usefixtures("server")
def test_the_end_of_the_thread_that_started_it_ends_nothing() -> None:
    started: list[Server] = []
    thread = Thread(target=lambda: started.append(Server()))
    thread.start()
    thread.join()
    assert run(started[0], "import time; time.sleep(0.2)").status == 0
    started[0].close()


def test_interrupted_scripts_may_clean_up(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(run, server, STUCK)
        wait_for("started")
        server.interrupt()
        assert ended.result(10).status == 1
    assert Path("cleaned").is_file()


def test_a_kill_of_who_started_it_ends_all(tmp_path: Path) -> None:
    with stuck_script(tmp_path) as (holder, pids):
        os.kill(holder, signal.SIGKILL)
        wait_for_end(pids)


def test_a_kill_of_the_server_ends_its_scripts_and_is_told(tmp_path: Path) -> None:
    with stuck_script(tmp_path) as (_, (server, script, child)):
        os.kill(server, signal.SIGKILL)
        wait_for_end([server, script])
        os.kill(child, signal.SIGKILL)  # of a script that is killed it is left, as of any process


def test_a_kill_of_the_server_while_it_imports_is_told_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    tell = "open(f'importing.{os.getpid()}', 'w').close()"
    Path("slow.py").write_text(f"import os, time\n{tell}\ntime.sleep(60)")
    opened = Semaphore(0)
    with closing(Server()) as server, ThreadPoolExecutor(2) as pool:
        open_channel = server._open_channel

        @contextmanager
        def open_and_tell() -> Iterator[TextIO]:  # the server, which imports, cannot tell
            with open_channel() as channel:
                opened.release()
                yield channel

        monkeypatch.setattr(server, "_open_channel", open_and_tell)
        asked = [pool.submit(run, server, "import slow", name) for name in ("a.py", "b.py")]
        deadline = time.monotonic() + 20
        while not (found := list(Path().glob("importing.*"))):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in asked:  # one that is asked for later is told that nothing of it ran
            assert opened.acquire(timeout=20)
        os.kill(int(found[0].suffix[1:]), signal.SIGKILL)
        for future in asked:
            with pytest.raises(ChildProcessError, match="was killed by SIGKILL"):
                future.result(10)
        assert not server.is_alive
        with pytest.raises(CannotForkError, match="was killed by SIGKILL"):
            run(server, "")


def test_a_script_that_nobody_watches_does_not_run_and_ends_nothing_else(server: Server) -> None:
    def fail(pid: int) -> NoReturn:
        pids.append(pid)
        raise KeyError("watch")

    pids: list[int] = []
    Path("unwatched.py").write_text("open('ran', 'w')")
    with pytest.raises(KeyError, match="watch"):
        server.run("unwatched.py", environment=os.environ, watch=fail)
    wait_for_end(pids)
    assert run(server, "open('second', 'w')").status == 0
    assert not Path("ran").exists()
    assert Path("second").exists()


def test_a_kill_of_a_script_ends_what_it_started(tmp_path: Path) -> None:
    with stuck_script(tmp_path) as (_, (_, script, child)):
        os.kill(script, signal.SIGKILL)
        wait_for_end([script, child])
