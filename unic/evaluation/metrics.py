"""How well clusters agree with classes: ACC (also balanced), NMI, AMI, ARI; All, Old, New."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


class ClusteringScores(NamedTuple):
    """Agreement of clusters and classes; 1 is perfect, chance is 0 for ``ami`` and ``ari``."""

    acc: float
    balanced_acc: float
    nmi: float
    ami: float
    ari: float


class GcdScores(NamedTuple):
    """Accuracy over all images, those of old classes and those of new classes, in [0, 1]."""

    all: float
    old: float
    new: float


def match_clusters(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pair clusters with classes one to one so that most images agree (Hungarian method).

    The square table has ``max(clusters, classes)`` rows; a cluster paired with no real class
    counts as wrong for all its images.

    Args:
        labels: Shape ``(n,)``, true classes, ``>= 0``.
        predictions: Shape ``(n,)``, clusters, ``>= 0``.

    Returns:
        Shape ``(max(clusters, classes),)``: the class that each cluster stands for.

    Raises:
        ValueError: If the arrays differ in length, are empty, or hold a negative number.

    Example:
        >>> match_clusters(np.array([0, 0, 1, 1]), np.array([2, 2, 0, 0])).tolist()
        [1, 2, 0]
    """
    _check(labels, predictions)
    size = int(max(labels.max(), predictions.max())) + 1
    counts = cross_tabulate(labels, predictions, n_classes=size, n_clusters=size)
    classes, clusters = align_clusters(counts)  # (size,), (size,)
    matching = np.empty(size, dtype=np.int64)
    matching[clusters] = classes
    return matching


def cluster_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Share of images whose cluster is paired with their class by :func:`match_clusters`.

    Args:
        labels: Shape ``(n,)``, true classes, ``>= 0``.
        predictions: Shape ``(n,)``, clusters, ``>= 0``.

    Returns:
        In [0, 1].

    Raises:
        ValueError: If the arrays differ in length, are empty, or hold a negative number.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> cluster_accuracy(labels, np.array([1, 1, 0, 0]))  # names of clusters do not matter
        1.0
        >>> cluster_accuracy(labels, np.array([0, 2, 1, 1]))  # a class has one cluster
        0.75
    """
    return float((match_clusters(labels, predictions)[predictions] == labels).mean())


def balanced_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Mean over the classes of the share of their images that are in the cluster paired with them.

    Each class counts the same, however few its images, also where clusters and classes are paired:
    one to one, so that this mean is the largest (Hungarian method).

    Args:
        labels: Shape ``(n,)``, true classes, ``>= 0``.
        predictions: Shape ``(n,)``, clusters, ``>= 0``.

    Returns:
        In [0, 1].

    Raises:
        ValueError: If the arrays differ in length, are empty, or hold a negative number.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1])
        >>> balanced_accuracy(labels, np.array([0, 0, 1, 1, 1]))  # class 1 is found, half of 0
        0.75
    """
    _check(labels, predictions)
    counts = cross_tabulate(labels, predictions, n_clusters=int(predictions.max()) + 1)
    sizes = counts.sum(axis=1, keepdims=True)  # (k, 1)
    recalls = counts[sizes[:, 0] > 0] / sizes[sizes[:, 0] > 0]  # (used classes, c)
    rows, columns = linear_sum_assignment(recalls, maximize=True)
    return float(recalls[rows, columns].sum() / len(recalls))


def clustering_scores(
    labels: NDArray[np.int64], predictions: NDArray[np.int64]
) -> ClusteringScores:
    """Score clusters against classes (paper, Table 1; NMI with the arithmetic mean).

    Args:
        labels: Shape ``(n,)``, true classes, ``>= 0``.
        predictions: Shape ``(n,)``, clusters, ``>= 0``.

    Raises:
        ValueError: If the arrays differ in length, are empty, or hold a negative number.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> clustering_scores(labels, 1 - labels).ari  # names of clusters do not matter
        1.0
        >>> one_cluster = clustering_scores(labels, np.zeros(4, dtype=np.int64))
        >>> one_cluster.acc, round(one_cluster.ari, 6)
        (0.5, 0.0)
    """
    from sklearn import metrics  # takes a second to import, and reports need none of it

    return ClusteringScores(
        acc=cluster_accuracy(labels, predictions),
        balanced_acc=balanced_accuracy(labels, predictions),
        nmi=float(metrics.normalized_mutual_info_score(labels, predictions)),
        ami=float(metrics.adjusted_mutual_info_score(labels, predictions)),
        ari=float(metrics.adjusted_rand_score(labels, predictions)),
    )


def gcd_accuracy(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], *, is_old: NDArray[np.bool_]
) -> GcdScores:
    """Accuracy of generalized category discovery (paper, Table 2; "v2" of the literature).

    One Hungarian matching over all images; Old and New count the images of old and new classes
    under that same matching. Pass the unlabeled images only: labeled ones are never scored.

    Args:
        labels: Shape ``(n,)``, true classes, ``>= 0``.
        predictions: Shape ``(n,)``, clusters, ``>= 0``.
        is_old: Shape ``(n,)``, whether the image's true class is one of the old classes.

    Raises:
        ValueError: If the arrays differ in length, or no image is of an old or of a new class.

    Example:
        >>> labels = np.array([0, 0, 1, 1])  # class 0 is old
        >>> gcd_accuracy(labels, np.array([1, 1, 0, 1]), is_old=labels == 0)
        GcdScores(all=0.75, old=1.0, new=0.5)
    """
    if is_old.shape != labels.shape:
        raise ValueError(f"is_old must have the shape of labels {labels.shape}, got {is_old.shape}")
    if is_old.all() or not is_old.any():
        raise ValueError(
            f"unlabeled images must be of old and of new classes, got {int(is_old.sum())} old "
            f"and {int((~is_old).sum())} new"
        )
    matched = match_clusters(labels, predictions)[predictions] == labels
    return GcdScores(
        all=float(matched.mean()),
        old=float(matched[is_old].mean()),
        new=float(matched[~is_old].mean()),
    )


