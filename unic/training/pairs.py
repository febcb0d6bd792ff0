"""Pairs: anchors with a positive each, and with a negative each."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.label_groups import LabelGroups
from unic.neighbors.negatives import NegativePool
from unic.storage.known_labels import check_known_labels


class PositiveSampler:
    """Draws one positive per anchor.

    An unlabeled anchor takes a random entry of its clean neighbors, itself included; where they
    were discarded, itself. A labeled anchor takes a random image known to share its label, itself
    included (UNIC, Section 3.2 and Table 4).
    """

    def __init__(self, indices: NDArray[np.int64], known_labels: NDArray[np.int64]) -> None:
        """List the images of each known label once.

        Args:
            indices: Shape ``(n, k)``, int64, of :class:`Positives`.
            known_labels: Shape ``(n,)``, int64, -1 where unknown.

        Raises:
            ValueError: If shapes differ.
        """
        n_images = len(indices)
        check_known_labels(known_labels, n_images)
        self.n_images = n_images
        self._indices = indices  # (n, k)
        self._groups = LabelGroups(known_labels)

    def sample(
        self, anchors: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw a positive of each anchor.

        Args:
            anchors: Shape ``(b,)``, int64, from 0 to n - 1.
            generator: Source of the draws, one uniform number per anchor.

        Returns:
            Shape ``(b,)``, int64.

        Raises:
            ValueError: If an anchor is out of range.
        """
        n_images, n_neighbors = self._indices.shape
        out_of_range = anchors[(anchors < 0) | (anchors >= n_images)]
        if out_of_range.size:
            raise ValueError(f"anchors must be from 0 to {n_images - 1}, got {out_of_range[0]}")
        uniform = generator.random(len(anchors))  # (b,)
        columns = (uniform * n_neighbors).astype(np.int64)  # (b,)
        drawn: NDArray[np.int64] = self._indices[anchors, columns]  # (b,)
        is_labeled = self._groups.is_labeled[anchors]  # (b,)
        drawn[is_labeled] = self._groups.draw_same(anchors[is_labeled], uniform[is_labeled])
        return drawn


class NegativeSampler(Protocol):
    """Draws one negative per anchor."""

    def sample(
        self, anchors: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw a negative ``(b,)`` of each of the anchors ``(b,)``, uniformly."""


class StoredNegatives:
    """Draws from negatives that were drawn once and stored."""

    def __init__(self, indices: NDArray[np.int64]) -> None:
        """Take the negatives ``(n, m)``, int64, of :func:`index_negatives`."""
        self._indices = indices

    def sample(
        self, anchors: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw a negative ``(b,)`` of each of the anchors ``(b,)``, uniformly."""
        columns = generator.integers(self._indices.shape[1], size=len(anchors))  # (b,)
        drawn: NDArray[np.int64] = self._indices[anchors, columns]  # (b,)
        return drawn


class FreshNegatives:
    """Draws a new negative from a pool each time.

    Args:
        pool: What is drawn from.
    """

    def __init__(self, pool: NegativePool) -> None:
        self._pool = pool

    def sample(
        self, anchors: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw a negative ``(b,)`` of each of the anchors ``(b,)``, as the pool does."""
        return self._pool.draw(anchors, 1, generator)[:, 0]  # (b,)


class Pairs:
    """Anchors with a positive each, and with a negative each unless these are in the batch.

    Args:
        positives: Draws positives (cleaned neighbors, or labeled images of the same class).
        negatives: Draws negatives, from a stored set or from all far images; or tells which images
            of a batch are far from each other.
    """

    def __init__(self, positives: PositiveSampler, negatives: NegativeSampler | FarPairs):
        self.positives, self.negatives = positives, negatives

    def draw_epoch(
        self, batch_size: int, generator: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Batches of rows ``[anchors, positives, negatives]``, shape ``(3, b)`` each.

        Every image is an anchor once, in random order; a last batch that is not full is dropped,
        because the entropy of a small batch is far from that of the data set. There is no row of
        negatives where they are in the batch: shape ``(2, b)``.
        """
        n = self.positives.n_images
        batch_size = min(batch_size, n)
        anchors = generator.permutation(n)[: n - n % batch_size]
        drawn = [anchors, self.positives.sample(anchors, generator)]
        if not isinstance(self.negatives, FarPairs):
            drawn.append(self.negatives.sample(anchors, generator))
        return np.split(np.stack(drawn), len(anchors) // batch_size, axis=1)

    def count_batches(self, batch_size: int) -> int:
        """Batches of an epoch."""
        n = self.positives.n_images
        return n // min(batch_size, n)

    def find_far(self, anchors: NDArray[np.int64]) -> Tensor | None:
        """Which anchors are negatives of which, ``(b, b)``; None where negatives are drawn."""
        return self.negatives.is_far(anchors) if isinstance(self.negatives, FarPairs) else None
