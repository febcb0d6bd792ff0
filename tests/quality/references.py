"""Images in clusters, and scores of them by plain loops."""

import math
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from tests.experiment import rank_images

Ints = NDArray[np.int64]


def draw_images(n_images: int = 60, n_dims: int = 5, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.5, 20.0, size=(n_images, 1))
    return (lengths * rng.normal(size=(n_images, n_dims))).astype(np.float32)


def draw_clusters(n_clusters: int, n_images: int = 60, seed: int = 1) -> Ints:
    return np.random.default_rng(seed).integers(n_clusters, size=n_images)


def rank(features: NDArray[np.float32], n_neighbors: int = 7) -> Ints:
    return rank_images(features)[0][:, :n_neighbors]


def neighbor_shares(clusters: Ints, neighbors: Ints) -> list[float]:
    shares = []
    for image, near in enumerate(neighbors.tolist()):
        same = [clusters[other] == clusters[image] for other in near[1:]]
        shares.append(sum(same) / len(same))
    return shares


def by_cluster(values: list[float], clusters: Ints, n_clusters: int) -> list[float]:
    found = []
    for cluster in range(n_clusters):
        own = [value for value, c in zip(values, clusters.tolist(), strict=True) if c == cluster]
        found.append(sum(own) / len(own) if own else math.nan)
    return found


def chance_agreement(clusters: Ints, cluster: int) -> float:
    """Share of all other images that are in the cluster of one of its images."""
    return (sum(c == cluster for c in clusters.tolist()) - 1) / (len(clusters) - 1)


def conductances(clusters: Ints, neighbors: Ints, n_clusters: int) -> list[tuple[float, float]]:
    """Conductance and isolation of each cluster, by the whole matrix of connections."""
    n_images = len(clusters)
    weights = np.zeros((n_images, n_images))
    for image, near in enumerate(neighbors.tolist()):
        for other in near[1:]:
            weights[image, other] += 1
            weights[other, image] += 1
    total = weights.sum()
    found = []
    for cluster in range(n_clusters):
        cut = volume = 0.0
        for image in range(n_images):
            for other in range(n_images):
                if clusters[image] == cluster:
                    volume += weights[image, other]
                    if clusters[other] != cluster:
                        cut += weights[image, other]
        if volume == 0:
            found.append((math.nan, math.nan))
        elif volume == total:
            found.append((1.0, 0.0))
        else:
            expected = volume * (total - volume) / total
            found.append((cut / min(volume, total - volume), 1.0 - cut / expected))
    return found


def silhouettes(clusters: Ints, features: NDArray[np.float32]) -> list[float]:
    points = [row / math.sqrt(sum(row * row)) for row in features.astype(np.float64)]
    members: dict[int, list[NDArray[np.float64]]] = {}
    for point, cluster in zip(points, clusters.tolist(), strict=True):
        members.setdefault(cluster, []).append(point)
    means = {cluster: sum(own) / len(own) for cluster, own in members.items()}
    found = []
    for point, cluster in zip(points, clusters.tolist(), strict=True):
        distances = {c: math.dist(point, mean) for c, mean in means.items()}
        a = distances.pop(cluster)
        b = min(distances.values(), default=0.0)
        alone = len(members[cluster]) == 1
        found.append(0.0 if alone or max(a, b) == 0 else (b - a) / max(a, b))
    return found


def best_matching(one: Ints, other: Ints, n_clusters: int) -> tuple[float, tuple[int, ...]]:
    """Share of images in paired clusters, and the cluster of `one` for each of `other`."""
    best = (-1.0, tuple(range(n_clusters)))
    for matching in permutations(range(n_clusters)):
        hits = [matching[b] == a for a, b in zip(one.tolist(), other.tolist(), strict=True)]
        best = max(best, (sum(hits) / len(hits), matching), key=lambda each: each[0])
    return best


def rand_index(one: Ints, other: Ints) -> float:
    """Adjusted Rand index by all pairs of images."""
    together = one_pairs = other_pairs = pairs = 0
    for i in range(len(one)):
        for j in range(i):
            pairs += 1
            one_pairs += int(one[i] == one[j])
            other_pairs += int(other[i] == other[j])
            together += int(one[i] == one[j] and other[i] == other[j])
    expected = one_pairs * other_pairs / pairs
    most = (one_pairs + other_pairs) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
