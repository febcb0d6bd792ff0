"""What is said last of a workflow that failed or was stopped: one line, or our fault whole."""

import atexit
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from unic.runtime.jobs import MARK

INTERRUPTED = 130  # exit status after Ctrl-C
GOES_ON = "the same command goes on where it was"
_TRACEBACK = "Traceback (most recent call last):"


def say_last(failed: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Print what jobs failed of when this process ends, below all that others print till then.

    Args:
        failed: Rule and log files of each job.
    """
    texts = [describe_failure(rule, logs) for rule, logs in sorted(failed)]
    if texts:
        atexit.register(print, "", *texts, sep="\n", file=sys.stderr)


def describe_failure(rule: str, logs: Sequence[str]) -> str:
    """The error at the end of the log of a job, and where the log is.

    A wrong input is its message alone, any other error its traceback. Of a job that could say
    nothing, such as one that was killed in a process of its own, the log holds no error.
    """
    for log in filter(lambda log: Path(log).is_file(), logs):
        text = Path(log).read_text(encoding="utf-8", errors="replace").rstrip()
        _, is_said, message = text.rpartition(f"\n{MARK}")
        if is_said:
            return f"{MARK}{message} ({rule}, log in {log})"
        _, is_fault, stack = text.rpartition(_TRACEBACK)
        if is_fault:
            return f"{_TRACEBACK}{stack} ({rule}, log in {log})"
    where = ", ".join(logs) or "no file"
    return f"{MARK}{rule} ended without an error of its own, see above (log in {where})"
