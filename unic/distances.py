"""The distance by which images are near or far."""

import numpy as np
from numpy.typing import NDArray


def to_euclidean(features: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Turn features into ones whose Euclidean distances rank images as the metric does.

    ``euclidean`` leaves them as they are (UNIC, Eq. 2); ``cosine`` scales each to unit length,
    since ``||a/|a| - b/|b| ||^2 = 2 - 2 cos(a, b)``. A feature of zero length stays zero.

    Args:
        features: Shape ``(n, d)``, float32.
        metric: ``euclidean`` or ``cosine``.

    Raises:
        ValueError: If the metric is another.
    """
    if metric == "euclidean":
        return features
    if metric != "cosine":
        raise ValueError(f"metric must be euclidean or cosine, got {metric}")
    norms = np.linalg.norm(features, axis=1, keepdims=True)  # (n, 1)
    return (features / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32)
