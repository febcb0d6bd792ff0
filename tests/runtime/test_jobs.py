import subprocess
import sys
from pathlib import Path

import pytest

import unic


def run_job(folder: Path, body: str, *, threads: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script as the workflow does; it may raise, log and warn."""
    lines = [
        "import logging, sys, warnings",
        "from unic.runtime.jobs import job",
        f"with job(sys.argv[1], threads={threads}):",
        *(f"    {line}" for line in body.splitlines()),
    ]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(folder / "deep" / "job.log")],
        capture_output=True,
        text=True,
        check=False,
    )


def read_log(folder: Path) -> str:
    return (folder / "deep" / "job.log").read_text(encoding="utf-8")


def test_a_job_that_succeeds_logs_to_its_file_and_to_the_terminal(tmp_path: Path) -> None:
    done = run_job(
        tmp_path, "logging.getLogger('unic.x').info('7 größer')\nwarnings.warn('odd')", threads=2
    )
    assert done.returncode == 0
    log = read_log(tmp_path)
    for text in (log, done.stderr):
        assert f"INFO unic.runtime.jobs: unic {unic.__version__}, 2 threads" in text
        assert "INFO unic.x: 7 größer" in text
        assert "odd" in text
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ValueError('k must be 3, got 4')", "k must be 3, got 4"),
        ("FileNotFoundError('no store at x')", "no store at x"),
        ("FloatingPointError('the loss must stay finite')", "the loss must stay finite"),
    ],
)
def test_a_wrong_input_is_one_line_on_the_terminal_and_whole_in_the_log(
    tmp_path: Path, error: str, message: str
) -> None:
    failed = run_job(tmp_path, f"raise {error}")
    assert failed.returncode == 1
    lines = [line for line in failed.stderr.splitlines() if message in line]
    assert lines == [f"unic: error: {message}"]
    assert "Traceback (" not in failed.stderr
    assert f"(traceback in {tmp_path / 'deep' / 'job.log'})" in failed.stderr
    log = read_log(tmp_path)
    assert "Traceback (most recent call last):" in log
    assert f"{error.partition('(')[0]}: {message}" in log


def test_a_fault_of_ours_is_shown_whole(tmp_path: Path) -> None:
    failed = run_job(tmp_path, "raise KeyError('far_rank')")
    assert failed.returncode == 1
    for text in (failed.stderr, read_log(tmp_path)):
        assert "Traceback (most recent call last):" in text
        assert "KeyError: 'far_rank'" in text


def test_a_rerun_starts_a_new_log(tmp_path: Path) -> None:
    run_job(tmp_path, "logging.info('first run')")
    run_job(tmp_path, "logging.info('second run')")
    assert "first run" not in read_log(tmp_path)
    assert "second run" in read_log(tmp_path)


def test_a_loaded_torch_is_told_its_threads(tmp_path: Path) -> None:
    body = "import types"
    body += "\nsys.modules['torch'] = types.SimpleNamespace(set_num_threads=logging.warning)"
    body += "\nfrom unic.runtime.jobs import limit_threads\nlimit_threads(3)"
    run_job(tmp_path, body)
    assert "WARNING root: 3" in read_log(tmp_path)


def test_torch_is_not_loaded_for_its_threads(tmp_path: Path) -> None:
    run_job(tmp_path, "logging.info('loaded: %s', 'torch' in sys.modules)")
    assert "loaded: False" in read_log(tmp_path)


def test_compiled_loops_keep_to_the_threads_of_the_job(tmp_path: Path) -> None:
    body = "import numba, numpy as np, torch"
    body += "\nfrom unic.neighbors.cleaning import union_sizes"
    body += "\nfrom unic.runtime.jobs import limit_threads\nlimit_threads(1)"
    body += "\nunion_sizes(np.zeros((1, 1), dtype=np.int64))"
    body += "\nlogging.info('threads: %d, %d.', torch.get_num_threads(), numba.get_num_threads())"
    run_job(tmp_path, body)
    assert "threads: 1, 1." in read_log(tmp_path)
