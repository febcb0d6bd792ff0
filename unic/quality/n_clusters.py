"""How many clusters images fall into, by their features, and by labels where some are known."""

import logging
import math
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unic.baselines.spectral import embed, join_neighbors
from unic.neighbors.metric import check_features, to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.recipe.clustering import draw_sample
from unic.recipe.graphs import count_connections
from unic.recipe.partitions import spherical_kmeans
from unic.recipe.silhouettes import centroid_silhouette
from unic.recipe.spaces import find_directions, whiten
from unic.storage.known_labels import UNKNOWN, check_known_labels

logger = logging.getLogger(__name__)

MIN_IMAGES = 4
MAX_SAMPLE = 6_000  # images that are clustered
MAX_CLUSTERS = 300  # sought where no bounds are given
MIN_MEAN_SIZE = 3  # images of a cluster, likewise
WHITENING = 0.25  # of the recipe's main space
N_NEIGHBORS = 10
N_RUNS = 3  # of each kind of k-means
STEP = 1.1  # from one number of clusters to the next
FINE = 10  # up to here the reference is measured for every number, above for every third
TOLERANCE = 0.1  # of the best score: what is within it may be the number of clusters, too
MIN_SCORE = 0.1  # what lies below is no more clustered than one Gaussian
N_CANDIDATES = 5


class Curve(NamedTuple):
    """What speaks for each number of clusters, beyond what it is for a Gaussian; 0 = nothing.

    ``labels`` is the agreement with known labels, which needs no reference; NaN without labels.
    """

    n_clusters: NDArray[np.int64]  # (g,), rising
    agreement: NDArray[np.float64]  # (g,)
    silhouette: NDArray[np.float64]  # (g,)
    modularity: NDArray[np.float64]  # (g,)
    labels: NDArray[np.float64]  # (g,)
    score: NDArray[np.float64]  # (g,), the mean of those that decide


class Estimate(NamedTuple):
    """The number of clusters, with all that speaks for another."""

    n_clusters: int
    low: int  # of the interval
    high: int  # of the interval, inclusive
    candidates: tuple[int, ...]  # the best first
    curve: Curve

    def record(self) -> dict[str, Any]:
        """JSON of it: ``n_clusters`` to be used, at least 2, and ``best``, which may be 1."""
        usable = next((number for number in self.candidates if number > 1), 2)
        curve = {
            name: [None if math.isnan(value) else value for value in values.tolist()]
            for name, values in self.curve._asdict().items()
        }
        return {
            "n_clusters": usable if self.n_clusters < 2 else self.n_clusters,
            "best": self.n_clusters,
            "low": self.low,
            "high": self.high,
            "candidates": list(self.candidates),
            "curve": curve,
        }


class Criteria(NamedTuple):
    """What partitions of some images say of each number of clusters."""

    agreement: NDArray[np.float64]  # (g,)
    silhouette: NDArray[np.float64]  # (g,)
    modularity: NDArray[np.float64]  # (g,)
    labels: NDArray[np.float64]  # (g,), NaN where none is known


