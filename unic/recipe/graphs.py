"""The graph of neighbors, by which clusters are merged."""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def find_memberships(clusters: NDArray[np.int64], n_clusters: int) -> sp.csr_array:
    """Which image is in which cluster: the sums of clusters are its transpose times points.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        n_clusters: Number of clusters.

    Returns:
        Shape ``(n, c)``, float32, 1 where the image is in the cluster.
    """
    n_images = len(clusters)
    ones = np.ones(n_images, dtype=np.float32)
    return sp.csr_array((ones, (np.arange(n_images), clusters)), shape=(n_images, n_clusters))


def count_connections(
    graph: sp.csr_array, clusters: NDArray[np.int64], n_clusters: int
) -> NDArray[np.float64]:
    """Weight of the connections between the clusters, and within them twice.

    Args:
        graph: Symmetric, shape ``(n, n)``.
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        n_clusters: Number of clusters.

    Returns:
        Shape ``(c, c)``, symmetric; a row sums to the volume of its cluster.
    """
    member = find_memberships(clusters, n_clusters)  # (n, c)
    return (member.T @ graph @ member).toarray().astype(np.float64)


def merge_clusters(
    graph: sp.csr_array, clusters: NDArray[np.int64], n_clusters: int
) -> NDArray[np.int64]:
    """Merge clusters, pair by pair, until few are left.

    The pair is the one with the most connections between the two, relative to the smaller of
    their volumes. So parts of one large class come together before two classes do, and clusters
    may end with very different sizes.

    Args:
        graph: Symmetric, shape ``(n, n)``.
        clusters: Shape ``(n,)``, from 0; an empty one does not count.
        n_clusters: How many are left at the end, fewer where fewer were used.

    Returns:
        Shape ``(n,)``, in ``[0, n_clusters)``.
    """
    used, clusters = np.unique(clusters, return_inverse=True)
    n_parts = len(used)
    between = count_connections(graph, clusters, n_parts)  # (p, p)
    volumes = between.sum(axis=1)  # (p,)
    np.fill_diagonal(between, 0.0)
    joined = np.arange(n_parts)  # (p,): the part that each one went to
    is_left = np.ones(n_parts, dtype=np.bool_)
    for _ in range(n_parts - n_clusters):
        smaller = np.minimum(volumes[:, None], volumes[None, :])  # (p, p)
        strength = between / np.maximum(smaller, 1e-12)
        strength[~is_left, :] = -1.0
        strength[:, ~is_left] = -1.0
        np.fill_diagonal(strength, -1.0)
        kept, gone = sorted(map(int, np.unravel_index(strength.argmax(), strength.shape)))
        between[kept] += between[gone]
        between[:, kept] += between[:, gone]
        between[kept, kept] = 0.0
        volumes[kept] += volumes[gone]
        is_left[gone] = False
        joined[joined == gone] = kept
    return np.unique(joined, return_inverse=True)[1][clusters].astype(np.int64)
