"""Processes that share out a batch."""

import numpy as np
import pytest
import torch

from unic.runtime.processes import Processes, run_together


def fail_in_one(text: str, processes: Processes) -> None:
    if processes.rank == 1:
        raise ValueError(text)
    processes.gather(torch.zeros(1, 1, 2))  # waits for the other


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all() -> None:
    with pytest.raises(ChildProcessError, match="they ended with"):
        run_together(fail_in_one, "broken", n_processes=2)


def test_refuses_a_batch_that_cannot_be_shared_out() -> None:
    with pytest.raises(ValueError, match="must be a multiple of the 2 processes, got 5"):
        Processes(0, 2).positions(3, 5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_columns_and_make_up_the_batch(size: int) -> None:
    rows = np.arange(3 * 6).reshape(3, 6)
    positions = [Processes(rank, size).positions(3, 6) for rank in range(size)]
    shares = [rows.ravel()[slice(None) if part is None else part] for part in positions]
    found = np.concatenate([share.reshape(3, -1) for share in shares], axis=1)
    np.testing.assert_array_equal(found, rows)
