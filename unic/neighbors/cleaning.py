"""Second-order neighborhoods: which neighbor lists are clean, and positives drawn from them."""

import logging
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray

from unic.neighbors.exact.vectors import prefetch
from unic.storage.known_labels import check_known_labels

logger = logging.getLogger(__name__)

_AHEAD = 4  # lists asked for before they are read
_SORTED_ENTRIES = 2**25  # members held at a time where they are sorted: 128 MB, and as they move


class Positives(NamedTuple):
    """The images each of ``n`` images may be pulled towards, and why.

    The rows of discarded images hold the image itself ``k`` times, so that a random entry of any
    row is a valid positive: for a discarded image it is another view of itself.
    """

    union_size: NDArray[np.int32]  # (n,), images in the second-order neighborhood
    is_clean: NDArray[np.bool_]  # (n,), whether the neighbors were kept
    reciprocity: NDArray[np.float32]  # (n,), share of the neighbors that have it among theirs
    indices: NDArray[np.int64]  # (n, k), neighbors where clean, else the image's own index
    max_union_size: int  # eta in use: given, or chosen by quantile

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as a store of positives holds them."""
        return {name: value for name, value in self._asdict().items() if name != "max_union_size"}


def clean_neighbors(
    indices: NDArray[np.int64],
    *,
    max_union_size: int | None = None,
    quantile: float | None = None,
    known_labels: NDArray[np.int64],
    device: str | torch.device = "cpu",
) -> Positives:
    """Keep the neighbors of the images whose neighbors agree on theirs (UNIC, Eq. 4).

    The second-order neighborhood of image ``i`` is the union of ``N(x_j)`` for ``x_j`` in
    ``N(x_i)``, itself included. Where it has more than ``eta`` members the neighbors of ``i``
    belong together too loosely, and are discarded.

    All rows are cleaned by one rule. Labeled anchors draw from their class instead, which is left
    to :class:`PositiveSampler`; here ``known_labels`` is for the log only.

    Args:
        indices: Shape ``(n, k)``, int64, of :class:`unic.neighbors.mining.Neighbors`; column 0 is
            the image itself.
        max_union_size: eta of the paper, at least 1, where it is known.
        quantile: Else the share of the images to keep at least, which chooses eta without labels
            (:func:`union_size_quantile`).
        known_labels: Shape ``(n,)``, int64, -1 where unknown.
        device: Where the unions are counted, such as ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: If not exactly one of ``max_union_size`` and ``quantile`` is given, one is out
            of range, an index is out of range, or shapes differ.

    Example:
        >>> indices = np.array([[0, 1], [1, 0], [2, 1]])
        >>> positives = clean_neighbors(indices, max_union_size=2, known_labels=np.full(3, -1))
        >>> positives.is_clean.tolist()
        [True, True, False]
        >>> positives.indices.tolist()  # image 2 is its own positive
        [[0, 1], [1, 0], [2, 2]]
    """
    _check_indices(indices)
    n_images, n_neighbors = indices.shape
    check_known_labels(known_labels, n_images)
    union_size = union_sizes(indices, device=device)  # (n,)
    eta = _choose_eta(union_size, max_union_size, quantile)
    is_clean = union_size <= eta  # (n,)
    is_unlabeled = known_labels < 0  # (n,)
    logger.info(
        "kept the neighbors of %d of %d images (%d of %d unlabeled ones): "
        "unions of at most %d (%s), smallest possible %d, median %d",
        is_clean.sum(),
        n_images,
        (is_clean & is_unlabeled).sum(),
        is_unlabeled.sum(),
        eta,
        "given" if quantile is None else f"quantile {quantile}",
        n_neighbors,
        np.median(union_size),
    )
    own = np.arange(n_images)[:, None]  # (n, 1)
    kept = np.where(is_clean[:, None], indices, own)  # (n, k)
    return Positives(union_size, is_clean, reciprocity(indices), kept, eta)


def union_sizes(
    indices: NDArray[np.int64], *, device: str | torch.device = "cpu"
) -> NDArray[np.int32]:
    """Count the members ``(n,)`` of each second-order neighborhood (UNIC, Eq. 4).

    Reads ``n k^2`` indices. On a CPU each thread holds one byte per image, the number of the row
    that met the image last, so nothing is sorted; after 255 rows the bytes start over. A GPU
    gathers and sorts the members of a block of rows.

    Args:
        indices: Shape ``(n, k)``, int64, of :class:`unic.neighbors.mining.Neighbors`.
        device: Where to count, such as ``cpu`` or ``cuda:0``; the result is the same.

    Raises:
        ValueError: If an index is out of range, or column 0 is not the image itself.

    Example:
        >>> union_sizes(np.array([[0, 1], [1, 0], [2, 1]])).tolist()  # of image 2: 2, 1, 0
        [2, 2, 3]
    """
    _check_indices(indices)
    if len(indices) > np.iinfo(np.int32).max:
        raise ValueError(f"indices must be of at most 2^31 - 1 images, got {len(indices)}")
    device = torch.device(device)
    if device.type != "cpu":
        return _sort_unions(indices, device)
    # Unsigned, so that the compiled loop need not look for indices counted from the end.
    sizes: NDArray[np.int32] = _count_unions(indices.astype(np.uint32), numba.get_num_threads())
    return sizes


def reciprocity(indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Share of the neighbors of each image that have it among theirs, itself not counted.

    Args:
        indices: Shape ``(n, k)``, int64, of :class:`unic.neighbors.mining.Neighbors`.

    Returns:
        Shape ``(n,)``, float32, in [0, 1]; 1 where ``k`` is 1.

    Raises:
        ValueError: If an index is out of range, or column 0 is not the image itself.

    Example:
        >>> reciprocity(np.array([[0, 1], [1, 0], [2, 1]])).tolist()
        [1.0, 1.0, 0.0]
    """
    _check_indices(indices)
    mutual: NDArray[np.int32] = _count_mutual(indices)
    n_others = indices.shape[1] - 1
    if n_others == 0:
        return np.ones(len(indices), dtype=np.float32)
    share: NDArray[np.float32] = (mutual / n_others).astype(np.float32)
    return share