def estimate_n_clusters(
    features: NDArray[np.float32],
    *,
    known_labels: NDArray[np.int64] | None = None,
    generator: torch.Generator,
    bounds: tuple[int, int] | None = None,
) -> Estimate:
    """Estimate the number of clusters from features, and from labels where some are known.

    For each number of a geometric grid images are clustered in two ways that err differently:
    by k-means of the partly whitened features, and by k-means of the leading eigenvectors of the
    graph of 10 neighbors. Two criteria speak for a number: that both ways find the same clusters
    (adjusted Rand index), and that these lie apart among the eigenvectors (silhouette). Either
    is high for few clusters on any data, so what it is for images drawn from one Gaussian of the
    same covariance is taken off (as by the gap statistic; Tibshirani et al., 2001). The number
    of the highest mean is the best; where known labels are given, the adjusted Rand index with
    them is a third criterion.

    The interval holds every number whose score is within a tenth of the best, and the best by
    each criterion and by modularity of the graph. Where the best score is below 0.1, images lie
    in one cluster as far as this can tell: the number is 1, and the interval begins there.

    Args:
        features: Shape ``(n, d)``, float32, finite, ``n >= 4``. Of more than 6,000 images some
            are drawn at random, of each labeled class 10 if there are.
        known_labels: Shape ``(n,)``, -1 = unknown; none is known without it.
        generator: Source of all random numbers.
        bounds: Smallest and largest number to try, ``2 <= low <= high < n``. By default 2, or as
            many as there are labeled classes, to 300, or a third of the images where this is less.

    Raises:
        ValueError: If the features are not a finite float32 matrix of 4 images or more, or all of
            one direction, known labels do not fit, or the bounds are out of order.
    """
    if known_labels is None:
        known_labels = np.full(len(features), UNKNOWN)
    _check(features, known_labels, bounds)
    rows = np.arange(len(features))
    if len(rows) > MAX_SAMPLE:
        rows = draw_sample(known_labels, MAX_SAMPLE, generator=generator)
    known = known_labels[rows]
    grid = make_grid(*(bounds or _choose_bounds(known)))
    directions = find_directions(features[rows])
    coordinates = directions.project(features[rows])  # (m, r)
    spread = np.sqrt(directions.variances)  # (r,)
    drawn = torch.randn(coordinates.shape, generator=generator).numpy() * spread  # (m, r)
    given = measure(
        whiten(coordinates, directions.scales(WHITENING)),
        grid,
        known_labels=known,
        generator=generator,
    )
    coarse = thin_grid(grid)
    reference = measure(
        whiten(drawn, directions.scales(WHITENING)),
        coarse,
        known_labels=np.full_like(known, UNKNOWN),
        generator=generator,
    )
    estimate = decide(grid, given, interpolate(coarse, reference, grid))
    logger.info(
        "%d clusters, from %d to %d, of %d images",
        estimate.n_clusters,
        estimate.low,
        estimate.high,
        len(rows),
    )
    return estimate


def make_grid(low: int, high: int) -> NDArray[np.int64]:
    """Numbers ``(g,)`` from ``low`` to ``high``, each about a tenth above the one before."""
    n_steps = int(np.ceil(np.log(high / low) / np.log(STEP)))
    return np.unique(np.rint(np.geomspace(low, high, n_steps + 1)).astype(np.int64))


def thin_grid(grid: NDArray[np.int64]) -> NDArray[np.int64]:
    """All numbers of a grid up to 10, of those above every third, and the last."""
    is_kept = (grid <= FINE) | (np.arange(len(grid)) % 3 == 0)
    is_kept[-1] = True
    return grid[is_kept]


def interpolate(coarse: NDArray[np.int64], criteria: Criteria, grid: NDArray[np.int64]) -> Criteria:
    """Criteria on all of a grid from those on a part of it: those of a Gaussian are smooth."""
    return Criteria(*(np.interp(np.log(grid), np.log(coarse), each) for each in criteria))


