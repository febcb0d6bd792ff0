"""Images for the tests of maps, with their exact neighbors."""

import numpy as np
from numpy.typing import NDArray


def rank_all(features: NDArray[np.float32], n_listed: int) -> NDArray[np.int64]:
    """The nearest images ``(n, m)`` by a full sort, each itself first."""
    points = features.astype(np.float64)
    scale = np.abs(points).max() or 1.0
    squared = np.square((points[:, None] - points) / scale).sum(axis=2)  # (n, n)
    np.fill_diagonal(squared, -1.0)
    return squared.argsort(axis=1, kind="stable")[:, :n_listed].astype(np.int64)


def blobs(n_images: int, n_blobs: int = 5, n_dims: int = 8) -> NDArray[np.float32]:
    """Features about some centers, image ``i`` about center ``i mod c``."""
    generator = np.random.default_rng(0)
    centers = 6.0 * generator.normal(size=(n_blobs, n_dims))
    noise = generator.normal(size=(n_images, n_dims))
    return (centers[np.arange(n_images) % n_blobs] + noise).astype(np.float32)
