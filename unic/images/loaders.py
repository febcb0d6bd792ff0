"""Batches of prepared pixels, from memory where they fit, else decoded by threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.images.images import Images
from unic.images.views import UNCHANGED, Augmentation, View, prepare_image

MEMORY_LIMIT = 1 << 30  # bytes of prepared images that a loader keeps
Part = slice | NDArray[np.int64]  # which images of a batch
AHEAD = 2  # batches that are prepared before they are asked for


class ViewLoader:
    """Gives normalized views of chosen images, batch by batch.

    What is random in a view is drawn from a seed of its own, made from ``generator`` in the main
    thread, so neither the number of workers nor what is kept in memory changes anything.

    Args:
        images: Where pixels come from.
        view: Sizes and statistics.
        augmentation: What makes the views differ; the evaluation view by default.
        n_workers: Threads that decode, at least 1.
        is_read_once: Whether each image is asked for once, so that none is kept in memory.
    """

    def __init__(
        self,
        images: Images,
        view: View,
        *,
        augmentation: Augmentation = UNCHANGED,
        n_workers: int = 1,
        is_read_once: bool = False,
    ):
        self.images, self.view, self.augmentation = images, view, augmentation
        self.n_workers, self.is_read_once = n_workers, is_read_once
        self._prepared: Tensor | None = None

    def batches(
        self,
        rows: Iterable[NDArray[np.int64]],
        generator: np.random.Generator,
        *,
        positions: NDArray[np.int64] | None = None,
        is_whole: bool = False,
    ) -> Iterator[Tensor]:
        """Views of the images in each array of rows.

        Args:
            rows: Arrays of image rows, a batch each.
            generator: Source of the views' seeds.
            positions: Which images of every batch to give; all by default. The views are those
                that the whole batch would have, so that processes can share a batch out.
            is_whole: Whether the batches are parts of one whole, whose views are then the same
                however it is cut. Those of a training are not: a warp is of its batch's seed.

        Yields:
            float32, shape ``(b, 3, image_size, image_size)``, normalized, on the CPU.

        Raises:
            ValueError: If an image cannot be decoded; names the file.
        """
        whole = list(rows)
        part = slice(None) if positions is None else positions
        prepared = self._pixel_batches(whole, generator, part)
        draw, change = self.augmentation.draw, self.augmentation.change
        if draw is not None and change is not None:
            sizes = [len(batch) for batch in whole]
            drawn = _draw_batches(draw, sizes, generator, is_whole=is_whole)
            prepared = (
                change(pixels, draws[part]) for pixels, draws in zip(prepared, drawn, strict=True)
            )
        yield from map(self.view.normalize, prepared)

    def _pixel_batches(
        self, rows: Sequence[NDArray[np.int64]], generator: np.random.Generator, part: Part
    ) -> Iterator[Tensor]:
        if self._is_cacheable():
            if self._prepared is None:
                every = [np.arange(len(self.images))]
                self._prepared = next(iter(self._load(every, generator, slice(None))))
            yield from (self._prepared[torch.from_numpy(batch[part])] for batch in rows)
        else:
            yield from self._load(rows, generator, part)

    def _is_cacheable(self) -> bool:
        n_bytes = len(self.images) * 3 * self.view.image_size**2
        can_keep = self.augmentation.crop is None and not self.is_read_once
        return can_keep and n_bytes <= MEMORY_LIMIT

    def _load(
        self, rows: Sequence[NDArray[np.int64]], generator: np.random.Generator, part: Part
    ) -> Iterator[Tensor]:
        """Prepare batches in threads, a few batches ahead; decoding and resizing free the GIL."""
        pool = ThreadPoolExecutor(self.n_workers)
        pending: deque[list[Future[Tensor]]] = deque()
        try:
            for batch in rows:
                seeds = self._draw_seeds(len(batch), generator)[part].tolist()
                drawn = zip(batch[part], seeds, strict=True)
                pending.append([pool.submit(self._prepare, *r) for r in drawn])
                if len(pending) > AHEAD:
                    yield _stack(pending.popleft())
            while pending:
                yield _stack(pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _draw_seeds(self, n_seeds: int, generator: np.random.Generator) -> NDArray[np.int64]:
        if self.augmentation.crop is None:
            return np.zeros(n_seeds, dtype=np.int64)
        return generator.integers(2**63, size=n_seeds)

    def _prepare(self, row: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return prepare_image(self.images[row], self.view, self.augmentation, generator)


def split_rows(n_rows: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Rows ``0 .. n_rows - 1`` in order, cut into batches.

    Args:
        n_rows: At least 1.
        batch_size: Rows of a batch, at least 1; the last one may have fewer.

    Returns:
        Arrays of shape ``(b,)``, int64.

    Example:
        >>> [rows.tolist() for rows in split_rows(5, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return np.split(np.arange(n_rows), range(batch_size, n_rows, batch_size))


def _draw_batches(
    draw: Callable[[int, torch.Generator], Tensor],
    sizes: Sequence[int],
    generator: np.random.Generator,
    *,
    is_whole: bool,
) -> Iterator[Tensor]:
    """What the changes of each batch need: of a seed a batch, or all of one seed."""

    def draw_of_seed(n_images: int) -> Tensor:
        seed = int(generator.integers(2**63))
        return draw(n_images, torch.Generator().manual_seed(seed))

    if is_whole:
        yield from draw_of_seed(sum(sizes)).split(list(sizes))
    else:
        yield from map(draw_of_seed, sizes)


def _stack(images: Sequence[Future[Tensor]]) -> Tensor:
    return torch.stack([image.result() for image in images])
