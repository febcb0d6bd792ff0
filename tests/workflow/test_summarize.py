"""The script that draws a report, of a small experiment whose first seed is the best one."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.experiment import image_ids, path_of, write_experiment, write_images
from unic.images.index import write_index
from unic.storage.files import write_csv, write_json
from unic.storage.prediction_tables import tabulate, write_predictions
from unic.storage.stores import write_labels

SCRIPT = Path(__file__).parents[2] / "workflow/scripts/report/summarize.py"
COLUMNS = "loss", "loss_pos", "loss_neg", "loss_ent", "entropy", "used_clusters", "learning_rate"
IDS = {"train": image_ids()}
LABELS = np.arange(len(IDS["train"])) % 2
N_WRONG = {0: 0, 1: 8, 2: 4}  # of the images of each seed


def write_all(folder: Path) -> None:
    """Write all that is summarized."""
    write_experiment(folder, labeled=False)
    write_images(folder.parents[1] / "photos", IDS["train"])
    write_index(folder / "images.parquet", IDS, name="folder", root="photos")
    is_old = {"train": np.zeros(len(LABELS), dtype=bool)}
    write_labels(
        path_of(folder, "labels"), {"train": LABELS}, is_old, IDS, class_names=["cat", "dog"]
    )
    scores = {}
    for seed, n_wrong in N_WRONG.items():
        clusters = np.where(np.arange(len(LABELS)) < n_wrong, 1 - LABELS, LABELS)
        found = {"train": (clusters, np.ones(len(LABELS), dtype=np.float32))}
        predictions = tabulate("unic", seed, IDS, found)
        (folder / f"seed{seed}").mkdir()
        write_predictions(folder / f"seed{seed}/predictions.parquet", predictions)
        history = pd.DataFrame({"epoch": [1]} | {column: [1.0] for column in COLUMNS})
        write_csv(folder / f"seed{seed}/history.csv", history)
        scores[str(seed)] = {"train": {"acc": 1 - n_wrong / len(LABELS), "used_clusters": 2.0}}
    write_json(folder / "scores.json", {"unic": scores})


def test_the_clusters_are_those_of_the_median_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "toy"
    write_all(folder)
    inputs = {name: path_of(folder, name) for name in ("labels", "known_labels", "positives")}
    inputs |= {"images": folder / "images.parquet", "scores": folder / "scores.json"}
    outputs = {"metrics": "metrics.json", "report": "report.html", "figures": "figures"}
    given = SimpleNamespace(
        input=SimpleNamespace(
            **inputs,
            get={}.get,  # no estimate of the number of clusters
            histories=[folder / f"seed{seed}/history.csv" for seed in N_WRONG],
            predictions=[folder / f"seed{seed}/predictions.parquet" for seed in N_WRONG],
        ),
        output=SimpleNamespace(**{name: folder / path for name, path in outputs.items()}),
        params=SimpleNamespace(
            data="folder",
            root="photos",
            method="finetuning",
            n_clusters=2,
            seeds=list(N_WRONG),
            stage_owners={},
        ),
        wildcards=SimpleNamespace(experiment="toy"),
        log=[str(tmp_path / "log")],
    )
    runpy.run_path(str(SCRIPT), init_globals={"snakemake": given})
    page = (folder / "report.html").read_text("utf-8")
    assert "90.0% pure" in page  # seed 2: two of the twenty images of either cluster are wrong
    assert "by seed 2, the median of 3 seeds by accuracy on the train images, 90.0%." in page
    shown = json.loads((folder / "metrics.json").read_text())["shown"]
    assert (shown["seed"], shown["by"], shown["value"]) == (2, "acc", 0.9)
