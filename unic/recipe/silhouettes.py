"""How compact clusters are, beside the distance to the next one."""

import numpy as np
from numpy.typing import NDArray


def centroid_silhouette(
    points: NDArray[np.float32], clusters: NDArray[np.int64], n_clusters: int
) -> float:
    """Mean silhouette by distances to centroids (the simplified one; Hruschka et al., 2006).

    ``mean_i (b_i - a_i) / max(a_i, b_i)`` with the distance ``a_i`` of an image to the mean of its
    own cluster, and ``b_i`` to the nearest mean of another. It knows nothing of sizes.

    Args:
        points: Shape ``(n, r)``, of unit length.
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``; empty ones do not count.
        n_clusters: K.

    Returns:
        In ``[-1, 1]``; -1 where all images are in one cluster.
    """
    sizes = np.bincount(clusters, minlength=n_clusters)  # (c,)
    is_used = sizes > 0
    if is_used.sum() < 2:
        return -1.0
    order = np.argsort(clusters, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes[is_used])[:-1]])
    means = np.add.reduceat(points[order], starts, axis=0) / sizes[is_used, None]  # (u, r)
    means = means.astype(np.float32)
    own = (np.cumsum(is_used) - 1)[clusters]  # (n,), the row of each image's mean
    squared = np.square(means).sum(1) - 2.0 * (points @ means.T)  # (n, u)
    squared += np.square(points).sum(1, keepdims=True)
    distances = np.sqrt(np.maximum(squared, 0.0))  # (n, u)
    rows = np.arange(len(points))
    to_own = distances[rows, own]  # (n,)
    distances[rows, own] = np.inf
    to_other = distances.min(axis=1)  # (n,)
    larger = np.maximum(np.maximum(to_own, to_other), np.finfo(np.float32).tiny)
    return float(((to_other - to_own) / larger).mean(dtype=np.float64))
