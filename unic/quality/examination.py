"""All that is said of a run without true labels: scores, duplicates, outliers, suspects."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.quality.duplicates import find_duplicates
from unic.quality.outliers import find_outliers
from unic.quality.scores import SCORES, score_clusters
from unic.quality.suspects import find_suspects


class Examination(NamedTuple):
    """Scores, and tables of images that somebody should look at."""

    quality: dict[str, Any]  # JSON, see `examine`
    tables: dict[str, pd.DataFrame]  # duplicates, outliers, suspects, featureless


def examine(
    features: NDArray[np.float32],
    indices: NDArray[np.int64],
    distances: NDArray[np.float32],
    runs: Mapping[int, pd.DataFrame],
    *,
    shown: int,
    n_clusters: int,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> Examination:
    """Examine the training images and their clusters.

    Args:
        features: Shape ``(n, d)``, float32.
        indices: Neighbors, ``(n, k)``, column 0 the image itself.
        distances: To them, ``(n, k)``.
        runs: Seed to predictions of the training images, in their order: columns ``image_id``,
            ``cluster``, ``confidence``.
        shown: The seed whose clusters are scored; the others are compared with it.
        n_clusters: K.
        labels: That the neighbors may contradict, known or true ones: ``(n,)``, -1 = unknown.
        class_names: Of these.

    Returns:
        Scores by name (``overall``; ``by_cluster``, null where a cluster is empty; ``sizes``),
        what each means (``scores``), the ``seed``, and the paths of images whose features are all
        0 (``featureless``), which the silhouette leaves out. Tables with ``path`` and ``row`` of
        images: ``duplicates`` by ``group`` with ``is_exact``, whether the image has an exact copy;
        ``outliers`` with ``score``, ``p_value`` and ``is_outlier``, farthest first; ``suspects``
        with ``label``, ``suggested`` and ``score``, worst first; ``featureless``.
    """
    featureless = np.flatnonzero(~features.any(axis=1))
    table = runs[shown]
    clusters = table["cluster"].to_numpy(np.int64)
    others = [run["cluster"].to_numpy(np.int64) for seed, run in runs.items() if seed != shown]
    quality = score_clusters(
        clusters,
        table["confidence"].to_numpy(np.float32),
        features=features,
        neighbors=indices,
        n_clusters=n_clusters,
        other_runs=others,
    )
    sizes = np.bincount(clusters, minlength=n_clusters)
    paths = table["image_id"].to_numpy()
    return Examination(
        {
            "seed": shown,
            "featureless": paths[featureless].tolist(),
            "overall": dict(quality.overall),
            "by_cluster": {name: _plain(values) for name, values in quality.by_cluster.items()},
            "sizes": sizes.tolist(),
            "scores": {
                name: {"meaning": about.meaning, "is_higher_better": about.is_higher_better}
                for name, about in SCORES.items()
            },
        },
        {
            "duplicates": _list_duplicates(paths, indices, distances),
            "outliers": _list_outliers(paths, distances),
            "suspects": _list_suspects(paths, indices, distances, labels, class_names),
            "featureless": pd.DataFrame({"path": paths[featureless], "row": featureless}),
        },
    )


def _list_duplicates(
    paths: NDArray[np.object_], indices: NDArray[np.int64], distances: NDArray[np.float32]
) -> pd.DataFrame:
    found = find_duplicates(indices, distances)
    rows = np.flatnonzero(found.groups >= 0)
    exact = np.concatenate([found.first[found.is_exact], found.second[found.is_exact]])
    table = pd.DataFrame(
        {
            "group": found.groups[rows],
            "path": paths[rows],
            "row": rows,
            "is_exact": np.isin(rows, exact),
        }
    )
    return table.sort_values(["group", "row"], ignore_index=True)


def _list_outliers(paths: NDArray[np.object_], distances: NDArray[np.float32]) -> pd.DataFrame:
    found = find_outliers(distances)
    table = pd.DataFrame(
        {
            "path": paths,
            "row": np.arange(len(paths)),
            "score": found.score.round(4),
            "p_value": found.p_value,
            "is_outlier": found.is_outlier,
        }
    )
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _list_suspects(
    paths: NDArray[np.object_],
    indices: NDArray[np.int64],
    distances: NDArray[np.float32],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> pd.DataFrame:
    columns = ["path", "row", "label", "suggested", "score"]
    if not (labels >= 0).any():
        return pd.DataFrame(columns=columns)
    found = find_suspects(labels, indices, distances)
    rows = np.flatnonzero(found.is_suspect)
    names = np.array([*class_names], dtype=object)
    table = pd.DataFrame(
        {
            "path": paths[rows],
            "row": rows,
            "label": names[found.given[rows]],
            "suggested": names[found.suggested[rows]],
            "score": found.score[rows].round(4),
        }
    )
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers as JSON has them, null where there is none."""
    return [None if np.isnan(value) else float(value) for value in values]