def _check(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> None:
    if labels.ndim != 1 or labels.shape != predictions.shape or labels.size == 0:
        raise ValueError(
            "labels and predictions must be non-empty, one-dimensional and of one length, got "
            f"{labels.shape} and {predictions.shape}"
        )
    for name, array in (("labels", labels), ("predictions", predictions)):
        if array.min() < 0:
            row = int(array.argmin())
            raise ValueError(f"{name} must be >= 0, got {int(array[row])} in row {row}")


def count_clusters(clusters: NDArray[np.int64], *, n_clusters: int) -> NDArray[np.int64]:
    """Return the number of images in each cluster, shape ``(n_clusters,)``.

    Raises:
        ValueError: If a cluster is not in ``[0, n_clusters)``.

    Example:
        >>> count_clusters(np.array([0, 2, 2]), n_clusters=4).tolist()
        [1, 0, 2, 0]
    """
    if clusters.size and not 0 <= clusters.min() <= clusters.max() < n_clusters:
        raise ValueError(
            f"clusters must be at least 0 and below n_clusters={n_clusters}, "
            f"got {clusters.min()} to {clusters.max()}"
        )
    return np.bincount(clusters, minlength=n_clusters).astype(np.int64)


def cross_tabulate(
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    *,
    n_classes: int | None = None,
    n_clusters: int,
) -> NDArray[np.int64]:
    """Count the images of each class in each cluster, shape ``(n_classes, n_clusters)``.

    Args:
        labels: Shape ``(n,)``, the class of each image, ``>= 0``.
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        n_classes: Rows, or None for as many as the labels ask for.
        n_clusters: Columns.

    Raises:
        ValueError: If lengths differ, there is no image, or a value is out of range.

    Example:
        >>> cross_tabulate(np.array([0, 0, 1]), np.array([2, 2, 0]), n_clusters=3).tolist()
        [[0, 0, 2], [1, 0, 0]]
    """
    if len(labels) != len(clusters) or len(labels) == 0:
        raise ValueError(
            f"labels and clusters must be of one length above 0, "
            f"got {len(labels)} and {len(clusters)}"
        )
    n_rows = int(labels.max()) + 1 if n_classes is None else n_classes
    if not 0 <= labels.min() <= labels.max() < n_rows:
        raise ValueError(
            f"labels must be at least 0 and below n_classes={n_rows}, "
            f"got {labels.min()} to {labels.max()}"
        )
    count_clusters(clusters, n_clusters=n_clusters)  # refuses a cluster out of range
    flat = np.bincount(labels * n_clusters + clusters, minlength=n_rows * n_clusters)
    return flat.reshape(n_rows, n_clusters).astype(np.int64)  # (n_classes, n_clusters)


def align_clusters(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order classes and clusters by the one-to-one matching that covers most images (Hungarian).

    Args:
        counts: Images per class and cluster, shape ``(n_classes, n_clusters)``.

    Returns:
        The classes, shape ``(n_classes,)``, and the clusters, shape ``(n_clusters,)``: position
        i of both is a pair; what has no partner comes last, in order of its number.

    Example:
        >>> counts = np.array([[0, 9, 1], [8, 2, 0]])  # two classes, three clusters
        >>> classes, clusters = align_clusters(counts)
        >>> counts[classes][:, clusters].tolist()
        [[9, 0, 1], [2, 8, 0]]
    """
    columns, rows = linear_sum_assignment(counts.T, maximize=True)
    by_class = np.argsort(rows)
    rows, columns = rows[by_class], columns[by_class]
    left_rows = np.setdiff1d(np.arange(counts.shape[0]), rows)
    left_columns = np.setdiff1d(np.arange(counts.shape[1]), columns)
    return np.concatenate([rows, left_rows]), np.concatenate([columns, left_columns])


def name_clusters(
    clusters: NDArray[np.int64],
    known_labels: NDArray[np.int64],
    names: Sequence[str],
    *,
    n_clusters: int,
) -> list[str]:
    """Name clusters after the classes that the labeled images in them have.

    Clusters and classes are paired one to one so that most labeled images are in the cluster of
    their class. The recipe's clusters are numbered like these classes, those of a training are not.

    Args:
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        known_labels: Shape ``(n,)``, -1 where none is known.
        names: Of the classes of known labels; empty where they have numbers alone.
        n_clusters: K.

    Returns:
        A name for each cluster, empty where it has no labeled image of a class it is paired with.

    Example:
        >>> clusters, known = np.array([2, 2, 0, 1]), np.array([0, -1, 1, -1])
        >>> name_clusters(clusters, known, ["cat", "dog"], n_clusters=3)
        ['dog', '', 'cat']
    """
    found = [""] * n_clusters
    is_labeled = known_labels >= 0
    if not is_labeled.any():
        return found
    counts = cross_tabulate(
        known_labels[is_labeled],
        clusters[is_labeled],
        n_classes=len(names) or None,
        n_clusters=n_clusters,
    )
    for label, cluster in zip(*align_clusters(counts), strict=False):
        if counts[label, cluster]:
            found[cluster] = names[label] if names else str(label)
    return found
