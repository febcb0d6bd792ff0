"""Second-order neighborhoods: which neighbor lists are clean, and positives drawn from them."""

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

logger = logging.getLogger(__name__)


class Positives(NamedTuple):
    """The images each of ``n`` images may be pulled towards, and why.

    The rows of discarded images hold the image itself ``k`` times, so that a random entry of any
    row is a valid positive: for a discarded image it is another view of itself.
    """

    union_size: NDArray[np.int32]  # (n,), images in the second-order neighborhood
    is_clean: NDArray[np.bool_]  # (n,), whether the neighbors were kept
    indices: NDArray[np.int64]  # (n, k), neighbors where clean, else the image's own index


def clean_neighbors(
    indices: NDArray[np.int64],
    *,
    max_union_size: float,
    known_labels: NDArray[np.int64],
) -> Positives:
    """Keep the neighbors of the images whose neighbors agree on theirs (UNIC, Eq. 4).

    The second-order neighborhood of image ``i`` is the union of ``N(x_j)`` for ``x_j`` in
    ``N(x_i)``, itself included. Where it has more than ``eta`` members the neighbors of ``i``
    belong together too loosely, and are discarded.

    All rows are cleaned by one rule; that labeled anchors draw from their class instead is left
    to :class:`PositiveSampler`, and ``known_labels`` serves the log alone.

    Args:
        indices: Shape ``(n, k)``, int64, of :class:`unic.mining.Neighbors`; column 0 is the image
            itself.
        max_union_size: eta of the paper, a whole number of at least 1; or a fraction in (0, 1),
            the quantile of the union sizes to be taken as eta, for data where none is known.
        known_labels: Shape ``(n,)``, int64, -1 where unknown.

    Raises:
        ValueError: If ``max_union_size`` is neither, an index is out of range, or shapes differ.
    """
    _check_max_union_size(max_union_size)
    _check_indices(indices)
    n_images, n_neighbors = indices.shape
    _check_known_labels(known_labels, n_images)
    union_size = union_sizes(indices)  # (n,)
    if max_union_size < 1:
        max_union_size = union_size_quantile(union_size, max_union_size)
    is_clean = union_size <= max_union_size  # (n,)
    is_unlabeled = known_labels < 0  # (n,)
    logger.info(
        "kept the neighbors of %d of %d images (%d of %d unlabeled ones): "
        "unions of at most %d, smallest possible %d, median %d",
        is_clean.sum(),
        n_images,
        (is_clean & is_unlabeled).sum(),
        is_unlabeled.sum(),
        max_union_size,
        n_neighbors,
        np.median(union_size),
    )
    own = np.arange(n_images)[:, None]  # (n, 1)
    return Positives(union_size, is_clean, np.where(is_clean[:, None], indices, own))


def union_sizes(indices: NDArray[np.int64], *, block_size: int = 1024) -> NDArray[np.int32]:
    """Count the members of every second-order neighborhood: ``|union of N(x_j), x_j in N(x_i)|``.

    Args:
        indices: Shape ``(n, k)``, int64, of :class:`unic.mining.Neighbors`.
        block_size: Rows counted at a time; each takes ``k * k`` indices of memory.

    Returns:
        Shape ``(n,)``, int32, from ``k`` to ``k * k``.

    Raises:
        ValueError: If an index is out of range, or column 0 is not the image itself.
    """
    _check_indices(indices)
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    n_images = len(indices)
    narrow = indices.astype(np.int32) if n_images <= np.iinfo(np.int32).max else indices
    counts = np.empty(n_images, dtype=np.int32)
    starts = range(0, n_images, block_size)
    for start in tqdm(starts, desc="union_sizes", unit="block", disable=None):
        first_order = indices[start : start + block_size]  # (b, k)
        members = narrow[first_order].reshape(len(first_order), -1)  # (b, k * k)
        members.sort(axis=1)
        is_new = members[:, 1:] != members[:, :-1]  # (b, k * k - 1)
        counts[start : start + block_size] = 1 + is_new.sum(axis=1)
    return counts


