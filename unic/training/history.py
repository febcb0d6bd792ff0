"""Histories of trainings: a row an epoch."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def read_histories(paths: Sequence[str | Path], *, seeds: Sequence[int]) -> pd.DataFrame:
    """Read the histories of several seeds into one table with a column ``seed``."""
    tables = [pd.read_csv(path).assign(seed=seed) for path, seed in zip(paths, seeds, strict=True)]
    return pd.concat(tables, ignore_index=True)
