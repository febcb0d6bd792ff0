"""What images of a figure are grouped by: true classes, or clusters where nobody knows these."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.storage.files import read_json
from unic.storage.prediction_tables import read_clusters
from unic.storage.stores import Store


class Groups(NamedTuple):
    """The class of each training image, or its cluster."""

    numbers: NDArray[np.int64]  # (n,), >= 0
    kind: str  # class or cluster


def read_groups(
    labels: Store,
    ids: Sequence[str],
    *,
    metrics: str | Path | None = None,
    predictions: Sequence[str | Path] = (),
    seeds: Sequence[int] = (),
) -> Groups:
    """Read true classes where all are known, else the clusters that the report shows.

    Args:
        labels: Store of true labels.
        ids: The training images.
        metrics: ``metrics.json``, which says what seed is shown; None where labels are known.
        predictions: Files of the predictions of each seed; likewise.
        seeds: Of the predictions.

    Raises:
        ValueError: If labels are not known, and there are no clusters.
    """
    numbers = labels.read("labels")
    if (numbers >= 0).all():
        return Groups(numbers, "class")
    if metrics is None:
        raise ValueError(f"{labels.path} must hold the label of every image, or clusters be given")
    shown = dict(zip(seeds, predictions, strict=True))[read_json(metrics)["shown"]["seed"]]
    return Groups(read_clusters(shown, ids), "cluster")
