"""Columns: what is known of every image, to color and filter the map by."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.metrics import match_clusters
from unic.explorer.exhibits import Exhibit
from unic.quality.agreements import find_run_agreement

Kind = Literal["category", "number", "flag"]
_DTYPES = {"category": "<i4", "number": "<f4", "flag": "|u1"}  # as they are sent
_BLOCK = 4_000_000  # entries of neighbor lists that are compared at once


class Column(NamedTuple):
    """What can be said of every image."""

    key: str
    title: str
    kind: Kind
    read: Callable[[], NDArray[Any]]  # (n,)
    names: tuple[str, ...] = ()  # of categories, by number; a value of -1 is none

    def describe(self) -> dict[str, Any]:
        """All but the values, for JSON."""
        return {"key": self.key, "title": self.title, "kind": self.kind, "names": self.names}

    def encode(self) -> bytes:
        """The values, little-endian: int32 of categories, float32 of numbers, uint8 of flags."""
        return np.ascontiguousarray(self.read(), dtype=_DTYPES[self.kind]).tobytes()


def list_columns(exhibit: Exhibit) -> dict[str, Column]:
    """All columns that an experiment has, by key, in the order in which they are offered."""
    found = [
        *_list_predicted(exhibit),
        *_list_mined(exhibit),
        *_list_labeled(exhibit),
        *_list_examined(exhibit),
    ]
    return {column.key: column for column in found}


def measure_agreement(
    indices: NDArray[np.int32], clusters: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The share of an image's neighbors that are in its cluster.

    Args:
        indices: Neighbors, (n, k), the image itself first.
        clusters: Of the images, (n,).

    Returns:
        In 0 to 1, shape (n,); 1 where there is no neighbor.

    Example:
        >>> indices = np.array([[0, 1], [1, 0], [2, 1]], dtype=np.int32)
        >>> measure_agreement(indices, np.array([0, 0, 1])).tolist()
        [1.0, 1.0, 0.0]
    """
    n_images, k = indices.shape
    agreement = np.ones(n_images, dtype=np.float32)
    if k == 1:
        return agreement
    size = max(1, _BLOCK // k)
    for start in range(0, n_images, size):
        rows = slice(start, start + size)
        is_same = clusters[indices[rows, 1:]] == clusters[rows, None]  # (b, k - 1)
        agreement[rows] = is_same.mean(axis=1)
    return agreement


def find_errors(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images have another class than the one that their cluster is matched to, (n,)."""
    return match_clusters(labels, clusters)[clusters] != labels


def _list_predicted(exhibit: Exhibit) -> list[Column]:
    run, shown, clusters = exhibit.run, exhibit.shown, exhibit.clusters
    if run is None or shown is None:
        return []
    names = tuple(exhibit.cluster_names)
    found = [
        Column("cluster", "cluster", "category", lambda: clusters, names),
        Column("confidence", "confidence", "number", shown["confidence"].to_numpy),
        Column(
            "agreement",
            "neighbors in the same cluster",
            "number",
            lambda: measure_agreement(exhibit.indices, clusters),
        ),
    ]
    others = [
        table["cluster"].to_numpy(np.int64)
        for seed, table in exhibit.predictions.items()
        if seed != run.seed
    ]
    if others:
        found.append(
            Column(
                "seeds",
                "other seeds that agree",
                "number",
                lambda: find_run_agreement(clusters, others, n_clusters=run.n_clusters),
            )
        )
    return found


def _list_mined(exhibit: Exhibit) -> list[Column]:
    neighbors, positives = exhibit.artifacts.neighbors, exhibit.artifacts.positives
    found = [
        Column(
            "near",
            "mean distance to the neighbors",
            "number",
            lambda: neighbors.read("distances")[:, 1:].mean(axis=1, dtype=np.float32),
        ),
        Column("far", "far radius", "number", lambda: neighbors.read("far_radius")),
    ]
    if positives is not None:
        found += [
            Column("union", "union size", "number", lambda: positives.read("union_size")),
            Column("clean", "neighbors kept", "flag", lambda: positives.read("is_clean")),
            Column("mutual", "reciprocity", "number", lambda: positives.read("reciprocity")),
        ]
    return found


def _list_labeled(exhibit: Exhibit) -> list[Column]:
    found = []
    if (exhibit.known_labels >= 0).any():
        names = tuple(exhibit.known_names)
        found.append(
            Column("known", "known label", "category", lambda: exhibit.known_labels, names)
        )
    truth = exhibit.truth
    if truth is not None:
        found += [
            Column("truth", "true label", "category", lambda: truth.labels, tuple(truth.names)),
            Column(
                "error",
                "not of its cluster's class",
                "flag",
                lambda: find_errors(truth.labels, exhibit.clusters),
            ),
        ]
    return found


def _list_examined(exhibit: Exhibit) -> list[Column]:
    found = []
    for key, name, title in (
        ("duplicate", "duplicates", "near-duplicate"),
        ("outlier", "outliers", "outlier"),
        ("suspect", "suspects", "label is suspect"),
    ):
        table = exhibit.read_list(name)
        if table is not None:
            found.append(Column(key, title, "flag", partial(_flag, exhibit, table)))
    return found


def _flag(exhibit: Exhibit, table: pd.DataFrame) -> NDArray[np.uint8]:
    """Which images a list names; the list of outliers has all images."""
    chosen = table[table["is_outlier"]] if "is_outlier" in table else table
    flags = np.zeros(exhibit.n_images, dtype=np.uint8)
    flags[[exhibit.rows[path] for path in chosen["path"].astype(str) if path in exhibit.rows]] = 1
    return flags
