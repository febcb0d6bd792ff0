"""Processes that train one model together, each on its share of every batch."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed


class Processes(NamedTuple):
    """This process among those of ``torch.distributed``.

    All draw the same batches. Each computes the predictions of its share, gets those of the
    others, and computes the loss of the whole batch; its gradient is the part of the whole
    gradient that goes through its share, so the sum over the processes is the gradient of one
    process with the whole batch. That holds for the entropy and the pairs within a batch too.
    """

    rank: int = 0
    size: int = 1

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
