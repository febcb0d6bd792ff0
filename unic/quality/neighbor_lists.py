"""What the lists of this package need of the neighbors they are made from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDING = (
    1e-3  # of the typical distance: more than float32 features differ by, far below any edit
)
_TYPICAL = 0.9  # quantile of the distances: the copies of an image may be most of all images


class NeighborLists(NamedTuple):
    """The images nearest to each of ``n`` images, without the images themselves."""

    indices: NDArray[np.int64]  # (n, k)
    distances: NDArray[np.float64]  # (n, k), ascending

    @property
    def rounding(self) -> float:
        """Distance up to which two images are taken for the same."""
        return _ROUNDING * float(np.quantile(self.distances[:, -1], _TYPICAL))


def read_neighbors(indices: NDArray[np.int64], distances: NDArray[np.floating]) -> NeighborLists:
    """Check the neighbors that were mined, and leave each image out of its own list.

    Args:
        indices: Shape ``(n, k + 1)``, int64, nearest first, column 0 the image itself, as
            :func:`unic.neighbors.mining.mine_neighbors` gives them; n and k at least 1.
        distances: Shape ``(n, k + 1)``, of these images.

    Raises:
        ValueError: If they are not that; says what they are.
    """
    n_images = check_distances(distances, n_columns=2)
    if indices.shape != distances.shape or indices.dtype != np.int64:
        raise ValueError(
            f"indices must be int64 of the shape of distances, {distances.shape}, "
            f"got {indices.dtype} of shape {indices.shape}"
        )
    if indices.min() < 0 or indices.max() >= n_images:
        raise ValueError(
            f"indices must be at least 0 and below n={n_images}, "
            f"got {indices.min()} to {indices.max()}"
        )
    strangers = np.flatnonzero(indices[:, 0] != np.arange(n_images))
    if len(strangers):
        raise ValueError(
            "indices must have each image itself in column 0, "
            f"got {indices[strangers[0], 0]} in row {strangers[0]}"
        )
    return NeighborLists(indices[:, 1:], distances[:, 1:].astype(np.float64))


def check_distances(distances: NDArray[np.floating], *, n_columns: int) -> int:
    """Check a matrix of distances, each row of it ascending.

    Args:
        distances: To be checked: shape ``(n, k)``, finite, at least 0.
        n_columns: The fewest columns that will do.

    Returns:
        n, the number of rows.

    Raises:
        ValueError: If it is not that; says what it is.
    """
    if distances.ndim != 2 or not np.issubdtype(distances.dtype, np.floating):
        raise ValueError(
            f"distances must be floats of shape (n, k), got {distances.dtype} "
            f"of shape {distances.shape}"
        )
    if len(distances) == 0 or distances.shape[1] < n_columns:
        raise ValueError(
            f"distances must have at least 1 row and {n_columns} columns, "
            f"got shape {distances.shape}"
        )
    if not np.isfinite(distances).all() or distances.min() < 0:
        raise ValueError("distances must be finite and at least 0, got others")
    if (np.diff(distances, axis=1) < 0).any():
        row = int(np.flatnonzero((np.diff(distances, axis=1) < 0).any(axis=1))[0])
        raise ValueError(f"distances must ascend in each row, got others in row {row}")
    return len(distances)
