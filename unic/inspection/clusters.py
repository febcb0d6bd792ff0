"""The clusters of a finished experiment, and the images of one, in figures."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from unic.inspection.runs import Run, read_split, read_truth
from unic.neighbors.metric import to_euclidean
from unic.quality.agreements import find_run_agreement
from unic.report import page
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import Store

N_NEAREST = 3  # other clusters that are named
_BLOCK = 1 << 16  # rows of features that are read at a time

ByImage = NDArray[np.float64]  # (n,)


class Description(NamedTuple):
    """What is known of a cluster; nan or None where there is nothing to be said."""

    cluster: int
    size: int
    share: float  # of the images of the split
    confidence: float  # mean
    least_confidence: float
    neighbor_agreement: float | None  # mean share of an image's neighbors that are in its cluster
    seed_agreement: float | None  # mean share of the other seeds with an image in this cluster
    nearest: list[int]  # at most three other clusters by the distance of the means, nearest first
    n_labeled: int  # images whose label training may know
    known_label: str | None  # that most of these have
    majority_class: str | None  # by true labels
    purity: float | None  # share of that class


def describe_clusters(run: Run, *, split: str = "train") -> list[Description]:
    """Describe every cluster of the seed that is shown, empty ones too.

    Neighbors and known labels are those of training images. Distances are between the means of
    features, in the metric in which neighbors were mined.

    Args:
        run: The experiment.
        split: Whose images.

    Raises:
        ValueError: If there is no such split, or a store is damaged.
    """
    predictions = read_split(run, split)
    labels, class_names = read_truth(run, split)
    described = page.describe_clusters(
        predictions, n_clusters=run.n_clusters, labels=labels, class_names=class_names
    )
    clusters = predictions["cluster"].to_numpy(np.int64)
    by_image = _measure_images(run, predictions, np.arange(len(clusters)), split)
    means = {name: _average(values, clusters, run) for name, values in by_image.items()}
    nearest = _find_nearest(run, clusters, split)
    known, names = _read_known(run, split), _known_names(run)
    labeled = [_find_known(known[clusters == number], names) for number in range(run.n_clusters)]
    least = predictions.groupby("cluster")["confidence"].min()
    return [
        Description(
            cluster=about.number,
            size=about.size,
            share=about.size / len(clusters),
            confidence=about.mean_confidence,
            least_confidence=float(least.get(about.number, np.nan)),
            neighbor_agreement=means.get("neighbor_agreement", {}).get(about.number),
            seed_agreement=means.get("seed_agreement", {}).get(about.number),
            nearest=nearest.get(about.number, []),
            n_labeled=labeled[about.number][0],
            known_label=labeled[about.number][1],
            majority_class=about.majority_class,
            purity=about.purity,
        )
        for about in described
    ]


def list_images(run: Run, cluster: int, *, split: str = "train") -> pd.DataFrame:
    """The images of a cluster of the seed that is shown, from most to least confident.

    Args:
        run: The experiment.
        cluster: Its number.
        split: Whose images.

    Returns:
        Columns ``row`` (of the split), ``image_id``, ``confidence``; ``neighbor_agreement`` of
        training images, the share of the neighbors that are in the cluster; ``seed_agreement`` of
        several seeds, the share of the others that have the image in this cluster; ``known_label``
        where training may know some, and ``class`` where true labels are known.

    Raises:
        ValueError: If there is no such cluster or split, or a store is damaged.
    """
    if not 0 <= cluster < run.n_clusters:
        raise ValueError(f"cluster must be from 0 to {run.n_clusters - 1}, got {cluster}")
    predictions = read_split(run, split)
    rows = np.flatnonzero(predictions["cluster"] == cluster)
    confidence = predictions["confidence"].to_numpy()
    rows = rows[np.argsort(-confidence[rows], kind="stable")]
    found = pd.DataFrame(
        {
            "row": rows,
            "image_id": predictions["image_id"].to_numpy()[rows],
            "confidence": confidence[rows].astype(float),
        }
    )
    for name, values in _measure_images(run, predictions, rows, split).items():
        found[name] = values
    names, known = _known_names(run), _read_known(run, split)
    if (known >= 0).any():
        told = [_name(i, names) if i >= 0 else None for i in known[rows].tolist()]
        found["known_label"] = pd.Series(told, dtype=object)  # None is kept
    labels, class_names = read_truth(run, split)
    if labels is not None:
        found["class"] = [_name(i, class_names or []) for i in labels[rows].tolist()]
    return found


def _measure_images(
    run: Run, predictions: pd.DataFrame, rows: NDArray[np.int64], split: str
) -> dict[str, ByImage]:
    """How far the neighbors of some images, and the other seeds, agree with their clusters."""
    clusters = predictions["cluster"].to_numpy(np.int64)
    found: dict[str, ByImage] = {}
    if split == "train":
        neighbors = run.artifacts.neighbors.read_rows("indices", rows)[:, 1:]  # (r, k - 1)
        if neighbors.shape[1]:
            is_same = clusters[neighbors] == clusters[rows, None]  # (r, k - 1)
            found["neighbor_agreement"] = is_same.mean(axis=1)
    others = [
        read_split(run, split, seed=seed)["cluster"].to_numpy(np.int64)
        for seed in run.predictions
        if seed != run.seed
    ]
    if others:
        agreement = find_run_agreement(clusters, others, n_clusters=run.n_clusters)  # (n,)
        found["seed_agreement"] = agreement[rows]
    return found


def _average(values: ByImage, clusters: NDArray[np.int64], run: Run) -> dict[int, float]:
    """Means of the values in each cluster that is not empty."""
    sizes = np.bincount(clusters, minlength=run.n_clusters)  # (c,)
    totals = np.bincount(clusters, weights=values, minlength=run.n_clusters)  # (c,)
    used = np.flatnonzero(sizes)
    return dict(zip(used.tolist(), (totals[used] / sizes[used]).tolist(), strict=True))


def _read_known(run: Run, split: str) -> NDArray[np.int64]:
    """Known labels ``(n,)``, -1 where training may not know one."""
    if run.artifacts.known_labels is None or split != "train":
        return np.full(len(read_split(run, split)), UNKNOWN)
    known: NDArray[np.int64] = run.artifacts.known_labels.read("known_labels")
    return known


def _known_names(run: Run) -> list[str]:
    """Names of the classes of known labels."""
    if run.artifacts.known_labels is None:
        return []
    return list(run.artifacts.known_labels.parameters("known_labels")["class_names"])


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if names else str(label)


def _find_known(known: NDArray[np.int64], names: Sequence[str]) -> tuple[int, str | None]:
    """How many labels are known of some images, and which most of these have."""
    counts = np.bincount(known[known >= 0])
    return int(counts.sum()), _name(int(counts.argmax()), names) if len(counts) else None


def _find_nearest(run: Run, clusters: NDArray[np.int64], split: str) -> dict[int, list[int]]:
    """The other clusters whose means are nearest to that of each; of none without features."""
    features = run.artifacts.features
    if features is None:
        return {}
    metric = run.artifacts.neighbors.parameters("neighbors")["metric"]
    used, members = np.unique(clusters, return_inverse=True)  # (u,), (n,)
    means = _average_features(features, members, split=split, metric=metric)  # (u, d)
    distances = cdist(means, means)  # (u, u)
    np.fill_diagonal(distances, np.inf)
    n_nearest = min(N_NEAREST, len(used) - 1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :n_nearest]
    return dict(zip(used.tolist(), used[order].tolist(), strict=True))


def _average_features(
    features: Store, members: NDArray[np.int64], *, split: str, metric: str
) -> NDArray[np.float64]:
    """Means ``(u, d)`` of the features of clusters, of which none is empty; in blocks of images."""
    sizes = np.bincount(members)  # (u,)
    totals: Any = 0.0
    for start in range(0, len(members), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(members)))
        block = to_euclidean(features.read_rows("features", rows, split=split), metric)  # (b, d)
        weights = 1.0 / sizes[members[rows]]  # (b,)
        places = (members[rows], np.arange(len(rows)))
        totals = totals + csr_array((weights, places), shape=(len(sizes), len(rows))) @ block
    return np.asarray(totals, dtype=np.float64)
