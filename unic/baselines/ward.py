"""Ward's hierarchical clustering of the principal directions of unit-length features."""

import logging
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unic.baselines.assignment import assign_to_means
from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs
from unic.neighbors.metric import to_euclidean

logger = logging.getLogger(__name__)

N_DIRECTIONS = 64
MAX_FITTED = 20_000  # images: their distances are 1.6 GB


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Scale to unit length, keep 64 principal directions, merge by Ward's criterion down to K.

    Of more than 20,000 training images a random 20,000 are merged. These keep their clusters;
    all other images, of training too, go to the nearest class mean among the 64 directions:
    the criterion is the growth of squared distances to class means. Known labels and neighbors
    are not used.

    Args:
        inputs: Features of all splits.
        n_clusters: K.
        generator: Source of the sample, which only more than 20,000 images need.
        device: Where distances to the means are computed; the rest is done on the CPU.

    Returns:
        Clusters of all splits; confidence is 1.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`.
    """
    check_inputs(inputs, n_clusters)
    units = {split: to_euclidean(rows, "cosine") for split, rows in inputs.features.items()}
    return ward_of_sample(project(units), n_clusters=n_clusters, generator=generator, device=device)


def ward_of_sample(
    splits: Mapping[str, NDArray[np.float32]],
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Merge at most 20,000 training points ``(n, d)``; the rest goes to the nearest class mean.

    Raises:
        ValueError: If there are more clusters than images that are merged.
    """
    n_images = len(splits["train"])
    rows = np.arange(n_images)
    if n_images > MAX_FITTED:
        drawn = torch.randperm(n_images, generator=generator)[:MAX_FITTED]
        rows = np.sort(drawn.numpy())  # (m,)
    if n_clusters > len(rows):
        raise ValueError(f"n_clusters must be at most {len(rows)} for Ward, got {n_clusters}")
    logger.info(
        "merging %d of %d images into %d clusters by Ward's criterion",
        len(rows),
        n_images,
        n_clusters,
    )
    fitted = merge(splits["train"][rows], n_clusters)  # (m,)
    return assign_to_means(splits, fitted, rows, n_clusters, device=device)


def project(splits: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Coordinates ``(n, p)`` along the 64 directions in which training points vary most.

    The points are centered by the training mean; mean and covariance are of float64. There are
    fewer directions where points have fewer dims.
    """
    train = splits["train"]
    mean = train.mean(axis=0, dtype=np.float64)  # (d,)
    covariance = np.zeros((len(mean), len(mean)))  # (d, d)
    for start in range(0, len(train), MAX_FITTED):
        centered = train[start : start + MAX_FITTED] - mean  # (b, d)
        covariance += centered.T @ centered
    directions = np.linalg.eigh(covariance)[1][:, ::-1][:, :N_DIRECTIONS]  # (d, p)
    projected = {}
    for split, points in splits.items():
        projected[split] = np.empty((len(points), directions.shape[1]), np.float32)  # (n, p)
        for start in range(0, len(points), MAX_FITTED):
            rows = slice(start, start + MAX_FITTED)
            projected[split][rows] = (points[rows] - mean) @ directions
    return projected


def merge(points: NDArray[np.float32], n_clusters: int) -> NDArray[np.int64]:
    """Merge points ``(n, d)`` into exactly K clusters ``(n,)`` by Ward's criterion.

    From clusters of one point, the two are merged whose union raises the sum of squared
    distances to class means least: by ``|A| |B| / (|A| + |B|) ||mean_A - mean_B||^2``
    (Ward, 1963).

    Clusters are numbered by their first points.
    """
    n_points, n_merges = len(points), len(points) - n_clusters
    tree = linkage(points.astype(np.float64), method="ward")[:n_merges]  # (m, 4)
    # Merge i makes node n + i of two others: what the first n - K merges connect is a cluster.
    parents = np.repeat(n_points + np.arange(n_merges), 2)  # (2 m,)
    children = tree[:, :2].astype(np.int64).ravel()  # (2 m,)
    n_nodes = n_points + n_merges
    ones = np.ones(2 * n_merges, dtype=np.int8)
    graph = coo_array((ones, (parents, children)), shape=(n_nodes, n_nodes))
    components = connected_components(graph, directed=False)[1][:n_points]  # (n,)
    _, first, clusters = np.unique(components, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[clusters].astype(np.int64)
