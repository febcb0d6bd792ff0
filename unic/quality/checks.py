"""What the scores refuse, and what several of them need."""

import numpy as np
from numpy.typing import NDArray


def count_images(clusters: NDArray[np.int64], n_clusters: int) -> NDArray[np.int64]:
    """Return the images of each cluster, ``(c,)``, if clusters ``(n,)`` are in ``[0, c)``.

    Raises:
        ValueError: If they are not, or there is no image.
    """
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    if clusters.ndim != 1 or not len(clusters) or clusters.dtype.kind != "i":
        raise ValueError(
            "clusters must be integers of shape (n,), at least one, "
            f"got {clusters.dtype} of shape {clusters.shape}"
        )
    if not 0 <= clusters.min() <= clusters.max() < n_clusters:
        raise ValueError(
            f"clusters must be at least 0 and below n_clusters={n_clusters}, "
            f"got {clusters.min()} to {clusters.max()}"
        )
    return np.bincount(clusters, minlength=n_clusters)


def find_directed(features: NDArray[np.float32], n_images: int) -> NDArray[np.bool_]:
    """Which features of ``n_images`` images have a direction, ``(n,)``: those that are not all 0.

    Raises:
        ValueError: If they are not finite floats of shape ``(n, d)`` (names the first row that is
            wrong), or none has a direction.
    """
    if features.ndim != 2 or len(features) != n_images or features.dtype.kind != "f":
        raise ValueError(
            f"features must be floats of shape (n={n_images}, d), "
            f"got {features.dtype} of shape {features.shape}"
        )
    largest = np.abs(features).max(axis=1, initial=0.0)  # (n,), nan or inf where a value is
    wrong = np.flatnonzero(~np.isfinite(largest))
    if wrong.size:
        raise ValueError(
            f"features must be finite, got {wrong.size} rows that are not, "
            f"the first is row {wrong[0]}"
        )
    if not largest.any():
        raise ValueError(f"features must not be 0 in all of the {n_images} rows, they are")
    return largest > 0


def check_confidence(confidence: NDArray[np.float32], n_images: int) -> None:
    """Refuse what is not ``n_images`` confidences in [0, 1].

    Raises:
        ValueError: If shape or values are others.
    """
    if confidence.shape != (n_images,):
        raise ValueError(f"confidence must be of shape (n={n_images},), got {confidence.shape}")
    if not (confidence.min() >= 0.0 and confidence.max() <= 1.0):  # also where one is nan
        raise ValueError(
            f"confidence must be in [0, 1], got {confidence.min()} to {confidence.max()}"
        )


def beyond_chance(
    values: NDArray[np.float64], expected: NDArray[np.float64], *, empty: float
) -> NDArray[np.float64]:
    """``(values - expected) / (1 - expected)``, and ``empty`` where chance leaves no more."""
    found = np.where(np.isnan(values), np.nan, empty)
    return np.divide(values - expected, 1.0 - expected, out=found, where=expected < 1.0)
