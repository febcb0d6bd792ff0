"""Learning curves: how well the features of a model's snapshots cluster (Fig. 6)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.evaluation.metrics import cluster_accuracy
from unic.images.images import Images
from unic.images.views import View
from unic.models.trained import load_model
from unic.training.prediction import predict_by_split


def follow_snapshots(
    folder: str | Path,
    images: Mapping[str, Images],
    labels: Mapping[str, NDArray[np.int64]],
    view: View,
    *,
    n_restarts: int,
    seed: int,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    engine: str = "auto",
) -> pd.DataFrame:
    """Score the clusters of each snapshot, and those of k-means on its features (UNIC, Fig. 6).

    This shows how a training went; no training reads it.

    Args:
        folder: Of :class:`unic.training.snapshots.Snapshots`.
        images: Images by split, ``train`` among them, on which k-means is fitted.
        labels: True classes ``(n,)`` by split.
        view: Evaluation view.
        n_restarts: Seedings of k-means.
        seed: Of k-means.
        batch_size: Images a batch.
        device: Where to compute.
        n_workers: Threads that decode.
        engine: ``auto``, ``torch`` or ``openvino``, of the backbone.

    Returns:
        A row per snapshot and split: ``epoch, split, acc, kmeans_acc``.

    Raises:
        FileNotFoundError: If there is no snapshot.
    """
    paths = sorted(Path(folder).glob("epoch_*.safetensors"))
    if not paths:
        raise FileNotFoundError(
            f"{folder} must hold snapshots, there is none; set finetuning.snapshot_every to at "
            "least 1 and at most finetuning.epochs, and run the workflow again"
        )
    rows = []
    for path in paths:
        model = load_model(path)
        predictions = predict_by_split(
            model,
            images,
            view,
            batch_size=batch_size,
            device=device,
            n_workers=n_workers,
            engine=engine,
        )
        fit = fit_kmeans(
            predictions["train"].features,
            n_clusters=model.head.n_clusters,
            n_restarts=n_restarts,
            generator=torch.Generator().manual_seed(seed),
            device=device,
        )
        for split, found in predictions.items():
            rows.append(
                {
                    "epoch": int(path.stem.removeprefix("epoch_")),
                    "split": split,
                    "acc": cluster_accuracy(labels[split], found.choose()[0]),
                    "kmeans_acc": cluster_accuracy(
                        labels[split], assign_clusters(found.features, fit.centers)
                    ),
                }
            )
    return pd.DataFrame(rows)
