"""A cluster clustered again: the parts that somebody sees in it."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from unic.baselines.spectral import embed_units, join_neighbors
from unic.baselines.ward import MAX_FITTED, merge
from unic.neighbors.mining import mine_neighbors
from unic.recipe.heads import measure_fit, start_heads
from unic.recipe.partitions import spherical_kmeans
from unic.recipe.silhouettes import centroid_silhouette
from unic.recipe.spaces import Directions, find_directions

logger = logging.getLogger(__name__)

N_NEIGHBORS = 10
N_RUNS = 8  # of k-means, in each of three spaces
N_DIRECTIONS = 64
WHITENING = 0.25  # as of the recipe


def split_images(features: NDArray[np.float32], *, n_parts: int, seed: int) -> NDArray[np.int64]:
    """Find the parts of a cluster by the features of its images alone.

    The directions in which these differ among themselves are not those in which all images do.
    Partitions by k-means in two spaces and of the neighbor graph's eigenvectors, and by Ward, are
    judged by the first criterion of the recipe, compact clusters in which neighbors agree, and the
    best is taken as it is.

    Args:
        features: Of the images of the cluster, ``(m, d)``, float32, finite.
        n_parts: How many, 2 to m.
        seed: Of all random numbers.

    Returns:
        Part of each image, ``(m,)``, the largest part first; fewer parts than asked for only where
        images are the same.

    Raises:
        ValueError: If there are not so many images, or all of them are the same.
    """
    n_images = len(features)
    if not 2 <= n_parts <= n_images:
        raise ValueError(f"n_parts must be in 2 to the {n_images} images, got {n_parts}")
    generator = torch.Generator().manual_seed(seed)
    directions = find_directions(features, N_DIRECTIONS)
    rows = np.arange(n_images)
    if n_images > MAX_FITTED:  # as many as Ward's distances have room for
        rows = np.sort(torch.randperm(n_images, generator=generator).numpy()[:MAX_FITTED])
    found = _find_best(directions, features[rows], n_parts, generator)
    if len(rows) < n_images:
        heads = start_heads(
            directions.transform(features[rows], whitening=WHITENING), found[None], n_parts
        )
        found = (
            heads.predict(directions.transform(features, whitening=WHITENING))[:, 0]
            .argmax(1)
            .numpy()
        )
    order = np.argsort(-np.bincount(found, minlength=n_parts), kind="stable")
    return np.argsort(order)[found]


def _find_best(
    directions: Directions, features: NDArray[np.float32], n_parts: int, generator: torch.Generator
) -> NDArray[np.int64]:
    """The best of several partitions, ``(m,)``."""
    points = directions.transform(features, whitening=WHITENING)  # (m, r)
    plain = directions.transform(features, whitening=0.0)  # (m, r)
    n_neighbors = min(N_NEIGHBORS + 1, len(points))
    neighbors = mine_neighbors(points, n_neighbors=n_neighbors, far_rank=None).indices  # (m, k)
    spaces = (points, plain, embed_units(join_neighbors(neighbors), n_parts))
    partitions = np.concatenate(
        [
            *(
                spherical_kmeans(space, n_clusters=n_parts, n_runs=N_RUNS, generator=generator)
                for space in spaces
            ),
            merge(points, n_parts)[None],
        ]
    )  # (s, m)
    probs = start_heads(points, partitions, n_parts).predict(points)  # (m, s, c)
    disagreement = measure_fit(probs, neighbors[:, 1:]).disagreement  # (s,)
    silhouettes = [centroid_silhouette(plain, each, n_parts) for each in partitions]
    costs = 2.0 * disagreement - np.log(np.maximum(silhouettes, 1e-6))
    return partitions[costs.argmin()]
