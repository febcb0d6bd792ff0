"""Processes that share out a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unic.runtime.processes import ALONE, Processes, run_together


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


def loss_of(data: Tensor, weight: Tensor, processes: Processes) -> tuple[Tensor, Tensor]:
    """A loss that hangs on all pairs of the batch ``(r, b, d)``, and what was gathered."""
    positions = processes.positions(*data.shape[:2])
    flat = data.flatten(0, 1)
    share = flat if positions is None else flat[positions]
    gathered = processes.gather((share * weight).unflatten(0, (len(data), -1)))
    return (gathered @ gathered.mT).square().mean(), gathered


def share_out(path: Path, processes: Processes) -> None:
    data = torch.load(path / "data.pt")
    weight = torch.ones(data.shape[-1], dtype=data.dtype, requires_grad=True)
    idle = torch.ones(1, requires_grad=True)  # has no gradient
    loss, gathered = loss_of(data, weight, processes)
    loss.backward()
    processes.sum_gradients([weight, idle])
    torch.save((gathered.detach(), weight.grad), path / f"{processes.rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_outputs_and_the_gradient_of_one(tmp_path: Path) -> None:
    data = torch.rand(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.save(data, tmp_path / "data.pt")
    run_together(share_out, tmp_path, n_processes=2)
    weight = torch.ones(4, dtype=torch.float64, requires_grad=True)
    loss, _ = loss_of(data, weight, ALONE)
    loss.backward()
    for rank in (0, 1):
        gathered, gradient = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(gathered, data)
        torch.testing.assert_close(gradient, weight.grad)


def test_a_process_that_is_alone_takes_its_own_device() -> None:
    for name in ("cpu", "cuda", "cuda:1"):
        assert ALONE.place(torch.device(name)) == torch.device(name)
    assert Processes(1, 2).place(torch.device("cpu")) == torch.device("cpu")


def test_one_process_is_this_one() -> None:
    seen: list[tuple[str, Processes]] = []
    run_together(lambda text, processes: seen.append((text, processes)), "x", n_processes=1)
    assert seen == [("x", ALONE)]
