"""How jobs start and fail: forked, or in processes of their own."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.project import Project
from unic.runtime.forking import IS_AVAILABLE

pytestmark = pytest.mark.workflow
FORKED = pytest.mark.skipif(not IS_AVAILABLE, reason="forks jobs on Linux alone")
SNAKEFILE = """\
from unic.runtime.failures import say_last
rule all:
    input: "a", "b"
rule a:
    output: "a"
    log: "a.log"
    benchmark: "a.tsv"
    resources: tmpdir="temporary"
    threads: 2
    script: "a.py"
rule b:
    input: "a"
    output: "b"
    log: "b.log"
    script: "b.py"
onerror:
    say_last((job.name, list(job.log)) for job in workflow.scheduler.failed)
"""
SCRIPT = """\
import os
from pathlib import Path
from unic.runtime.jobs import job
with job(snakemake.log[0], threads=snakemake.threads):
    {}
    Path(snakemake.output[0]).write_text(str(os.environ.get("OMP_NUM_THREADS")))
"""


@pytest.fixture
def toy(tmp_path: Path) -> Project:
    """Two rules whose scripts write a file each."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/tiny.yaml").write_text("{}")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    shutil.copytree(Path(__file__).parents[2] / "profiles", tmp_path / "profiles")
    for name in "ab":
        write(tmp_path, name)
    return Project(tmp_path)


def write(folder: Path, name: str, code: str = "pass") -> None:
    (folder / f"{name}.py").write_text(SCRIPT.format(code))


def last_lines(finished: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in finished.stderr.splitlines() if line.strip()]


@pytest.mark.parametrize("executor", [pytest.param("fork", marks=FORKED), "local"])
def test_both_ways_end_alike(toy: Project, executor: str) -> None:
    toy.run("--executor", executor)
    assert (toy.folder / "a").read_text() == "2"
    way = "forked" if executor == "fork" else "in a process of its own"
    assert f"2 threads, {way}\n" in (toy.folder / "a.log").read_text()
    header, row = (line.split("\t") for line in (toy.folder / "a.tsv").read_text().splitlines())
    figures = dict(zip(header, row, strict=True))
    assert 0 < float(figures["s"]) < 30
    assert list((toy.folder / ".snakemake/scripts").iterdir()) == []
    assert toy.plan("--executor", executor) == {}


@pytest.mark.parametrize("executor", [pytest.param("fork", marks=FORKED), "local"])
@pytest.mark.parametrize("quiet", [[], ["--quiet"], ["--quiet", "all"]], ids=str)
def test_the_last_line_is_the_error(toy: Project, executor: str, quiet: list[str]) -> None:
    write(toy.folder, "a", "raise ValueError('k must be 3, got 4')")
    finished = toy.snakemake("--cores", "1", *quiet, "--executor", executor)
    assert finished.returncode == 1
    assert last_lines(finished)[-1] == "unic: error: k must be 3, got 4 (a, log in a.log)"
    assert "Traceback" not in finished.stderr
    assert "Traceback" in (toy.folder / "a.log").read_text()


@pytest.mark.parametrize("executor", [pytest.param("fork", marks=FORKED), "local"])
def test_a_fault_of_ours_is_whole_and_last(toy: Project, executor: str) -> None:
    write(toy.folder, "a", "raise KeyError('far_rank')")
    finished = toy.snakemake("--cores", "1", "--executor", executor)
    assert last_lines(finished)[-1] == "KeyError: 'far_rank' (a, log in a.log)"
    whole = finished.stderr.rpartition("Traceback (most recent call last):")[2]
    assert "a.py" in whole


@FORKED
@pytest.mark.parametrize("name", ["KILL", "SEGV"])
def test_a_job_that_is_killed_is_named_and_the_others_go_on(toy: Project, name: str) -> None:
    write(toy.folder, "a", f"import signal; os.kill(os.getpid(), signal.SIG{name})")
    (toy.folder / "Snakefile").write_text(SNAKEFILE.replace('    input: "a"\n', ""))
    finished = toy.snakemake("--cores", "2", "--keep-going")
    assert last_lines(finished)[-1] == f"unic: error: a was killed by SIG{name} (a, log in a.log)"
    assert (toy.folder / "b").is_file()


@FORKED
def test_a_killed_server_fails_its_job_and_another_takes_its_place(toy: Project) -> None:
    kill = "import signal; os.getenv('again') or os.kill(os.getppid(), signal.SIGKILL)"
    write(toy.folder, "a", f"{kill}; import time; time.sleep(60)")
    (toy.folder / "Snakefile").write_text(SNAKEFILE.replace('    input: "a"\n', ""))
    finished = toy.snakemake("--cores", "1", "--keep-going")
    said = "a was killed: the process it was forked from was killed by SIGKILL (a, log in a.log)"
    assert last_lines(finished)[-1] == f"unic: error: {said}"
    assert "forked" in (toy.folder / "b.log").read_text()


