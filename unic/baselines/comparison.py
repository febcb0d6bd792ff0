"""k-means as a baseline: fitted on the training split, applied to every split."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.neighbors.metric import to_euclidean
from unic.storage.prediction_tables import tabulate


def kmeans_predictions(
    features: Sequence[Mapping[str, NDArray[np.float32]]],
    ids: Mapping[str, Sequence[str]],
    *,
    method: str,
    seeds: Sequence[int],
    n_clusters: int,
    n_restarts: int,
    device: torch.device,
    known_labels: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Cluster features as they are and scaled to unit length, for every seed.

    Where labels are known this is the semi-supervised k-means of GCD, whose own features are of
    unit length; labeled images are put into the cluster of their label.

    Args:
        features: Split to ``(n, d)``: one entry for all seeds, or one a seed.
        ids: Image ids by split.
        method: Name of the baseline; the unit-length variant is called ``{method}_normalized``.
        seeds: One fit each, whose restarts they seed.
        n_clusters: K.
        n_restarts: Seedings per fit, of which the lowest inertia is kept.
        device: Where distances are computed.
        known_labels: Shape ``(n,)`` of the training split, -1 = unknown; None where none is used.

    Returns:
        A table of predictions; confidence is 1.
    """
    each = list(features) if len(features) > 1 else list(features) * len(seeds)
    tables = []
    for seed, splits in zip(seeds, each, strict=True):
        normalized = {split: to_euclidean(rows, "cosine") for split, rows in splits.items()}
        for name, variant in ((method, splits), (f"{method}_normalized", normalized)):
            fit = fit_kmeans(
                variant["train"],
                n_clusters=n_clusters,
                known_labels=known_labels,
                n_restarts=n_restarts,
                generator=torch.Generator().manual_seed(seed),
                device=device,
            )
            found = {split: _assign(rows, fit.centers) for split, rows in variant.items()}
            if known_labels is not None:
                clusters, confidence = found["train"]
                kept = np.where(known_labels >= 0, known_labels, clusters)
                found["train"] = kept, confidence
            tables.append(tabulate(name, seed, ids, found))
    return pd.concat(tables, ignore_index=True)


def _assign(
    features: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    clusters = assign_clusters(features, centers)
    return clusters, np.ones(len(clusters), dtype=np.float32)
