"""How far partitions of the same images agree: of several runs, and learned from halves."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from unic.quality.checks import beyond_chance, count_images


class Agreement(NamedTuple):
    """How far two partitions of the same images agree, 1: they are one but for the numbering."""

    accuracy: float  # share of images in clusters that are paired, by the best pairing
    kappa: float  # the same beyond chance (Cohen's, of the paired clusters)
    ari: float  # adjusted Rand index


def compare_partitions(
    one: NDArray[np.int64], other: NDArray[np.int64], *, n_clusters: int
) -> Agreement:
    """How far two partitions of the same images agree.

    Clusters are paired one to one so that most images are in paired clusters (Hungarian method).
    Kappa compares their share with that of partitions of the same sizes by chance, given this
    pairing; as this is the best one, chance gives a little more than 0 where images are few.

    Args:
        one: Shape ``(n,)``, in ``[0, n_clusters)``.
        other: Likewise.
        n_clusters: K.

    Raises:
        ValueError: If lengths differ, or a cluster is out of range.

    Example:
        >>> compare_partitions(np.array([0, 0, 1]), np.array([1, 1, 0]), n_clusters=2)
        Agreement(accuracy=1.0, kappa=1.0, ari=1.0)
    """
    table = _tabulate(one, other, n_clusters)  # (c, c)
    rows, columns = linear_sum_assignment(table, maximize=True)
    n_images = len(one)
    accuracy = table[rows, columns].sum() / n_images
    of_one, of_other = table.sum(axis=1) / n_images, table.sum(axis=0) / n_images  # (c,) each
    by_chance = (of_one[rows] * of_other[columns]).sum()
    kappa = beyond_chance(accuracy, by_chance, empty=1.0)
    return Agreement(float(accuracy), float(kappa), _adjusted_rand_index(table))


def compare_runs(runs: Sequence[NDArray[np.int64]], *, n_clusters: int) -> Agreement:
    """Mean agreement of all pairs of two or more partitions of the same images.

    Raises:
        ValueError: If there are fewer than two, lengths differ, or a cluster is out of range.
    """
    if len(runs) < 2:
        raise ValueError(f"runs must be at least 2, got {len(runs)}")
    pairs = [compare_partitions(*pair, n_clusters=n_clusters) for pair in combinations(runs, 2)]
    return _mean(pairs)


def find_run_agreement(
    clusters: NDArray[np.int64], other_runs: Sequence[NDArray[np.int64]], *, n_clusters: int
) -> NDArray[np.float64]:
    """Share of the other runs that put each image into its cluster, once these are paired.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``: the run that is shown.
        other_runs: At least one, likewise.
        n_clusters: K.

    Returns:
        Shape ``(n,)``, in [0, 1].

    Raises:
        ValueError: If there is no other run, lengths differ, or a cluster is out of range.
    """
    if not other_runs:
        raise ValueError("other_runs must hold at least 1 run, got 0")
    total = np.zeros(len(clusters))  # (n,)
    for other in other_runs:
        table = _tabulate(other, clusters, n_clusters)  # (c, c)
        matching = linear_sum_assignment(table, maximize=True)[1]  # (c,), of the other's clusters
        total += matching[other] == clusters
    return total / len(other_runs)


def measure_stability(
    cluster: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    *,
    n_images: int,
    n_clusters: int,
    n_resamplings: int = 1,
    seed: int = 0,
) -> Agreement:
    """How far clusterings that are learned from two halves of the images agree about all of them.

    Each resampling halves the images at random, and calls the clustering twice (Lange et al.,
    2004). High agreement is no proof: a wrong partition may be stable, too.

    Args:
        cluster: Learns from the rows ``(m,)`` that it is given, ascending, and returns clusters
            ``(n,)`` of all images, in ``[0, n_clusters)``.
        n_images: n, at least 2.
        n_clusters: K.
        n_resamplings: How often, at least 1; the mean is returned.
        seed: Of the halves.

    Raises:
        ValueError: If a number is out of range, or so are the clusters that are returned.
    """
    if n_images < 2:
        raise ValueError(f"n_images must be at least 2, got {n_images}")
    if n_resamplings < 1:
        raise ValueError(f"n_resamplings must be at least 1, got {n_resamplings}")
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(n_resamplings):
        order = generator.permutation(n_images)
        halves = np.sort(order[: n_images // 2]), np.sort(order[n_images // 2 :])
        one, other = (_cluster_all(cluster, rows, n_images) for rows in halves)
        found.append(compare_partitions(one, other, n_clusters=n_clusters))
    return _mean(found)


def _tabulate(
    one: NDArray[np.int64], other: NDArray[np.int64], n_clusters: int
) -> NDArray[np.int64]:
    """Images of each two clusters, ``(c, c)``."""
    count_images(one, n_clusters)
    count_images(other, n_clusters)
    if len(one) != len(other):
        raise ValueError(f"runs must be of the same images, got {len(one)} and {len(other)}")
    pairs = one.astype(np.int64) * n_clusters + other  # (n,)
    return np.bincount(pairs, minlength=n_clusters**2).reshape(n_clusters, n_clusters)


def _adjusted_rand_index(table: NDArray[np.int64]) -> float:
    """The index (Hubert and Arabie, 1985) of a table; 1 where both partitions are trivial."""
    both, one, other = (
        float((counts * (counts - 1)).sum()) / 2.0  # pairs of images
        for counts in (table, table.sum(axis=1), table.sum(axis=0))
    )
    n_images = int(table.sum())
    expected = one * other / max(1.0, n_images * (n_images - 1) / 2.0)
    most = (one + other) / 2.0
    return 1.0 if most == expected else (both - expected) / (most - expected)


def _mean(agreements: Sequence[Agreement]) -> Agreement:
    return Agreement(*(float(value) for value in np.mean(agreements, axis=0)))


def _cluster_all(
    cluster: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    rows: NDArray[np.int64],
    n_images: int,
) -> NDArray[np.int64]:
    found = cluster(rows)
    if found.shape != (n_images,):
        raise ValueError(f"cluster must return the shape (n={n_images},), got {found.shape}")
    return found
