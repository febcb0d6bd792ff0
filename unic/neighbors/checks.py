"""What lists of neighbors must be, for those who are given some."""

import numpy as np
from numpy.typing import NDArray


def check_neighbors(neighbors: NDArray[np.int64], n_images: int) -> None:
    """Refuse what is not the neighbors of ``n_images`` images, each first of its own list.

    Args:
        neighbors: To be checked: shape ``(n, k)``, int64, column 0 the image itself, k at least 2.
        n_images: n.

    Raises:
        ValueError: If shape, dtype or values are others.
    """
    if neighbors.ndim != 2 or len(neighbors) != n_images or neighbors.dtype != np.int64:
        raise ValueError(
            f"neighbors must be an int64 array of shape (n={n_images}, k), "
            f"got {neighbors.dtype} of shape {neighbors.shape}"
        )
    if neighbors.shape[1] < 2:
        raise ValueError(
            f"neighbors must hold another image beside each image, got shape {neighbors.shape}"
        )
    if neighbors.min() < 0 or neighbors.max() >= n_images:
        raise ValueError(
            f"neighbors must be at least 0 and below n={n_images}, "
            f"got {neighbors.min()} to {neighbors.max()}"
        )
    if (neighbors[:, 0] != np.arange(n_images)).any():
        raise ValueError("neighbors must have each image itself in column 0, got another there")
