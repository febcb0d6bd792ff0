"""SimGCD before UNIC, from the images to the metrics, with cached views and with fresh ones."""

import json

import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.workflow.project import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
SETTINGS = """\
experiments:
  tiny:
    base: digits_gcd_simgcd
    seeds: [1, 2]
    pretraining:
      simgcd: {epochs: 2}
    finetuning: {epochs: 1, head_width: 32}
    kmeans: {n_restarts: 1, pixels: false}
  cached:
    base: tiny
    finetuning: {views: 2}
"""


def test_simgcd_to_the_metrics(fresh_project: Project) -> None:
    (fresh_project.folder / "config" / "tiny.yaml").write_text(SETTINGS)
    fresh_project.run("results/tiny/metrics.json")
    folder = fresh_project.folder / "results" / "tiny"
    metrics = json.loads((folder / "metrics.json").read_text())
    methods = metrics["methods"]
    assert metrics["task"] == "gcd"
    for method, n_values in {
        "unic": 2,
        "simgcd": 1,
        "kmeans_features": 2,
        "semi_supervised_kmeans_features": 2,
        "semi_supervised_kmeans_features_normalized": 2,
    }.items():
        scores = methods[method]["unlabeled"]
        assert all(len(scores[part]["values"]) == n_values for part in ("all", "old", "new"))
        if method != "unic":  # of an epoch only
            assert scores["all"]["mean"] > 0.5
    report = (folder / "report.html").read_text()
    assert "SimGCD" in report
    assert "semi-supervised k-means" in report
    check_backbone(fresh_project, "tiny")


def test_simgcd_on_cached_views(fresh_project: Project) -> None:
    (fresh_project.folder / "config" / "tiny.yaml").write_text(SETTINGS)
    fresh_project.run("results/cached/simgcd/backbone.safetensors")
    assert (fresh_project.folder / "results/cached/tokens.json").is_file()
    check_backbone(fresh_project, "cached")


def check_backbone(project: Project, name: str) -> None:
    """SimGCD trained the last stage, and nothing else."""
    simgcd = project.folder / "results" / name / "simgcd"
    assert sorted(file.name for file in simgcd.iterdir()) == [
        *("backbone.safetensors", "classifier.safetensors", "history.csv"),
    ]
    assert pd.read_csv(simgcd / "history.csv")["epoch"].tolist() == [1, 2]
    ours = load_file(simgcd / "backbone.safetensors")
    start = load_file(project.folder / "unic/weights/digits_test_resnet.safetensors")
    changed = {key for key in ours if not ours[key].equal(start[key])}
    assert changed
    assert all(key.startswith("layer4.") for key in changed)
