"""A finished experiment, opened for looks at its clusters: predictions, neighbors, labels."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.inspection.neighbors import Artifacts, open_artifacts
from unic.storage.files import read_json, read_parquet
from unic.storage.stores import MANIFEST, Store, check_images, open_store

_PREDICTIONS = {  # method of an experiment to the stage that predicts, and its file of a seed
    "finetuning": ("predict", "predictions.parquet"),
    "consensus": ("fit_consensus", "consensus.parquet"),
}


class Run(NamedTuple):
    """A finished experiment; row i of a split means the same image in all that it holds."""

    folder: Path
    artifacts: Artifacts
    metrics: dict[str, Any]  # metrics.json
    n_clusters: int
    seed: int  # that is shown
    predictions: dict[int, pd.DataFrame]  # seed to split, image_id, cluster, confidence
    truth: Store | None  # None where it is not there

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.artifacts.experiment

    @property
    def shown(self) -> pd.DataFrame:
        """Predictions of the seed that is shown."""
        return self.predictions[self.seed]


class Labels(NamedTuple):
    """True labels of a split; both None where nobody knows them."""

    labels: NDArray[np.int64] | None  # (n,)
    class_names: list[str] | None


def open_run(folder: Path) -> Run:
    """Open a finished experiment.

    Args:
        folder: ``results/NAME``.

    Raises:
        FileNotFoundError: If the experiment is not finished; says what to run.
        ValueError: If a file is damaged, or of other images.
    """
    path = folder / "metrics.json"
    if folder.is_dir() and not path.is_file():
        raise FileNotFoundError(
            f"{folder} must be a finished experiment, {path} is missing; run: "
            f"snakemake --cores 8 -- {path}"
        )
    artifacts = open_artifacts(folder)
    metrics = read_json(path)
    try:
        stage, name = _PREDICTIONS[metrics["method"]]
        owners = metrics["stage_owners"]
        n_clusters, shown = int(metrics["n_clusters"]), int(metrics["shown"]["seed"])
        folders = {key: _sibling(artifacts, owners[key]) for key in (stage, "split_labels")}
        files = {int(seed): folders[stage] / f"seed{seed}" / name for seed in metrics["seeds"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must hold what this version writes of an experiment, run the workflow "
            f"again: {error!r}"
        ) from None
    predictions = {seed: _read_predictions(file, artifacts) for seed, file in files.items()}
    truth = folders["split_labels"] / "labels.zarr" / MANIFEST
    return Run(
        folder=folder,
        artifacts=artifacts,
        metrics=metrics,
        n_clusters=n_clusters,
        seed=shown,
        predictions=predictions,
        truth=open_store(truth, kind="labels") if truth.is_file() else None,
    )


def read_split(run: Run, split: str, *, seed: int | None = None) -> pd.DataFrame:
    """The predictions of a split, a row an image: ``image_id``, ``cluster``, ``confidence``.

    Args:
        run: The experiment.
        split: Such as ``train``.
        seed: None = the one that is shown.

    Raises:
        ValueError: If there is no such split; names those that there are.
    """
    table = run.shown if seed is None else run.predictions[seed]
    rows = table[table["split"] == split].drop(columns="split").reset_index(drop=True)
    if not len(rows):
        known = ", ".join(dict.fromkeys(table["split"]))
        raise ValueError(f"split must be one of {known}, got {split}")
    return rows


def read_truth(run: Run, split: str) -> Labels:
    """True labels of the images of a split.

    Raises:
        ValueError: If the store of labels is damaged, or of other images.
    """
    if run.truth is None:
        return Labels(None, None)
    check_images(run.truth, read_split(run, split)["image_id"].tolist(), split=split)
    labels = run.truth.read("labels", split=split)
    names = run.truth.parameters("labels")["class_names"]
    return Labels(labels, names or None) if (labels >= 0).all() else Labels(None, None)


def _sibling(artifacts: Artifacts, owner: str) -> Path:
    return artifacts.images.parent.with_name(owner)


def _read_predictions(path: Path, artifacts: Artifacts) -> pd.DataFrame:
    table = read_parquet(path, columns=["split", "image_id", "cluster", "confidence"])
    if table.loc[table["split"] == "train", "image_id"].tolist() != artifacts.image_ids:
        raise ValueError(
            f"row i must mean the same image in {path} and {artifacts.images}; run the workflow "
            "again"
        )
    return table
