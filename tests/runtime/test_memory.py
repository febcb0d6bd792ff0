"""Freed memory that a process keeps."""

import subprocess
import sys

import pytest

from unic.runtime.memory import keep_freed_memory

STEPS = """
import resource, sys
import numpy as np
from unic.runtime.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    arrays = [np.full(500_000, 1.0) for _ in range(20)]  # 4 MB each
    while arrays:
        arrays.pop()

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(3):
    step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def count_faults(how: str) -> int:
    command = [sys.executable, "-c", STEPS, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told")
def test_memory_of_a_step_is_there_for_the_next() -> None:
    if not keep_freed_memory():
        pytest.skip("another C library than glibc")
    assert count_faults("kept") < 500  # of 100,000 pages that the steps write
    assert count_faults("given back") > 20_000


def test_other_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
