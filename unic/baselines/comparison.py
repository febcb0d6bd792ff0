"""k-means as a baseline: fitted on the training split, asked about every split."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.distances import to_euclidean
from unic.prediction import tabulate


def kmeans_predictions(
    features: Sequence[Mapping[str, NDArray[np.float32]]],
    ids: Mapping[str, Sequence[str]],
    *,
    method: str,
    seeds: Sequence[int],
    n_clusters: int,
    n_restarts: int,
    device: torch.device,
) -> pd.DataFrame:
    """Cluster features as they are and scaled to unit length, for every seed.

    Args:
        features: Split to ``(n, d)``: one entry for all seeds, or one a seed.
        ids: Image ids by split.
        method: Name of the baseline; the unit-length variant is called ``{method}_normalized``.
        seeds: Of the restarts.
        n_clusters: K.
        n_restarts: Seedings per fit, of which the lowest inertia is kept.
        device: Where distances are computed.

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
                n_restarts=n_restarts,
                generator=torch.Generator().manual_seed(seed),
                device=device,
            )
            found = {split: _assign(rows, fit.centers) for split, rows in variant.items()}
            tables.append(tabulate(name, seed, ids, found))
    return pd.concat(tables, ignore_index=True)


def _assign(
    features: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    clusters = assign_clusters(features, centers)
    return clusters, np.ones(len(clusters), dtype=np.float32)
