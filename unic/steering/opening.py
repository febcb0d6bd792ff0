"""A finished run, opened to be marked: its table, and what the stages before it have made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.images.index import read_source
from unic.steering.board import Run
from unic.steering.marks import Marks
from unic.storage.files import read_json, read_parquet
from unic.storage.stores import Store, check_images, open_store

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
    index = _find_made(folder, "index_images", "images.parquet")
    surest = np.argsort(-table["confidence"].to_numpy(), kind="stable")
    root = read_source(index).root if index.is_file() else None
    return Marks(folder, make_run(table, metrics["n_clusters"]), surest, root=root)


def read_table(folder: Path) -> pd.DataFrame:
    """Read which training image is in which cluster, see :mod:`unic.report.cluster_lists`.

    Raises:
        FileNotFoundError: If there is no such table; says what to run.
        ValueError: If it is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} must be the folder of an experiment, there is none; such a folder must have "
            "a list of its clusters"
        )
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


def read_neighbors(folder: Path, ids: Sequence[str]) -> NDArray[np.int64]:
    """Neighbors of the training images, ``(n, k)``, nearest first, column 0 the image itself.

    Args:
        folder: ``results/NAME``.
        ids: The training images.

    Raises:
        ValueError: If they are of other images, or damaged.
    """
    return _open(folder, "mine_neighbors", "neighbors", ids).read("indices")


def read_features(folder: Path, ids: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of some training images, ``(m, d)``.

    Args:
        folder: ``results/NAME``.
        ids: The training images.
        rows: Which of these, ``(m,)``.

    Raises:
        ValueError: If they are of other images, or damaged.
    """
    return _open(folder, "extract_features", "features", ids).read_rows("features", rows)


def _open(folder: Path, stage: str, kind: str, ids: Sequence[str]) -> Store:
    store = open_store(_find_made(folder, stage, f"{kind}.zarr"), kind=kind)
    check_images(store, ids)
    return store


def _find_made(folder: Path, stage: str, name: str) -> Path:
    """What a stage has made, in the folder of the run that it belongs to."""
    owner = read_json(folder / "metrics.json")["stage_owners"][stage]
    return folder.resolve().with_name(owner) / name


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