def measure(
    points: NDArray[np.float32],
    grid: NDArray[np.int64],
    *,
    known_labels: NDArray[np.int64],
    generator: torch.Generator,
) -> Criteria:
    """Cluster images into each number of clusters, in two ways, and measure what comes of it.

    Args:
        points: Shape ``(n, r)``, of unit length.
        grid: Numbers of clusters ``(g,)``, below ``n``, rising.
        known_labels: Shape ``(n,)``, -1 = unknown.
        generator: Source of the seeds of k-means.
    """
    # No more than a third of the others: where all are neighbors, a graph says nothing.
    n_neighbors = min(N_NEIGHBORS, max(1, (len(points) - 1) // 3))
    mined = mine_neighbors(points, n_neighbors=n_neighbors + 1, far_rank=None)
    graph = join_neighbors(mined.indices)
    eigenvectors = embed(graph, int(grid[-1]))  # (n, v)
    found = [
        _measure_one(points, eigenvectors, graph, int(number), known_labels, generator)
        for number in tqdm(grid, desc="clustering", unit="number", disable=None)
    ]
    return Criteria(*np.array(found).T)


def decide(grid: NDArray[np.int64], given: Criteria, reference: Criteria) -> Estimate:
    """Choose the number that most speaks for, beyond what it is for one Gaussian.

    Args:
        grid: Numbers of clusters ``(g,)``.
        given: Of the images.
        reference: Of as many points of one Gaussian.
    """
    agreement = given.agreement - reference.agreement
    silhouette = given.silhouette - reference.silhouette
    modularity = given.modularity - reference.modularity
    deciding = [agreement, silhouette]
    if not np.isnan(given.labels).any():
        deciding.append(given.labels)
    score = np.mean(deciding, axis=0)  # (g,)
    curve = Curve(grid, agreement, silhouette, modularity, given.labels, score)
    best = int(score.argmax())
    is_possible = score >= (1.0 - TOLERANCE) * score[best]
    is_possible[[int(each.argmax()) for each in (*deciding, modularity)]] = True
    low, high = (int(number) for number in grid[is_possible][[0, -1]])
    candidates = tuple(int(number) for number in grid[_find_peaks(score)][:N_CANDIDATES])
    if score[best] < MIN_SCORE:
        return Estimate(1, 1, high, (1, *candidates), curve)
    return Estimate(int(grid[best]), low, high, candidates, curve)


def measure_modularity(graph: sp.csr_array, clusters: NDArray[np.int64], n_clusters: int) -> float:
    """Share of the connections within clusters, beyond that of chance (Newman, 2006).

    Args:
        graph: Symmetric, shape ``(n, n)``.
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        n_clusters: Number of clusters.
    """
    between = count_connections(graph, clusters, n_clusters)  # (c, c)
    shares = between / between.sum()
    return float(np.trace(shares) - np.square(shares.sum(axis=1)).sum())


def _measure_one(
    points: NDArray[np.float32],
    eigenvectors: NDArray[np.float64],
    graph: sp.csr_array,
    n_clusters: int,
    known_labels: NDArray[np.int64],
    generator: torch.Generator,
) -> tuple[float, float, float, float]:
    """The criteria of one number of clusters, in the order of :class:`Criteria`."""
    from sklearn.metrics import adjusted_rand_score  # takes a second to import

    units = to_euclidean(eigenvectors[:, :n_clusters].astype(np.float32), "cosine")  # (n, c)
    by_points, by_graph = (
        spherical_kmeans(rows, n_clusters=n_clusters, n_runs=N_RUNS, generator=generator)
        for rows in (points, units)
    )  # (s, n) each
    agreements = [adjusted_rand_score(one, other) for one in by_points for other in by_graph]
    silhouettes = [centroid_silhouette(units, each, n_clusters) for each in by_graph]
    modularities = [measure_modularity(graph, each, n_clusters) for each in by_graph]
    is_known = known_labels >= 0
    with_labels = [
        adjusted_rand_score(known_labels[is_known], each[is_known])
        for each in (*by_points, *by_graph)
        if is_known.any()
    ]
    return (
        float(np.mean(agreements)),
        float(np.mean(silhouettes)),
        float(np.mean(modularities)),
        float(np.mean(with_labels)) if with_labels else np.nan,
    )


def _find_peaks(score: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where a curve ``(g,)`` is above what is beside it, the highest first."""
    padded = np.concatenate([[-np.inf], score, [-np.inf]])
    is_peak = (score > padded[:-2]) & (score >= padded[2:])
    peaks = np.flatnonzero(is_peak)
    return peaks[np.argsort(-score[peaks], kind="stable")]


def _choose_bounds(known_labels: NDArray[np.int64]) -> tuple[int, int]:
    """From as many as are labeled to 300, or to a third of the images."""
    n_labeled = len(np.unique(known_labels[known_labels >= 0]))
    low = min(max(2, n_labeled), len(known_labels) - 1)
    high = min(MAX_CLUSTERS, len(known_labels) // MIN_MEAN_SIZE)
    return low, max(low, high)


def _check(
    features: NDArray[np.float32],
    known_labels: NDArray[np.int64],
    bounds: tuple[int, int] | None,
) -> None:
    check_features(features)
    n_images = len(features)
    if n_images < MIN_IMAGES:
        raise ValueError(f"features must be of at least {MIN_IMAGES} images, got {n_images}")
    check_known_labels(known_labels, n_images)
    if bounds is not None and not 2 <= bounds[0] <= bounds[1] < n_images:
        raise ValueError(
            f"bounds must be 2 <= low <= high < n={n_images}, got {bounds[0]} and {bounds[1]}"
        )
