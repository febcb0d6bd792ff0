"""What a clustering says of itself where nobody has true labels."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from unic.neighbors.checks import check_neighbors
from unic.quality.agreements import compare_runs, find_run_agreement
from unic.quality.checks import (
    beyond_chance,
    check_confidence,
    count_images,
    find_directed,
)

_SAME = 1e-9  # points of unit length that are no farther apart differ by rounding
_BLOCK_ENTRIES = 2**23  # of a block of points: 64 MB in float64


class Score(NamedTuple):
    """How a score is to be read."""

    meaning: str
    low: float
    high: float
    is_higher_better: bool | None  # None: neither is
    is_adjusted: bool  # whether chance gives 0, whatever the number and sizes of clusters


SCORES: Mapping[str, Score] = MappingProxyType(
    {
        "size": Score("share of all images", 0.0, 1.0, None, False),
        "neighbor_agreement": Score(
            "share of an image's nearest neighbors that are in its cluster", 0.0, 1.0, True, False
        ),
        "neighbor_agreement_adjusted": Score(
            "the same beyond what clusters of these sizes have by chance", -np.inf, 1.0, True, True
        ),
        "cluster_agreement": Score(
            "mean over clusters, each counting the same, of the adjusted neighbor agreement",
            -np.inf,
            1.0,
            True,
            True,
        ),
        "conductance": Score(
            "share of a cluster's connections in the graph of neighbors that leave it",
            0.0,
            1.0,
            False,
            False,
        ),
        "isolation": Score(
            "1 - connections that leave a cluster / those expected by chance", -1.0, 1.0, True, True
        ),
        "silhouette": Score(
            "how much nearer an image is to the mean of its cluster than to the next one",
            -1.0,
            1.0,
            True,
            False,
        ),
        "confidence": Score("mean of the confidences", 0.0, 1.0, True, False),
        "run_accuracy": Score("share of images that two runs cluster alike", 0.0, 1.0, True, False),
        "run_kappa": Score(
            "the same beyond what clusters of these sizes have by chance", -1.0, 1.0, True, True
        ),
        "run_ari": Score("adjusted Rand index of two runs", -0.5, 1.0, True, True),
        "run_agreement": Score(
            "share of the other runs that put an image into the same cluster", 0.0, 1.0, True, False
        ),
        "balance": Score("entropy of the sizes / that of equal ones", 0.0, 1.0, None, False),
        "used": Score("share of the clusters that hold an image", 0.0, 1.0, None, False),
    }
)
COMBINED = ("cluster_agreement", "silhouette")  # what `combine` ranks by
COMBINED_WITH_RUNS = (*COMBINED, "run_ari")  # better, where each clustering has other runs


class Quality(NamedTuple):
    """Scores of a clustering by their names, which :data:`SCORES` explains.

    In all there are ``neighbor_agreement``, ``neighbor_agreement_adjusted``,
    ``cluster_agreement``, ``conductance``, ``isolation``, ``silhouette``, ``confidence``,
    ``balance``, ``used``, and of several runs ``run_accuracy``, ``run_kappa``, ``run_ari`` and
    ``run_agreement``. Of clusters there are
    ``size``, ``neighbor_agreement``, ``neighbor_agreement_adjusted``, ``conductance``,
    ``isolation``, ``silhouette``, ``confidence``, and of several runs ``run_agreement``.
    """

    overall: Mapping[str, float]
    by_cluster: Mapping[str, NDArray[np.float64]]  # name to (c,), nan for an empty cluster


class ClusterScore(NamedTuple):
    """A score in all, and of each cluster."""

    overall: float
    by_cluster: NDArray[np.float64]  # (c,), nan for an empty cluster


def score_clusters(
    clusters: NDArray[np.int64],
    confidence: NDArray[np.float32],
    *,
    features: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    n_clusters: int,
    other_runs: Sequence[NDArray[np.int64]] = (),
) -> Quality:
    """Score a clustering by its features, neighbors, confidences and other runs, without labels.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        confidence: Shape ``(n,)``, in [0, 1].
        features: Shape ``(n, d)``, finite, not all 0; see :func:`measure_silhouette`.
        neighbors: Shape ``(n, k)``, nearest first, column 0 the image itself.
        n_clusters: K.
        other_runs: Clusters ``(n,)`` of the same images by other seeds, each below K.

    Returns:
        Scores in all, and of each cluster.

    Raises:
        ValueError: If the inputs do not fit together, or hold values out of range.
    """
    sizes = count_images(clusters, n_clusters)  # (c,)
    check_confidence(confidence, len(clusters))
    agreement = measure_neighbor_agreement(clusters, neighbors, n_clusters=n_clusters)
    adjusted = adjust_neighbor_agreement(agreement, sizes)
    conductance, isolation = measure_conductance(clusters, neighbors, n_clusters=n_clusters)
    found = {
        "neighbor_agreement": agreement,
        "neighbor_agreement_adjusted": adjusted,
        "conductance": conductance,
        "isolation": isolation,
        "silhouette": measure_silhouette(clusters, features, n_clusters=n_clusters),
        "confidence": _average(confidence.astype(np.float64), clusters, sizes),
    }
    overall = {name: score.overall for name, score in found.items()}
    overall["cluster_agreement"] = float(np.nanmean(adjusted.by_cluster))
    by_cluster = {name: score.by_cluster for name, score in found.items()}
    if other_runs:
        runs = compare_runs([clusters, *other_runs], n_clusters=n_clusters)
        shares = find_run_agreement(clusters, other_runs, n_clusters=n_clusters)  # (n,)
        of_runs = _average(shares, clusters, sizes)
        overall |= {f"run_{name}": value for name, value in runs._asdict().items()}
        overall["run_agreement"] = of_runs.overall
        by_cluster["run_agreement"] = of_runs.by_cluster
    overall |= {"balance": measure_balance(sizes), "used": float((sizes > 0).mean())}
    shares = np.where(sizes > 0, sizes / len(clusters), np.nan)  # (c,)
    return Quality(overall, {"size": shares, **by_cluster})


def measure_neighbor_agreement(
    clusters: NDArray[np.int64], neighbors: NDArray[np.int64], *, n_clusters: int
) -> ClusterScore:
    """Mean share of an image's neighbors, itself not counted, that are in its cluster.

    In [0, 1], higher is better; but one cluster of all images has 1. See
    :func:`adjust_neighbor_agreement`.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        neighbors: Shape ``(n, k)``, column 0 the image itself.
        n_clusters: K.

    Raises:
        ValueError: If clusters or neighbors are not as described.

    Example:
        >>> neighbors = np.array([[0, 1], [1, 0], [2, 1]])
        >>> measure_neighbor_agreement(np.array([0, 0, 1]), neighbors, n_clusters=2).by_cluster
        array([1., 0.])
    """
    sizes = count_images(clusters, n_clusters)  # (c,)
    check_neighbors(neighbors, len(clusters))
    is_same = clusters[neighbors[:, 1:]] == clusters[:, None]  # (n, k - 1)
    return _average(is_same.mean(axis=1), clusters, sizes)


def adjust_neighbor_agreement(agreement: ClusterScore, sizes: NDArray[np.int64]) -> ClusterScore:
    """Set neighbor agreement in relation to that of images dealt to the clusters at random.

    ``(a - e) / (1 - e)`` with the agreement ``e`` expected of random clusters of the same sizes:
    ``(s - 1) / (n - 1)`` in a cluster of ``s`` images, and their mean over the images in all. At
    most 1, higher is better; random clusters have 0 in the mean, and so has one cluster of all,
    which says nothing.

    Args:
        agreement: From :func:`measure_neighbor_agreement`.
        sizes: Images of each cluster, ``(c,)``.
    """
    n_images = int(sizes.sum())
    expected = (sizes - 1) / max(1, n_images - 1)  # (c,)
    in_all = float((sizes * expected).sum() / n_images)
    return ClusterScore(
        float(beyond_chance(np.array(agreement.overall), np.array(in_all), empty=0.0)),
        beyond_chance(agreement.by_cluster, expected, empty=0.0),
    )


def measure_conductance(
    clusters: NDArray[np.int64], neighbors: NDArray[np.int64], *, n_clusters: int
) -> tuple[ClusterScore, ClusterScore]:
    """How many connections of the neighbor graph leave each cluster: conductance and isolation.

    Two images are connected once for each of the two that has the other among its neighbors. With
    the volume ``v`` of a cluster (ends of connections in it), ``V`` of all, and its cut, the
    connections that leave it, the conductance is ``cut / min(v, V - v)``, in [0, 1], lower is
    better; it depends on the number of clusters. Isolation is ``1 - cut / (v (V - v) / V)``, by
    the cut expected where ends are joined at random: at most 1, higher is better, 0 by chance. A
    cluster of all images has the worst conductance, 1, and isolation 0. In all, they are means by
    the size of the clusters.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        neighbors: Shape ``(n, k)``, column 0 the image itself.
        n_clusters: K.

    Raises:
        ValueError: If clusters or neighbors are not as described.
    """
    sizes = count_images(clusters, n_clusters)  # (c,)
    check_neighbors(neighbors, len(clusters))
    one = np.repeat(clusters, neighbors.shape[1] - 1)  # (n (k - 1),)
    other = clusters[neighbors[:, 1:]].ravel()  # (n (k - 1),)
    ends = np.bincount(one, minlength=n_clusters) + np.bincount(other, minlength=n_clusters)
    within = np.bincount(one[one == other], minlength=n_clusters)
    volumes, cuts = ends.astype(np.float64), (ends - 2 * within).astype(np.float64)  # (c,) each
    rest = volumes.sum() - volumes  # (c,)
    is_part = (sizes > 0) & (rest > 0)
    conductance = np.where(sizes > 0, 1.0, np.nan)
    isolation = np.where(sizes > 0, 0.0, np.nan)
    np.divide(cuts, np.minimum(volumes, rest), out=conductance, where=is_part)
    np.divide(cuts * volumes.sum(), volumes * rest, out=isolation, where=is_part)
    isolation[is_part] = 1.0 - isolation[is_part]
    return _weigh(conductance, sizes), _weigh(isolation, sizes)


def measure_silhouette(
    clusters: NDArray[np.int64], features: NDArray[np.float32], *, n_clusters: int
) -> ClusterScore:
    """Mean silhouette of features of unit length, by distances to the means of clusters.

    ``(b - a) / max(a, b)`` with the distance ``a`` of an image to the mean of its own cluster and
    ``b`` to the nearest mean of another (the simplified silhouette; Hruschka et al., 2006). In
    [-1, 1], higher is better; -1 where all images are in one cluster. An image that is a cluster
    by itself has 0, as in Rousseeuw (1987): it would have 1 for no merit. Features of length 0
    have no direction, and are left out. Not adjusted: more clusters have means that are nearer to
    the images and to each other.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        features: Shape ``(n, d)``, finite, of any length, not all of length 0.
        n_clusters: K.

    Raises:
        ValueError: If clusters or features are not as described.
    """
    sizes = count_images(clusters, n_clusters)  # (c,)
    directed = find_directed(features, len(clusters))  # (n,)
    if not directed.all():
        return measure_silhouette(clusters[directed], features[directed], n_clusters=n_clusters)
    is_used = sizes > 0
    if is_used.sum() == 1:
        return ClusterScore(-1.0, np.where(is_used, -1.0, np.nan))
    own = (np.cumsum(is_used) - 1)[clusters]  # (n,), the row of each image's mean
    silhouettes = np.zeros(len(clusters))
    means = _find_means(features, own, sizes[is_used])  # (u, d)
    squares = np.square(means).sum(axis=1)  # (u,)
    for rows in _blocks(len(features), max(means.shape)):
        points = _scale(features[rows])  # (b, d)
        to_means = squares - 2.0 * (points @ means.T)  # (b, u), but for the points' own squares
        to_means[np.arange(len(points)), own[rows]] = np.inf
        a = np.linalg.norm(points - means[own[rows]], axis=1)  # (b,), not by squares: exact
        b = np.linalg.norm(points - means[to_means.argmin(axis=1)], axis=1)  # (b,)
        larger = np.maximum(a, b)  # (b,)
        np.divide(b - a, larger, out=silhouettes[rows], where=larger > _SAME)
    silhouettes[sizes[clusters] == 1] = 0.0
    return _average(silhouettes, clusters, sizes)


def measure_balance(sizes: NDArray[np.int64]) -> float:
    """Entropy of the sizes ``(c,)`` of clusters over ``log c``, that of equal sizes.

    In [0, 1]: 1 where all are equal, 0 where one has all images. Neither is better where classes
    differ in size. One cluster alone has 1.

    Example:
        >>> measure_balance(np.array([5, 5])), measure_balance(np.array([10, 0]))
        (1.0, 0.0)
    """
    if len(sizes) == 1:
        return 1.0
    shares = sizes[sizes > 0] / sizes.sum()
    entropy = float(abs((shares * np.log(shares)).sum()))
    return min(1.0, entropy / float(np.log(len(sizes))))  # rounding may exceed 1


def combine(
    qualities: Sequence[Quality], *, names: Sequence[str] = COMBINED
) -> NDArray[np.float64]:
    """Rank clusterings of the same images by several scores at once: the mean of their ranks.

    Ranks have no unit, so that scores of different kinds can be joined; they tell the best of
    these clusterings, not how good it is, and must not be compared between sets of images. The
    default joins two that err in different ways: neighbors agree about clusters of any shape,
    but also where classes are merged; the silhouette minds merged ones, but wants clusters to be
    round. :data:`COMBINED_WITH_RUNS` adds whether seeds agree. Both were chosen with the ACC of
    four sets in view (benchmarks/label_free.py).

    Args:
        qualities: Of ``s`` clusterings of the same images.
        names: Scores in all, of which higher or lower is better.

    Returns:
        Shape ``(s,)``, in [0, 1]: 1 is best by all scores, 0 worst by all. Ties share a rank.

    Raises:
        ValueError: If there is no clustering or no name, or one lacks a score or a direction.
    """
    if not qualities or not names:
        raise ValueError(
            f"qualities and names must hold at least 1 each, got {len(qualities)} and {len(names)}"
        )
    total = np.zeros(len(qualities))
    for name in names:
        if name not in SCORES or SCORES[name].is_higher_better is None:
            raise ValueError(f"names must be of scores with a better direction, got {name}")
        if any(name not in quality.overall for quality in qualities):
            raise ValueError(f"all qualities must have the score {name}, got one without it")
        values = np.array([quality.overall[name] for quality in qualities])  # (s,)
        values = values if SCORES[name].is_higher_better else -values
        is_less = values[None, :] < values[:, None]  # (s, s)
        is_equal = values[None, :] == values[:, None]
        total += is_less.sum(axis=1) + 0.5 * (is_equal.sum(axis=1) - 1)
    return total / (len(names) * max(1, len(qualities) - 1))


def _average(
    values: NDArray[np.float64], clusters: NDArray[np.int64], sizes: NDArray[np.int64]
) -> ClusterScore:
    """Mean of values ``(n,)`` of images, in all and of each cluster."""
    sums = np.bincount(clusters, weights=values, minlength=len(sizes))  # (c,)
    by_cluster = np.full(len(sizes), np.nan)
    np.divide(sums, sizes, out=by_cluster, where=sizes > 0)
    return ClusterScore(float(values.mean()), by_cluster)


def _weigh(by_cluster: NDArray[np.float64], sizes: NDArray[np.int64]) -> ClusterScore:
    """Scores ``(c,)`` of clusters with their mean by size."""
    is_used = sizes > 0
    total = (by_cluster[is_used] * sizes[is_used]).sum()
    return ClusterScore(float(total / sizes.sum()), by_cluster)


def _find_means(
    features: NDArray[np.float32], own: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean ``(u, d)`` of the features of each cluster, scaled to unit length."""
    sums = np.zeros((len(sizes), features.shape[1]))  # (u, d)
    for rows in _blocks(*features.shape):
        points = _scale(features[rows])  # (b, d)
        ones, starts = np.ones(len(points)), np.arange(len(points) + 1)
        member = csr_array((ones, own[rows], starts), shape=(len(points), len(sizes)))
        sums += member.T @ points
    return sums / sizes[:, None]


def _blocks(n_images: int, width: int) -> list[slice]:
    """Rows of blocks that have the given number of columns."""
    n_rows = max(1, _BLOCK_ENTRIES // width)
    return [slice(start, start + n_rows) for start in range(0, n_images, n_rows)]


def _scale(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features ``(b, d)`` of unit length, in float64, where no square of a float32 overflows."""
    points = features.astype(np.float64)
    return points / np.linalg.norm(points, axis=1, keepdims=True)
