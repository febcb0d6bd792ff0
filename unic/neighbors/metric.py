"""The distance by which images are near or far."""

import numpy as np
from numpy.typing import NDArray

_ROWS = 8192  # checked at a time
_SAFE_EXPONENT = 48  # sums of squares are far from either end of float32


def to_euclidean(features: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Turn features into ones whose Euclidean distances rank images as the metric does.

    ``euclidean`` leaves them as they are (UNIC, Eq. 2); ``cosine`` scales each to unit length,
    since ``||a/|a| - b/|b| ||^2 = 2 - 2 cos(a, b)``. A feature of zero length stays zero.

    Args:
        features: Shape ``(n, d)``, float32.
        metric: ``euclidean`` or ``cosine``.

    Raises:
        ValueError: If the metric is another.

    Example:
        >>> to_euclidean(np.array([[3, 0], [0, 5]], dtype=np.float32), "cosine").tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    if metric == "euclidean":
        return features
    if metric != "cosine":
        raise ValueError(f"metric must be euclidean or cosine, got {metric}")
    features = _within_range(features)
    norms = np.linalg.norm(features, axis=1, keepdims=True)  # (n, 1)
    return (features / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)


def _within_range(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows whose squares would leave the range of float32 by a power of two, exactly."""
    largest = np.abs(features).max(axis=1)  # (n,)
    exponents = np.frexp(largest)[1]  # (n,)
    is_extreme = (largest > 0) & (np.abs(exponents) > _SAFE_EXPONENT)
    if not is_extreme.any():
        return features
    scaled = features.copy()
    scaled[is_extreme] = np.ldexp(features[is_extreme], -exponents[is_extreme, None])
    return scaled


def check_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``features`` if they are a finite float32 matrix with at least one dim.

    Args:
        features: To be checked: shape ``(n, d)``, d >= 1.

    Raises:
        ValueError: If they are not; names the first row that is not finite.
    """
    if features.ndim != 2 or features.dtype != np.float32:
        raise ValueError(
            "features must be a float32 array of shape (n, d), "
            f"got {features.dtype} of shape {features.shape}"
        )
    if features.shape[1] == 0:
        raise ValueError(f"features must have at least 1 dim, got shape {features.shape}")
    starts = range(0, len(features), _ROWS)
    parts = [np.isfinite(features[start : start + _ROWS]).all(axis=1) for start in starts]
    bad_rows = np.flatnonzero(~np.concatenate([np.empty(0, dtype=np.bool_), *parts]))
    if bad_rows.size:
        raise ValueError(
            f"features must be finite, got {bad_rows.size} rows that are not, "
            f"the first is row {bad_rows[0]}"
        )
    return features
