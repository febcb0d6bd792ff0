"""Tables of predictions: which cluster each method gave to each image."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.storage.files import read_parquet, write_parquet

COLUMNS = ["method", "seed", "split", "image_id", "cluster", "confidence"]


def tabulate(
    method: str,
    seed: int,
    ids: Mapping[str, Sequence[str]],
    clusters: Mapping[str, tuple[NDArray[np.int64], NDArray[np.float32]]],
) -> pd.DataFrame:
    """Put clusters and confidences of each split into a table of predictions.

    Args:
        method: Name of the method.
        seed: Of its run.
        ids: Image ids by split.
        clusters: Split to clusters, shape ``(n,)``, int64, and confidences in [0, 1], shape
            ``(n,)``, float32.

    Returns:
        Columns ``method``, ``seed``, ``split``, ``image_id``, ``cluster``, ``confidence``.

    Example:
        >>> clusters = {"train": (np.array([1, 0]), np.ones(2, dtype=np.float32))}
        >>> tabulate("unic", 0, {"train": ["a.jpg", "b.jpg"]}, clusters)["cluster"].tolist()
        [1, 0]
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
    write_parquet(path, predictions)


def read_clusters(path: str | Path, ids: Sequence[str]) -> NDArray[np.int64]:
    """Read the clusters of the training images from a table of one method and seed.

    Args:
        path: File of the table.
        ids: The training images.

    Returns:
        Shape ``(n,)``.

    Raises:
        ValueError: If the table is not of these images, in this order.
    """
    table = read_parquet(path, columns=["split", "image_id", "cluster"])
    rows = table[table["split"] == "train"]
    if rows["image_id"].tolist() != list(ids):
        raise ValueError(f"{path} must have clusters of the {len(ids)} training images, in order")
    return rows["cluster"].to_numpy(dtype=np.int64)
