"""What is said last is why the workflow failed."""

import subprocess
import sys
from pathlib import Path

import pytest

from unic.runtime.failures import describe_failure

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n'


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (f"INFO 1\n{TRACEBACK}ValueError: k\n\nunic: error: k\n", "unic: error: k"),
        ("INFO 1\n\nunic: error: k\n and l\n", "unic: error: k\n and l"),
        (f"{TRACEBACK}OSError: 1\n\n{TRACEBACK}KeyError: 'far'\n", f"{TRACEBACK}KeyError: 'far'"),
    ],
)
def test_the_end_of_a_log(tmp_path: Path, log: str, expected: str) -> None:
    path = tmp_path / "log"
    path.write_text(log, encoding="utf-8")
    assert describe_failure("mine", [str(path)]) == f"{expected} (mine, log in {path})"


def test_a_job_that_could_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    expected = "unic: error: mine ended without an error of its own, see above (log in {})"
    assert describe_failure("mine", [str(path)]) == expected.format(path)
    path.write_text("INFO 1\n", encoding="utf-8")
    assert describe_failure("mine", [str(path)]) == expected.format(path)
    assert describe_failure("mine", []) == expected.format("no file")


def test_it_is_said_after_all_else(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\nunic: error: k must be 1, got 2\n")
    code = "from unic.runtime.failures import say_last; import sys; say_last([('mine', ['log'])]); "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('WorkflowError')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines() == [
        "WorkflowError",
        "",
        "unic: error: k must be 1, got 2 (mine, log in log)",
    ]
