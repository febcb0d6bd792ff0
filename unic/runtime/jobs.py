"""What every job of the workflow does around its work: log, threads, one clear error."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import unic

MARK = "unic: error: "  # what the one clear line of an error begins with
START = "UNIC_START"  # variable of the environment that says how the job's process started


@contextmanager
def job(log: str, *, threads: int = 1) -> Iterator[None]:
    """Send logging to a file and to stderr, limit threads, and report an error in one line.

    A wrong input (``ValueError``, ``OSError``) or setting (``FloatingPointError``) prints its
    message alone on stderr; the log has the full traceback and ends with the message, where
    :mod:`unic.runtime.failures` finds it. Any other error is a bug and is shown whole.

    Args:
        log: File that receives the log; its folder is made.
        threads: Upper limit for the threads of torch and BLAS, ``>= 1``.

    Raises:
        SystemExit: With status 1, in place of any error raised inside.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(log, mode="w", encoding="utf-8")
    terminal = logging.StreamHandler(sys.stderr)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[file, terminal],
        force=True,
    )
    logging.captureWarnings(True)
    limit_threads(threads)
    start = os.environ.get(START, "in a process of its own")
    logging.getLogger(__name__).info("unic %s, %d threads, %s", unic.__version__, threads, start)
    try:
        yield
    except Exception as error:
        is_input = isinstance(error, ValueError | OSError | FloatingPointError)
        with Path(log).open("a", encoding="utf-8") as stream:
            stream.write(traceback.format_exc())
            stream.write(f"\n{MARK}{error}\n" if is_input else "")
        if is_input:
            sys.exit(f"\n{MARK}{error}\n(traceback in {log})\n")
        traceback.print_exc()
        sys.exit(1)


def limit_threads(threads: int) -> None:
    """Let torch and numba, where they are loaded, and BLAS and OpenMP pools use this many threads.

    numba goes first: with its first parallel loop it would give OpenMP, and so torch, all cores.
    """
    from threadpoolctl import threadpool_limits

    if "numba" in sys.modules:
        numba = sys.modules["numba"]
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
