"""What holds for all tests."""

import signal
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Let what tests start be interrupted: a shell has its background jobs ignore SIGINT."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads that wait for one another take most of the time where tests run side by side.

    OMP_NUM_THREADS alone does not hold: numba's first parallel loop gives OpenMP all cores.
    """
    torch = sys.modules.get("torch")  # tests of the workflow need not wait for its import
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    import torch  # takes a while, which tests of the workflow need not wait for

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)
