"""Running the workflow: one display of progress, one line where it fails."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from unic.photos.plan import format_seconds
from unic.photos.project import find_snakefile
from unic.photos.request import LOCK
from unic.runtime.failures import INTERRUPTED
from unic.runtime.jobs import MARK

_JOB = re.compile(r"^(?:Job|Checkpoint) \d+: (.*)$")
_STEPS = re.compile(r"^(\d+) of (\d+) steps")
_CLEAR = "\r\x1b[K"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this run, so that two do not write the same results.

    Raises:
        ValueError: If another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another run is at work in {folder}; wait for it") from None
        yield


def run_workflow(
    targets: Sequence[str],
    *,
    base: Path,
    entry: Path,
    cores: int,
    profile: str | None,
    expected: float,
) -> int:
    """Run Snakemake until some files are there, and show how far it is.

    Args:
        targets: Files, as paths from ``base``.
        base: Folder with results/ and logs/.
        entry: The configuration.
        cores: Of this machine.
        profile: Of Snakemake, for a cluster.
        expected: Seconds that all is expected to take.

    Returns:
        0, the status of Snakemake, or 130 after Ctrl-C.
    """
    command = [
        *(sys.executable, "-m", "snakemake", "--nocolor", "--nolock"),
        *("--snakefile", str(find_snakefile()), "--directory", str(base)),
        *("--configfile", str(entry), "--cores", str(cores)),
        *(("--profile", profile) if profile else ()),
        *("--", *targets),
    ]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            failures = _follow(process, Progress(sys.stderr, expected))
            status = process.wait()
        except KeyboardInterrupt:
            return _interrupt(process)
    if status and failures:
        print("\n".join(failures), file=sys.stderr)
    return status


class Progress:
    """What is being done, and how much of the expected time has passed."""

    def __init__(self, stream: TextIO, expected: float):
        self._stream, self._expected = stream, expected
        self._start = time.monotonic()
        self._is_terminal = stream.isatty()
        self._said = ""

    def begin(self, what: str) -> None:
        """Say which job has begun."""
        self._said = what
        if not self._is_terminal:
            print(f"{self._passed():>7}  {what}", file=self._stream, flush=True)
        self.refresh()

    def refresh(self, steps: str = "") -> None:
        """Draw the line again, on a terminal."""
        if self._is_terminal and self._said:
            left = max(0.0, self._expected - (time.monotonic() - self._start))
            about = f"about {format_seconds(left)} left" if left > 1 else "longer than planned"
            line = f"{self._passed()} ({about})  {steps}{self._said}"
            width = os.get_terminal_size(self._stream.fileno()).columns
            self._stream.write(_CLEAR + line[: width - 1])
            self._stream.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._is_terminal:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def _passed(self) -> str:
        return format_seconds(time.monotonic() - self._start)


def _follow(process: subprocess.Popen[str], progress: Progress) -> list[str]:
    """Read what Snakemake says until it ends; what it says of failures is given back."""
    last: list[str] = []
    reasons: list[str] = []
    for raw in process.stdout or ():
        line = raw.rstrip()
        job, steps = _JOB.match(line), _STEPS.match(line)
        if job:
            progress.begin(job.group(1))
        elif steps:
            progress.refresh(f"[{steps.group(1)}/{steps.group(2)}] ")
        elif line.startswith(MARK):
            reasons.append(line)
        elif line.strip():
            last = [*last[-14:], line]
    progress.end()
    return reasons or last


def _interrupt(process: subprocess.Popen[str]) -> int:
    """Ask Snakemake to stop, and wait until its jobs have."""
    with _ignored():
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return INTERRUPTED


@contextmanager
def _ignored() -> Iterator[None]:
    """Further Ctrl-C's change nothing while jobs stop."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
