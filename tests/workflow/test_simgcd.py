"""SimGCD before UNIC, from the images to the metrics, with cached views and with fresh ones."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.workflow.project import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
BUNDLED = "unic/models/bundled/digits_test_resnet.safetensors"
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
    views: {n_views: 2}
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


@pytest.mark.parametrize("views", ["fresh", 2])
def test_simgcd_starts_from_the_network_that_is_asked_for(
    views: str | int, fresh_project: Project
) -> None:
    text = SETTINGS.replace("simgcd: {epochs: 2}", "simgcd: {epochs: 2, start: full.pth}")
    text = text.replace(
        "head_width: 32}", f"head_width: 32, trainable: null}}\n    views: {{n_views: {views}}}"
    )
    base = "base: digits_gcd_simgcd\n"
    text = text.replace(base, f"{base}    backbone: {{network: student}}\n")
    (fresh_project.folder / "config" / "tiny.yaml").write_text(text)
    teacher = load_file(fresh_project.folder / BUNDLED)
    student = {key: tensor + 0.01 * tensor.is_floating_point() for key, tensor in teacher.items()}
    torch.save({"teacher": teacher, "student": student}, fresh_project.folder / "full.pth")
    model = "results/tiny/seed1/model.safetensors"  # after features, and views where there are
    fresh_project.run("results/tiny/baselines/simgcd.parquet", model)
    check_backbone(fresh_project, "tiny", start=student)


def check_backbone(project: Project, name: str, start: dict[str, Tensor] | None = None) -> None:
    """SimGCD trained the last stage, and nothing else."""
    simgcd = project.folder / "results" / name / "simgcd"
    assert sorted(file.name for file in simgcd.iterdir()) == [
        *("backbone.safetensors", "classifier.safetensors", "history.csv"),
    ]
    assert pd.read_csv(simgcd / "history.csv")["epoch"].tolist() == [1, 2]
    ours = load_file(simgcd / "backbone.safetensors")
    start = start or load_file(project.folder / BUNDLED)
    changed = {key for key in ours if not ours[key].equal(start[key])}
    assert changed
    assert all(key.startswith("layer4.") for key in changed)
