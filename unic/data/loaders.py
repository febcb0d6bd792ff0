"""Batches of prepared pixels, from memory where they fit, else decoded by threads."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.data.datasets import Images
from unic.data.views import RANDOM_CROPS, View, prepare_image, warp_batch

MEMORY_LIMIT = 1 << 30  # bytes of prepared images that a loader keeps
AHEAD = 2  # batches that are prepared before they are asked for


class ViewLoader:
    """Gives normalized views of chosen images, batch by batch.

    What is random in a view is drawn from a seed of its own, made from ``generator`` in the main
    thread, so neither the number of workers nor what is kept in memory changes anything.

    Args:
        images: Where pixels come from.
        view: Sizes and statistics.
        augmentation: ``none``, ``gcd``, ``scan`` or ``warp``.
        n_workers: Threads that decode, at least 1.
    """

    def __init__(self, images: Images, view: View, *, augmentation: str, n_workers: int = 1):
        self.images, self.view, self.augmentation = images, view, augmentation
        self.n_workers = n_workers
        self._prepared: Tensor | None = None

    def batches(
        self, rows: Iterable[NDArray[np.int64]], generator: np.random.Generator
    ) -> Iterator[Tensor]:
        """Views of the images in each array of rows.

        Args:
            rows: Arrays of image rows, a batch each.
            generator: Source of the views' seeds.

        Yields:
            float32, shape ``(b, 3, image_size, image_size)``, normalized, on the CPU.

        Raises:
            ValueError: If an image cannot be decoded; names the file.
        """
        for pixels in self._pixel_batches(list(rows), generator):
            if self.augmentation == "warp":
                seed = int(generator.integers(2**63))
                pixels = warp_batch(pixels, torch.Generator().manual_seed(seed))
            yield self.view.normalize(pixels)

    def _pixel_batches(
        self, rows: Sequence[NDArray[np.int64]], generator: np.random.Generator
    ) -> Iterator[Tensor]:
        if self._is_cacheable():
            if self._prepared is None:
                every = [np.arange(len(self.images))]
                self._prepared = next(iter(self._load(every, generator)))
            yield from (self._prepared[torch.from_numpy(batch)] for batch in rows)
        else:
            yield from self._load(rows, generator)

    def _is_cacheable(self) -> bool:
        n_bytes = len(self.images) * 3 * self.view.image_size**2
        return self.augmentation not in RANDOM_CROPS and n_bytes <= MEMORY_LIMIT

    def _load(
        self, rows: Sequence[NDArray[np.int64]], generator: np.random.Generator
    ) -> Iterator[Tensor]:
        """Prepare batches in threads, a few batches ahead; decoding and resizing free the GIL."""
        pool = ThreadPoolExecutor(self.n_workers)
        pending: deque[list[Future[Tensor]]] = deque()
        try:
            for batch in rows:
                seeds = self._draw_seeds(len(batch), generator)
                pending.append(
                    [pool.submit(self._prepare, *r) for r in zip(batch, seeds, strict=True)]
                )
                if len(pending) > AHEAD:
                    yield _stack(pending.popleft())
            while pending:
                yield _stack(pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _draw_seeds(self, n_seeds: int, generator: np.random.Generator) -> list[int]:
        if self.augmentation not in RANDOM_CROPS:
            return [0] * n_seeds
        return generator.integers(2**63, size=n_seeds).tolist()

    def _prepare(self, row: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return prepare_image(self.images[row], self.view, self.augmentation, generator)


def split_rows(n_rows: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Rows ``0 .. n_rows - 1`` in order, cut into batches."""
    return np.split(np.arange(n_rows), range(batch_size, n_rows, batch_size))


def _stack(images: Sequence[Future[Tensor]]) -> Tensor:
    return torch.stack([image.result() for image in images])
