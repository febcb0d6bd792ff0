"""Clusters of images by a trained head."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from unic.files import whole_file

COLUMNS = ["method", "seed", "split", "image_id", "cluster", "confidence"]


def predict_clusters(
    head: nn.Module, features: NDArray[np.float32], *, device: torch.device
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The most probable cluster of each image and its probability (Eq. 5).

    Args:
        head: From features to logits.
        features: Shape ``(n, d)``, float32.
        device: Where the head runs.

    Returns:
        Clusters ``(n,)`` int64 and probabilities ``(n,)`` float32 in (0, 1].
    """
    head = head.to(device)
    with torch.inference_mode():  # not around the move: the head may be trained afterwards
        logits = head(torch.from_numpy(features).to(device))  # (n, c)
    confidence, clusters = torch.softmax(logits, dim=1).max(dim=1)
    return clusters.cpu().numpy(), confidence.cpu().numpy()


def tabulate(
    method: str,
    seed: int,
    ids: Mapping[str, Sequence[str]],
    clusters: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> pd.DataFrame:
    """Put clusters and confidences of each split into a table of predictions.

    Returns:
        Columns ``method``, ``seed``, ``split``, ``image_id``, ``cluster``, ``confidence``.
    """
    parts = [
        pd.DataFrame(
            dict(zip(COLUMNS, (method, seed, split, list(ids[split]), *found), strict=True))
        )
        for split, found in clusters.items()
    ]
    return pd.concat(parts, ignore_index=True)


def write_predictions(path: str | Path, predictions: pd.DataFrame) -> None:
    """Write a table of predictions to Parquet, whole or not at all."""
    with whole_file(path) as temporary:
        predictions.to_parquet(temporary)
