"""Processes that train one model together, each on its share of every batch."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

T = TypeVar("T")


class Processes(NamedTuple):
    """This process among those of ``torch.distributed``.

    All draw the same batches. Each computes the predictions of its share, gets those of the
    others, and computes the loss of the whole batch; its gradient is the part of the whole
    gradient that goes through its share, so the sum over the processes is the gradient of one
    process with the whole batch. That holds for the entropy and the pairs within a batch too.
    """

    rank: int = 0
    size: int = 1

    def place(self, device: torch.device) -> torch.device:
        """The device of this process: a GPU each."""
        if device.type != "cuda" or self.size == 1:
            return device
        local = int(os.environ.get("LOCAL_RANK", self.rank))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"machine.processes must be at most the {torch.cuda.device_count()} GPUs, got "
                f"{self.size}"
            )
        torch.cuda.set_device(local)
        return torch.device("cuda", local)

    def share(self, n_rows: int, batch_size: int) -> NDArray[np.int64]:
        """Positions of this process's images in a raveled batch of shape ``(r, b)``.

        Raises:
            ValueError: If the batch cannot be shared out evenly.
        """
        if batch_size % self.size:
            raise ValueError(
                f"batch_size must be a multiple of the {self.size} processes, got {batch_size}"
            )
        columns = np.split(np.arange(batch_size), self.size)[self.rank]  # (b / p,)
        return (np.arange(n_rows)[:, None] * batch_size + columns).ravel()

    def gather(self, log_probs: Tensor) -> Tensor:
        """Predictions ``(r, b / p, c)`` of all processes, ``(r, b, c)``; own ones keep a graph."""
        if self.size == 1:
            return log_probs
        parts = [torch.empty_like(log_probs) for _ in range(self.size)]
        distributed.all_gather(parts, log_probs.detach().contiguous())
        parts[self.rank] = log_probs
        return torch.cat(parts, dim=1)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE = Processes()


def run_together(
    function: Callable[[T, Processes], None], argument: T, *, n_processes: int
) -> None:
    """Call a function in several processes that know of each other.

    One process is this one. Under ``torchrun``, which starts processes on several machines, this
    process joins those.

    Args:
        function: Defined at the top of a module; called with the argument and the process.
        argument: Can be pickled.
        n_processes: At least 1; not used under ``torchrun``.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        _call(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://", function, argument)
    elif n_processes == 1:
        function(argument, ALONE)
    else:
        with tempfile.TemporaryDirectory() as folder:
            meeting = Path(folder, "processes").as_uri()
            arguments = (n_processes, meeting, function, argument)
            spawn(_call, args=arguments, nprocs=n_processes)


def _call(
    rank: int, size: int, meeting: str, function: Callable[[T, Processes], None], argument: T
) -> None:
    level = logging.INFO if rank == 0 else logging.WARNING
    logging.basicConfig(level=level)  # where the process is new
    backend = "nccl" if torch.cuda.is_available() and torch.cuda.device_count() >= size else "gloo"
    distributed.init_process_group(backend, init_method=meeting, rank=rank, world_size=size)
    try:
        function(argument, Processes(rank, size))
    finally:
        distributed.destroy_process_group()
