"""Hierarchical semi-supervised k-means, after SelEx (Rastegar et al., ECCV 2024).

Departs from it: SelEx trains a backbone with the levels as pseudo-labels, and bounds the sizes of
clusters. Here features stay as they are, sizes are free, and what the levels say of an image is
added up.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from unic.baselines.assignment import find_nearest
from unic.baselines.checks import check_inputs
from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.baselines.methods import Found, MethodInputs
from unic.neighbors.metric import to_euclidean

N_RESTARTS = 10


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Cluster images, then their centers into half as many, and so on; all levels have a say.

    The finest level is semi-supervised k-means of features of unit length. Each further one is
    k-means of the centers below it, half as many, down to two. An image belongs to the finest
    cluster of the highest ``sum_l 2^(-l) <x, u_l>``, with the unit center ``u_l`` that the
    cluster has at level ``l``; labeled images keep the cluster of their label.

    Args:
        inputs: Features of all splits, known labels.
        n_clusters: K.
        generator: Source of the seeds.
        device: Where distances are computed.

    Returns:
        Clusters of all splits; confidence is 1.

    Raises:
        ValueError: If the inputs do not fit together, see
            :func:`unic.baselines.checks.check_inputs`.
    """
    check_inputs(inputs, n_clusters)
    points = {
        split: to_euclidean(features, "cosine") for split, features in inputs.features.items()
    }
    centers = fit_kmeans(
        points["train"],
        n_clusters=n_clusters,
        known_labels=inputs.known_labels,
        n_restarts=N_RESTARTS,
        generator=generator,
        device=device,
    ).centers
    directions = torch.from_numpy(add_levels(centers, generator=generator)).to(device)  # (c, d)
    known = inputs.known_labels
    found: Found = {}
    for split, rows in points.items():
        nearest = torch.cat(list(find_nearest(torch.from_numpy(rows), directions, 1)))  # (n, 1)
        clusters = nearest[:, 0].cpu().numpy()  # (n,)
        if split == "train":
            clusters = np.where(known >= 0, known, clusters)
        found[split] = clusters, np.ones(len(clusters), dtype=np.float32)
    return found


def add_levels(centers: NDArray[np.float32], *, generator: torch.Generator) -> NDArray[np.float32]:
    """For each center, add up the unit centers of all levels above it: ``sum_l 2^(-l) u_l``.

    Args:
        centers: Of the finest level, ``(c, d)``, at least two.
        generator: Source of the seeds.

    Returns:
        Shape ``(c, d)``.
    """
    level = to_euclidean(centers, "cosine")  # (k, d)
    ancestors = np.arange(len(centers))  # (c,), where each center is found in the level
    total, weight = level.copy(), 1.0
    while len(level) >= 4:
        fit = fit_kmeans(
            level, n_clusters=len(level) // 2, n_restarts=N_RESTARTS, generator=generator
        )
        ancestors = assign_clusters(level, fit.centers)[ancestors]
        level, weight = to_euclidean(fit.centers, "cosine"), weight / 2.0
        total += np.float32(weight) * level[ancestors]
    return total
