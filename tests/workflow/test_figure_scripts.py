"""The scripts that draw figures of the paper, on a small experiment with true labels or without."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from snakemake.iocontainers import InputFiles, OutputFiles, Params

from tests.experiment import (
    N_IMAGES,
    N_NEIGHBORS,
    ROOT,
    image_ids,
    path_of,
    write_images,
    write_run,
)
from unic.images.index import write_index
from unic.storage.files import read_json
from unic.storage.stores import write_known_labels, write_labels

SCRIPTS = Path(__file__).parents[2] / "workflow/scripts"
IDS = {"train": image_ids()}
CLASSES = np.arange(N_IMAGES) % 4
CLUSTERS = {
    seed: {"train": np.where(np.arange(N_IMAGES) < seed, (CLASSES + 1) % 4, CLASSES).tolist()}
    for seed in (6, 9)
}
STORES = ("features", "neighbors", "positives", "labels", "known_labels")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment of training images alone, whose labels nobody knows."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "results" / "toy", CLUSTERS, shown=9, labeled=False)
    write_images(tmp_path / ROOT, IDS["train"])
    write_index(folder / "images.parquet", IDS, name="folder", root=ROOT)
    write_true(folder, np.full(N_IMAGES, -1))
    return folder


def write_true(folder: Path, labels: Any, n_old: int = 0) -> None:
    is_old = {"train": (labels >= 0) & (labels < n_old)}
    write_labels(
        path_of(folder, "labels"), {"train": labels}, is_old, IDS, class_names=["a", "b", "c", "d"]
    )
    known = np.where(is_old["train"] & (np.arange(N_IMAGES) % 8 < 4), labels, -1)
    write_known_labels(path_of(folder, "known_labels"), known, IDS["train"])


def run(script: str, folder: Path, outputs: dict[str, str], **wildcards: str) -> Path:
    inputs: dict[str, Any] = {name: str(path_of(folder, name)) for name in STORES}
    inputs |= {name: str(folder / name) for name in ("images.parquet", "metrics.json")}
    inputs = {name.partition(".")[0]: path for name, path in inputs.items()}
    inputs["predictions"] = [str(folder / f"seed{seed}/predictions.parquet") for seed in CLUSTERS]
    target = folder / "paper_figures"
    snakemake = SimpleNamespace(
        input=InputFiles(fromdict=inputs),
        output=OutputFiles(fromdict={name: str(target / path) for name, path in outputs.items()}),
        params=Params(fromdict={"seeds": list(CLUSTERS)}),
        wildcards=SimpleNamespace(experiment="toy", **wildcards),
        log=[str(folder / "log")],
        threads=1,
    )
    runpy.run_path(str(SCRIPTS / script), init_globals={"snakemake": snakemake})
    return target


def measure(folder: Path) -> Path:
    names = {"facts": "neighbors.json", "thresholds": "4.csv", "ranks": "8.csv"}
    names |= {"removed": "9.csv", "purity": "10.csv"}
    return run("evaluation/measure_neighbors.py", folder, names)


def outputs(number: str) -> dict[str, str]:
    return {kind: f"figure{number}.{kind}" for kind in ("png", "svg", "csv")}


def test_without_labels_clusters_take_the_place_of_classes(folder: Path) -> None:
    target = measure(folder)
    facts = read_json(target / "neighbors.json")
    assert (facts["kind"], facts["n_images"], facts["n_neighbors"]) == ("cluster", 40, N_NEIGHBORS)
    by_clusters = pd.read_csv(target / "8.csv")
    write_true(folder, np.array(CLUSTERS[9]["train"]))  # the same, told as true
    measure(folder)
    assert read_json(target / "neighbors.json")["kind"] == "class"
    pd.testing.assert_frame_equal(pd.read_csv(target / "8.csv"), by_clusters)
    write_true(folder, CLASSES)
    measure(folder)
    assert not pd.read_csv(target / "8.csv").equals(by_clusters)


def test_the_cleaning_is_drawn_with_labels_and_without(folder: Path) -> None:
    target = run("report/draw_cleaning.py", folder, outputs("13"))
    members = pd.read_csv(target / "figure13.csv")
    clusters = np.array(CLUSTERS[9]["train"])
    is_alike = clusters[members["row"]] == clusters[members["anchor"]]
    np.testing.assert_array_equal(members["is_alike"], is_alike)
    assert members["image_id"].tolist() == [IDS["train"][row] for row in members["row"]]
    write_true(folder, CLASSES)
    run("report/draw_cleaning.py", folder, outputs("13"))
    members = pd.read_csv(target / "figure13.csv")
    is_alike = CLASSES[members["row"]] == CLASSES[members["anchor"]]
    np.testing.assert_array_equal(members["is_alike"], is_alike)
    assert (target / "figure13.png").stat().st_size > 10_000
    assert "<svg" in (target / "figure13.svg").read_text(encoding="utf-8")


def draw_examples(folder: Path, number: str) -> pd.DataFrame:
    target = run("report/draw_examples.py", folder, outputs(number), number=number)
    return pd.read_csv(target / f"figure{number}.csv")


def test_examples_have_false_positives_where_labels_are_known(folder: Path) -> None:
    assert set(draw_examples(folder, "12")["kind"]) == {"most", "least"}
    write_true(folder, CLASSES)
    examples = draw_examples(folder, "12")
    wrong = examples[examples["kind"] == "false"]
    assert 0 < len(wrong) <= 9
    assert (wrong["row"] < 9).all()


def test_old_and_new_classes_of_gcd_have_a_figure_each(folder: Path) -> None:
    write_true(folder, CLASSES, n_old=2)
    assert set(draw_examples(folder, "14")["class_name"]) == {"a", "b"}
    new = draw_examples(folder, "15")
    assert set(new["class_name"]) == {"c", "d"}
    assert len(new) > 12
