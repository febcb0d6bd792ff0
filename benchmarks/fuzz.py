"""Damage the inputs of every reader at random for a while and count what is read and refused.

    python -m benchmarks.fuzz --minutes 10 [--reader manifest ...]

Each reader runs in a process of its own, so that one which crashes the interpreter is seen too.
"""

import argparse
import faulthandler
import logging
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.fuzzing import (
    CONFIG,
    READERS,
    cases,
    check_config,
    check_reader,
    damaged_tree,
    write_sample,
)

EXAMPLES = 200  # between two looks at the clock
MEMORY = 12 << 30  # bytes that a process may ask for
PROFILE = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
    print_blob=False,
)


def fuzz_reader(name: str, folder: Path, minutes: float, first_seed: int) -> int:
    reader = READERS[name]
    sample = write_sample(reader, folder)

    def check(case: tuple[str, bytes]) -> None:
        check_reader(reader, sample, case)

    n_examples = 5 if reader.is_slow else EXAMPLES
    return repeat(check, cases(reader, sample), minutes, first_seed, n_examples)


def repeat(
    check: Callable[[Any], None],
    damage: SearchStrategy[Any],
    minutes: float,
    first_seed: int,
    n_examples: int,
) -> int:
    end, number = time.monotonic() + 60 * minutes, first_seed
    profile = settings(PROFILE, max_examples=n_examples)
    while time.monotonic() < end:
        seed(number)(profile(given(damage)(lambda case: check(case))))()
        number += 1
    return n_examples * (number - first_seed)


def run_one(name: str, minutes: float, first_seed: int) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        try:
            if name == "config":
                tried = repeat(check_config, damaged_tree(CONFIG), minutes, first_seed, EXAMPLES)
            else:
                tried = fuzz_reader(name, Path(folder), minutes, first_seed)
        except Exception as error:
            for line in describe(error):
                print(f"{name:20} {line}", flush=True)
            sys.exit(1)
    print(f"{name:20} {tried:9,} inputs", flush=True)


def describe(error: BaseException) -> list[str]:
    """Each error that Hypothesis found, and where in the package it came from."""
    if isinstance(error, BaseExceptionGroup):
        return [line for part in error.exceptions for line in describe(part)]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "/unic/" in f.filename]
    inputs = " ".join(getattr(error, "__notes__", []))[:400]
    return [f"{type(error).__name__} at {ours[-1:]}: {str(error)[:200]!r}; {inputs!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each reader")
    parser.add_argument("--reader", nargs="*", default=["config", *READERS])
    parser.add_argument("--seed", type=int, default=0, help="first seed of the damage")
    options = parser.parse_args()
    failed = []
    for name in options.reader:
        arguments = (name, options.minutes, options.seed)
        process = multiprocessing.get_context("fork").Process(target=run_one, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            failed.append(f"{name} ({process.exitcode})")
    print("no crash" if not failed else f"crashes: {', '.join(failed)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
