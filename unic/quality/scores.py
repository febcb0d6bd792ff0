"""What a clustering says of itself where nobody has true labels."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

_BLOCK_ENTRIES = 2**23  # of a block of points, or distances: 64 MB in float64
_SAME = float(np.finfo(np.float32).eps)  # points of unit length that are nearer are one point


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
            "the same beyond what clusters of these sizes have by chance",
            -np.inf,  # one of nearly all images, of which none has a neighbor in it
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
COMBINED = ("neighbor_agreement_adjusted", "silhouette")  # what `combine` ranks by


class Quality(NamedTuple):
    """Scores of a clustering by their names, which :data:`SCORES` explains.

    In all there are ``neighbor_agreement``, ``neighbor_agreement_adjusted``, ``conductance``,
    ``isolation``, ``silhouette``, ``confidence``, ``balance``, ``used``, and of several runs
    ``run_accuracy``, ``run_kappa``, ``run_ari`` and ``run_agreement``. Of clusters there are
    ``size``, ``neighbor_agreement``, ``neighbor_agreement_adjusted``, ``conductance``,
    ``isolation``, ``silhouette``, ``confidence``, and of several runs ``run_agreement``.
    """

    overall: Mapping[str, float]
    by_cluster: Mapping[str, NDArray[np.float64]]  # name to (c,), nan for an empty cluster


class Agreement(NamedTuple):
    """How far two partitions of the same images agree, 1: they are one but for the numbering."""

    accuracy: float  # share of images in clusters that are paired, by the best pairing
    kappa: float  # the same beyond chance (Cohen's, of the paired clusters)
    ari: float  # adjusted Rand index


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
        features: Shape ``(n, d)``, finite, of any length but 0.
        neighbors: Shape ``(n, k)``, nearest first, column 0 the image itself.
        n_clusters: K.
        other_runs: Clusters ``(n,)`` of the same images by other seeds, each below K.

    Returns:
        Scores in all, and of each cluster.

    Raises:
        ValueError: If the inputs do not fit together, or hold values out of range.
    """
    sizes = _count(clusters, n_clusters)  # (c,)
    _check_confidence(confidence, len(clusters))
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
    by_cluster = {name: score.by_cluster for name, score in found.items()}
    if other_runs:
        runs = compare_runs([clusters, *other_runs], n_clusters=n_clusters)
        alike = find_run_agreement(clusters, other_runs, n_clusters=n_clusters)  # (n,)
        of_runs = _average(alike, clusters, sizes)
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
    sizes = _count(clusters, n_clusters)  # (c,)
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
        float(_beyond_chance(np.array(agreement.overall), np.array(in_all), empty=0.0)),
        _beyond_chance(agreement.by_cluster, expected, empty=0.0),
    )


def measure_conductance(
    clusters: NDArray[np.int64], neighbors: NDArray[np.int64], *, n_clusters: int
) -> tuple[ClusterScore, ClusterScore]:
    """How many connections of the neighbor graph leave each cluster: conductance and isolation.

    Two images are connected once for each of the two that has the other among its neighbors. With
    the volume ``v`` of a cluster (ends of connections in it), ``V`` of all, and its cut
    (connections that leave it), the conductance is ``cut / min(v, V - v)``, in [0, 1], lower is
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
    sizes = _count(clusters, n_clusters)  # (c,)
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
    by itself has 0, as in Rousseeuw (1987): it would have 1 for no merit. So has one that is at
    both means, where copies of one image are in two clusters. Not adjusted: more clusters have
    means that are nearer to the images and to each other.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        features: Shape ``(n, d)``, finite, of any length but 0.
        n_clusters: K.

    Raises:
        ValueError: If clusters or features are not as described.
    """
    sizes = _count(clusters, n_clusters)  # (c,)
    check_rows(features, len(clusters))
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


def compare_partitions(
    one: NDArray[np.int64], other: NDArray[np.int64], *, n_clusters: int
) -> Agreement:
    """How far two partitions of the same images agree.

    Clusters are paired one to one so that most images are in paired clusters (Hungarian method).
    Kappa compares their share with that of partitions of the same sizes by chance, given this
    pairing; as this is the best one, chance gives a little more than 0 where images are few. Of
    several pairings that are equally good it is one, so that kappa may depend on the numbering.

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
    kappa = _beyond_chance(accuracy, by_chance, empty=1.0)
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


def combine(
    qualities: Sequence[Quality], *, names: Sequence[str] = COMBINED
) -> NDArray[np.float64]:
    """Rank clusterings of the same images by several scores at once: the mean of their ranks.

    Ranks have no unit, so that scores of different kinds can be joined; they tell the best of
    these clusterings, not how good it is, and must not be compared between sets of images.

    Args:
        qualities: Of ``s`` clusterings of the same images.
        names: Scores in all, of which one of two is better.

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
            raise ValueError(f"names must be of scores of which higher or lower is better: {name}")
        if any(name not in quality.overall for quality in qualities):
            raise ValueError(f"all qualities must have the score {name}, got one without it")
        values = np.array([quality.overall[name] for quality in qualities])  # (s,)
        values = values if SCORES[name].is_higher_better else -values
        is_less = values[None, :] < values[:, None]  # (s, s)
        is_equal = values[None, :] == values[:, None]
        total += is_less.sum(axis=1) + 0.5 * (is_equal.sum(axis=1) - 1)
    return total / (len(names) * max(1, len(qualities) - 1))


