"""What heads are trained on: standardized features, and batches of images and their neighbors."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.models.heads import Standardize


def standardize(
    features: Mapping[str, NDArray[np.float32]], *, device: str | torch.device
) -> dict[str, Tensor]:
    """Center all splits by the training mean, and divide them by one number.

    After it a dim has a variance of 1 on average in training (:class:`Standardize`), so that a
    learning rate means the same for every backbone.

    Args:
        features: Split to ``(n, d)``.
        device: Where the result lies.

    Raises:
        ValueError: If all training features are the same.
    """
    norm = Standardize(features["train"].shape[1])
    norm.fit(features["train"])
    return {split: norm(torch.from_numpy(rows)).to(device) for split, rows in features.items()}


def count_steps(
    n_images: int, batch_size: int, *, n_epochs: int, min_steps: int, max_steps: int
) -> int:
    """Steps of so many epochs, held between two bounds."""
    per_epoch = max(1, n_images // batch_size)
    return min(max(n_epochs * per_epoch, min_steps), max_steps)


def draw_batches(
    n_images: int, batch_size: int, n_steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield ``n_steps`` batches of images, shape ``(b,)``, none twice in a pass over them.

    What is left at the end of a pass and fills no batch is dropped. A batch holds all images
    where there are fewer than its size.
    """
    batch_size = min(batch_size, n_images)
    left = torch.empty(0, dtype=torch.int64)
    for _ in range(n_steps):
        if len(left) < batch_size:
            left = torch.randperm(n_images, generator=generator)  # (n,)
        yield left[:batch_size]
        left = left[batch_size:]


def draw_neighbors(neighbors: Tensor, anchors: Tensor, generator: torch.Generator) -> Tensor:
    """One neighbor ``(b,)`` of each anchor, each of the ``k`` as likely.

    Args:
        neighbors: Shape ``(n, k)``, without the image itself, on the CPU.
        anchors: Shape ``(b,)``, on the CPU.
        generator: Source of the draws.
    """
    columns = torch.randint(neighbors.shape[1], anchors.shape, generator=generator)  # (b,)
    return neighbors[anchors, columns]