def union_size_quantile(union_size: NDArray[np.int32], quantile: float) -> int:
    """Choose eta without labels: the least one that keeps a given share of the images.

    Args:
        union_size: Shape ``(n,)``, int32.
        quantile: Share of the images to keep at least, in (0, 1].

    Raises:
        ValueError: If the quantile is out of range, or there are no union sizes.

    Example:
        >>> union_size_quantile(np.array([2, 2, 3, 9], dtype=np.int32), 0.7)  # keeps three of four
        3
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile must be above 0 and at most 1, got {quantile}")
    if union_size.ndim != 1 or union_size.size == 0:
        raise ValueError(f"union_size must have shape (n,), n > 0, got {union_size.shape}")
    return int(np.quantile(union_size, quantile, method="inverted_cdf"))


def _sort_unions(
    indices: NDArray[np.int64], device: torch.device, block_size: int | None = None
) -> NDArray[np.int32]:
    """Count unions by sorting the members of a block of rows: each that differs from the last."""
    n_images, n_neighbors = indices.shape
    lists = torch.from_numpy(indices.astype(np.int32)).to(device)  # (n, k)
    sizes = torch.empty(n_images, dtype=torch.int32, device=device)  # (n,)
    if block_size is None:
        block_size = max(1, _SORTED_ENTRIES // n_neighbors**2)
    for start in range(0, n_images, block_size):
        rows = slice(start, start + block_size)
        members = lists[lists[rows].long()].flatten(1)  # (b, k * k)
        members = members.sort(dim=1).values
        sizes[rows] = 1 + (members[:, 1:] != members[:, :-1]).sum(dim=1)
    counted: NDArray[np.int32] = sizes.cpu().numpy()
    return counted


@njit(parallel=True, cache=True)
def _count_unions(indices: NDArray[np.uint32], n_parts: int) -> NDArray[np.int32]:
    n_images, n_neighbors = indices.shape
    flat = indices.ravel()
    sizes = np.empty(n_images, dtype=np.int32)
    for part in prange(n_parts):
        seen = np.zeros(n_images, dtype=np.uint8)
        stamp = np.uint8(0)
        for row in range(part * n_images // n_parts, (part + 1) * n_images // n_parts):
            stamp = np.uint8(stamp + 1)
            if stamp == 0:
                seen[:] = 0
                stamp = np.uint8(1)
            size = 0
            for place in range(n_neighbors):
                ahead = place + _AHEAD  # runs on into the next row
                if row * n_neighbors + ahead < flat.size:
                    start = np.int64(flat[row * n_neighbors + ahead]) * n_neighbors
                    for offset in range(0, n_neighbors, 16):
                        prefetch(flat, start + offset)  # type: ignore[call-arg]
                for member in indices[indices[row, place]]:
                    size += seen[member] != stamp
                    seen[member] = stamp
            sizes[row] = size
    return sizes


@njit(parallel=True, cache=True)
def _count_mutual(indices: NDArray[np.int64]) -> NDArray[np.int32]:
    mutual = np.zeros(len(indices), dtype=np.int32)
    for row in prange(len(indices)):
        for neighbor in indices[row, 1:]:
            for member in indices[neighbor, 1:]:
                mutual[row] += member == row
    return mutual


def _choose_eta(
    union_size: NDArray[np.int32], max_union_size: int | None, quantile: float | None
) -> int:
    if max_union_size is not None and quantile is None:
        if max_union_size < 1:
            raise ValueError(f"max_union_size must be at least 1, got {max_union_size}")
        return max_union_size
    if quantile is not None and max_union_size is None:
        return union_size_quantile(union_size, quantile)
    raise ValueError(
        "exactly one of max_union_size and quantile must be given, "
        f"got {max_union_size} and {quantile}"
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
