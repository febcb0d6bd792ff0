"""What an examination reads from the stages before it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.storage.files import read_parquet
from unic.storage.stores import Store


def read_runs(paths: Sequence[str | Path], *, seeds: Sequence[int]) -> dict[int, pd.DataFrame]:
    """Predictions of the training images by seed."""
    tables = (read_parquet(path) for path in paths)
    return {
        seed: table[table["split"] == "train"].reset_index(drop=True)
        for seed, table in zip(seeds, tables, strict=True)
    }


def choose_labels(truth: Store, known: Store) -> tuple[NDArray[np.int64], list[str]]:
    """The labels ``(n,)`` of the training images that somebody gave, and the names of classes.

    True ones where they are there, which is an analysis of them; else the known ones.
    """
    labels = truth.read("labels")
    names = truth.parameters("labels")["class_names"]
    if (labels >= 0).all() and names:
        return labels, names
    return known.read("known_labels"), known.parameters("known_labels")["class_names"]