def union_size_quantile(union_size: NDArray[np.int32], quantile: float) -> int:
    """Choose eta without labels: the least one that keeps a given share of the images.

    Args:
        union_size: Shape ``(n,)``, int32.
        quantile: Share of the images to keep at least, in (0, 1].

    Raises:
        ValueError: If the quantile is out of range, or there are no union sizes.
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile must be above 0 and at most 1, got {quantile}")
    if union_size.ndim != 1 or union_size.size == 0:
        raise ValueError(f"union_size must have shape (n,), n > 0, got {union_size.shape}")
    return int(np.quantile(union_size, quantile, method="inverted_cdf"))


class PositiveSampler:
    """Draws one positive per anchor.

    An unlabeled anchor takes a random entry of its clean neighbors, itself included; where they
    were discarded, itself. A labeled anchor takes a random image known to share its label, itself
    included (UNIC, Section 3.2 and Table 4).
    """

    def __init__(self, positives: Positives, known_labels: NDArray[np.int64]) -> None:
        """List the images of each known label once.

        Args:
            positives: Of ``n`` images.
            known_labels: Shape ``(n,)``, int64, -1 where unknown.

        Raises:
            ValueError: If shapes differ.
        """
        n_images = len(positives.indices)
        _check_known_labels(known_labels, n_images)
        self._indices = positives.indices  # (n, k)
        self._is_labeled = known_labels >= 0  # (n,)
        labeled = np.flatnonzero(self._is_labeled)  # (l,)
        labels = known_labels[labeled]  # (l,)
        order = np.argsort(labels, kind="stable")  # (l,)
        self._members = labeled[order]  # (l,), the images of each label, label after label
        # Where the list of an image's own label starts, and how long it is; 0 where unlabeled.
        self._first = np.zeros(n_images, dtype=np.int64)  # (n,)
        self._count = np.zeros(n_images, dtype=np.int64)  # (n,)
        self._first[labeled] = np.searchsorted(labels[order], labels, side="left")
        self._count[labeled] = np.searchsorted(labels[order], labels, side="right")
        self._count -= self._first

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
        is_labeled = self._is_labeled[anchors]  # (b,)
        labeled = anchors[is_labeled]  # (l,)
        offset = (uniform[is_labeled] * self._count[labeled]).astype(np.int64)  # (l,)
        drawn[is_labeled] = self._members[self._first[labeled] + offset]
        return drawn


def _check_max_union_size(max_union_size: float) -> None:
    is_quantile = 0.0 < max_union_size < 1.0
    is_size = max_union_size >= 1 and float(max_union_size).is_integer()
    if not (is_quantile or is_size):
        raise ValueError(
            "max_union_size must be a whole number of at least 1 or a quantile between 0 and 1, "
            f"got {max_union_size}"
        )


def _check_indices(indices: NDArray[np.int64]) -> None:
    if indices.ndim != 2 or indices.dtype != np.int64 or indices.size == 0:
        raise ValueError(
            "indices must be an int64 array of shape (n, k), not empty, "
            f"got {indices.dtype} of shape {indices.shape}"
        )
    n_images = len(indices)
    bad_rows = np.flatnonzero(((indices < 0) | (indices >= n_images)).any(axis=1))
    if bad_rows.size:
        row = bad_rows[0]
        raise ValueError(
            f"indices must be from 0 to {n_images - 1}, got {indices[row].tolist()} in row {row}"
        )
    not_own = np.flatnonzero(indices[:, 0] != np.arange(n_images))
    if not_own.size:
        row = not_own[0]
        raise ValueError(
            f"column 0 of indices must be the image itself, got {indices[row, 0]} in row {row}"
        )


def _check_known_labels(known_labels: NDArray[np.int64], n_images: int) -> None:
    if known_labels.shape != (n_images,) or known_labels.dtype != np.int64:
        raise ValueError(
            f"known_labels must be an int64 array of shape ({n_images},), "
            f"got {known_labels.dtype} of shape {known_labels.shape}"
        )