@FORKED
@pytest.mark.parametrize(
    ("start", "setting"),
    [
        ("", '    shadow: "minimal"\n'),
        ('shell.prefix("set -e; ")\n', ""),
    ],
)
def test_a_job_that_needs_a_shell_or_a_folder_of_its_own_is_not_forked(
    toy: Project, start: str, setting: str
) -> None:
    rule = f"rule b:\n{setting}"
    (toy.folder / "Snakefile").write_text(start + SNAKEFILE.replace("rule b:\n", rule))
    toy.run()
    assert "in a process of its own" in (toy.folder / "b.log").read_text()
    assert ("forked" in (toy.folder / "a.log").read_text()) == (not start)


def test_rules_without_a_script(toy: Project) -> None:
    code = SNAKEFILE.replace('script: "b.py"', 'run: open(output[0], "w").close()')
    (toy.folder / "Snakefile").write_text(code.replace('script: "a.py"', 'shell: "touch {output}"'))
    toy.run()
    assert (toy.folder / "b").is_file()


@FORKED
def test_two_workflows_at_once(toy: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "toy"
    shutil.copytree(toy.folder, other)
    write(toy.folder, "a", "import signal; os.kill(os.getppid(), signal.SIGKILL)")
    write(other, "a", "import time; time.sleep(2)")
    processes = [toy.start(), Project(other).start()]
    assert [process.wait(60) for process in processes] == [1, 0]


@FORKED
def test_retries(toy: Project) -> None:
    write(toy.folder, "a", "Path('tried').exists() or Path('tried').touch() or 1 / 0")
    toy.run("--retries", "1")


@FORKED
def test_an_edit_between_two_runs_is_seen(toy: Project) -> None:
    module = toy.folder / "helper.py"
    module.write_text("value = 1")
    (toy.folder / "a.py").write_text(
        "import helper; open(snakemake.output[0], 'w').write(str(helper.value))"
    )
    toy.run("a")
    module.write_text("value = 2000")
    toy.run("--forcerun", "a", "--", "a")
    assert (toy.folder / "a").read_text() == "2000"


@FORKED
@pytest.mark.parametrize("code", ["raise ImportError", "pass"])
def test_a_server_that_cannot_start_leaves_jobs_to_start_by_themselves(
    toy: Project, code: str
) -> None:
    site = (
        f"import sys; '-m' in sys.orig_argv and 'snakemake' not in sys.orig_argv and exit({code!r})"
    )
    (toy.folder / "sitecustomize.py").write_text(site)
    finished = toy.snakemake("--cores", "1")
    assert finished.returncode == 0, finished.stderr
    warning = "jobs are not forked, each imports for itself: the process to fork from ended with"
    assert finished.stderr.count(warning) == 1
    assert "in a process of its own" in (toy.folder / "b.log").read_text()


@FORKED
def test_ctrl_c_ends_all(toy: Project) -> None:
    write(
        toy.folder,
        "a",
        "Path('started').write_text(str(os.getppid())); import time; time.sleep(60)",
    )
    process = toy.start()
    wait_until((toy.folder / "started").is_file)
    server = int((toy.folder / "started").read_text())
    os.kill(process.pid, signal.SIGINT)
    process.wait(10)
    wait_until(lambda: not Path(f"/proc/{server}").exists())
    assert "KeyboardInterrupt" not in (toy.folder / "a.log").read_text()
    assert not (toy.folder / "a").exists()


@FORKED
def test_sigterm_lets_the_running_job_end_and_ends_all(toy: Project) -> None:
    tell = "Path('started').write_text(''); import time; time.sleep(3)"
    write(toy.folder, "a", tell)
    process = toy.start()
    wait_until((toy.folder / "started").is_file)
    os.kill(process.pid, signal.SIGTERM)
    process.wait(30)
    assert (toy.folder / "a").is_file()
    assert not (toy.folder / "b").exists()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--touch"], ["--lint"]], ids=str)
def test_what_runs_no_job(toy: Project, arguments: list[str]) -> None:
    (toy.folder / "a").touch()
    (toy.folder / "b").touch()
    finished = toy.snakemake("--cores", "1", *arguments)
    assert finished.returncode == int(arguments == ["--lint"]), finished.stderr
    assert not list(toy.folder.glob("*.log"))