def check_neighbors(neighbors: NDArray[np.int64], n_images: int) -> None:
    """Refuse what is not the neighbors of ``n_images`` images, each first of its own list.

    Raises:
        ValueError: If shape, type or values are others.
    """
    if neighbors.ndim != 2 or len(neighbors) != n_images or neighbors.dtype.kind != "i":
        raise ValueError(
            f"neighbors must be integers of shape (n={n_images}, k), "
            f"got {neighbors.dtype} of shape {neighbors.shape}"
        )
    if neighbors.shape[1] < 2:
        raise ValueError(
            f"neighbors must hold another image beside each image, got shape {neighbors.shape}"
        )
    if neighbors.min() < 0 or neighbors.max() >= n_images:
        raise ValueError(
            f"neighbors must be at least 0 and below n={n_images}, "
            f"got {neighbors.min()} to {neighbors.max()}"
        )
    if (neighbors[:, 0] != np.arange(n_images)).any():
        raise ValueError("neighbors must have each image itself in column 0, got another there")


def check_rows(features: NDArray[np.float32], n_images: int) -> None:
    """Refuse features that are not finite rows of ``n_images`` images, none of length 0.

    Raises:
        ValueError: If shape or values are others; names the first row that is wrong.
    """
    if features.ndim != 2 or len(features) != n_images or features.dtype.kind != "f":
        raise ValueError(
            f"features must be floats of shape (n={n_images}, d), "
            f"got {features.dtype} of shape {features.shape}"
        )
    largest = np.abs(features).max(axis=1, initial=0.0)  # (n,), nan or inf where a value is
    wrong = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if wrong.size:
        raise ValueError(
            f"features must be finite and not all 0, got {wrong.size} rows that are not, "
            f"the first is row {wrong[0]}"
        )


def _count(clusters: NDArray[np.int64], n_clusters: int) -> NDArray[np.int64]:
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    if clusters.ndim != 1 or not len(clusters) or clusters.dtype.kind != "i":
        raise ValueError(
            "clusters must be integers of shape (n,), at least one, "
            f"got {clusters.dtype} of shape {clusters.shape}"
        )
    if not 0 <= clusters.min() <= clusters.max() < n_clusters:
        raise ValueError(
            f"clusters must be at least 0 and below n_clusters={n_clusters}, "
            f"got {clusters.min()} to {clusters.max()}"
        )
    return np.bincount(clusters, minlength=n_clusters)


def _check_confidence(confidence: NDArray[np.float32], n_images: int) -> None:
    if confidence.shape != (n_images,):
        raise ValueError(f"confidence must be of shape (n={n_images},), got {confidence.shape}")
    if not (confidence.min() >= 0.0 and confidence.max() <= 1.0):  # also where one is nan
        raise ValueError(
            f"confidence must be in [0, 1], got {confidence.min()} to {confidence.max()}"
        )


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


def _beyond_chance(
    values: NDArray[np.float64], expected: NDArray[np.float64], *, empty: float
) -> NDArray[np.float64]:
    """``(values - expected) / (1 - expected)``, and ``empty`` where chance leaves no more."""
    found = np.where(np.isnan(values), np.nan, empty)
    return np.divide(values - expected, 1.0 - expected, out=found, where=expected < 1.0)


def _tabulate(
    one: NDArray[np.int64], other: NDArray[np.int64], n_clusters: int
) -> NDArray[np.int64]:
    """Images of each two clusters, ``(c, c)``."""
    _count(one, n_clusters)
    _count(other, n_clusters)
    if len(one) != len(other):
        raise ValueError(f"runs must be of the same images, got {len(one)} and {len(other)}")
    pairs = one.astype(np.int64) * n_clusters + other  # (n,)
    return np.bincount(pairs, minlength=n_clusters**2).reshape(n_clusters, n_clusters)


def _adjusted_rand_index(table: NDArray[np.int64]) -> float:
    """The index (Hubert and Arabie, 1985) of two partitions' table; 1 where both are trivial."""
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
