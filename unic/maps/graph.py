"""The graph of neighbors by which the map is drawn."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.maps import loops


class Graph(NamedTuple):
    """The images that each of ``n`` images lists as neighbors, then those that list it."""

    starts: NDArray[np.int64]  # (n + 1,), where those of an image begin
    neighbors: NDArray[np.int32]  # (2 n k,)


def list_neighbors(indices: NDArray[np.int64], *, n_neighbors: int) -> NDArray[np.int32]:
    """The images ``(n, k)`` that each image is joined to, itself not among them.

    Args:
        indices: Shape ``(n, m)``, int64, checked, nearest first, column 0 the image itself.
        n_neighbors: k at most.
    """
    return indices[:, 1 : n_neighbors + 1].astype(np.int32)


def join_both_ways(listed: NDArray[np.int32]) -> Graph:
    """Join each image to those that it lists and to those that list it, all alike.

    Two images that list each other are joined twice. Distances play no part: weights that fall
    with them give no better maps (docs/log.md).

    Args:
        listed: Shape ``(n, k)``.
    """
    return Graph(*loops.join_both_ways(listed))


def renumber(listed: NDArray[np.int32], order: NDArray[np.int64]) -> NDArray[np.int32]:
    """The same lists ``(n, k)`` when images have changed places.

    Args:
        listed: Shape ``(n, k)``.
        order: Shape ``(n,)``, the image that goes to each place.
    """
    places = np.empty(len(order), dtype=np.int32)  # (n,)
    places[order] = np.arange(len(order), dtype=np.int32)
    return places[listed[order]]


def check_indices(indices: NDArray[np.int64]) -> None:
    """Refuse lists of neighbors that are not those of mining.

    Raises:
        ValueError: If they are not int64 of shape ``(n, m)``, n and m at least 2, from 0 to n - 1,
            with the image itself in column 0.
    """
    if indices.ndim != 2 or indices.dtype != np.int64 or min(indices.shape) < 2:
        raise ValueError(
            "indices must be an int64 array of shape (n, m), n and m at least 2, "
            f"got {indices.dtype} of shape {indices.shape}"
        )
    n_images = len(indices)
    if n_images > np.iinfo(np.int32).max:
        raise ValueError(f"indices must be of at most 2^31 - 1 images, got {n_images}")
    if indices.min() < 0 or indices.max() >= n_images:
        raise ValueError(
            f"indices must be from 0 to {n_images - 1}, got {indices.min()} to {indices.max()}"
        )
    strangers = np.flatnonzero(indices[:, 0] != np.arange(n_images))
    if len(strangers):
        row = strangers[0]
        raise ValueError(
            f"column 0 of indices must be the image itself, got {indices[row, 0]} in row {row}"
        )
