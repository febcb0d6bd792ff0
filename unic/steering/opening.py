"""A finished run, opened to be marked."""

from pathlib import Path

import numpy as np
import pandas as pd

from unic.images.index import read_source
from unic.steering.board import Run
from unic.steering.marks import Marks
from unic.storage.files import read_json, read_parquet

PREDICTIONS = "predictions.parquet"
_COLUMNS = ["path", "split", "label", "name", "cluster", "confidence"]


def open_marks(folder: Path) -> Marks:
    """Open what was said of a finished run; rows are those of its training images.

    Args:
        folder: ``results/NAME``.

    Raises:
        FileNotFoundError: If the clusters of the run are not listed; says what to run.
        ValueError: If a file is damaged.
    """
    table, metrics = read_table(folder), read_json(folder / "metrics.json")
    owner = metrics["stage_owners"]["index_images"]
    index = folder.resolve().with_name(owner) / "images.parquet"
    surest = np.argsort(-table["confidence"].to_numpy(), kind="stable")
    root = read_source(index).root if index.is_file() else None
    return Marks(folder, make_run(table, metrics["n_clusters"]), surest, root=root)


def read_table(folder: Path) -> pd.DataFrame:
    """Read which training image is in which cluster, see :mod:`unic.report.cluster_lists`.

    Raises:
        FileNotFoundError: If there is no such table; says what to run.
        ValueError: If it is damaged.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} must have a list of its clusters, {path} is missing; run: "
            f"snakemake --cores 1 {path}"
        )
    table = read_parquet(path)
    missing = sorted(set(_COLUMNS) - set(table))
    if missing:
        raise ValueError(f"{path} must have the columns {_COLUMNS}, {missing} are missing")
    return table[table["split"] == "train"].reset_index(drop=True)


def make_run(table: pd.DataFrame, n_clusters: int) -> Run:
    """The run that a table of :func:`read_table` is of."""
    named = table[table["name"] != ""]
    given = table[table["label"] != ""]
    return Run(
        ids=table["path"].tolist(),
        clusters=table["cluster"].to_numpy(np.int64),
        n_clusters=n_clusters,
        names={int(c): str(name) for c, name in zip(named["cluster"], named["name"], strict=True)},
        given=dict(zip(given["path"], given["label"], strict=True)),
    )
