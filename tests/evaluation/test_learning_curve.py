"""Learning curves, against scores of single snapshots."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import (
    IDS,
    N_CLASSES,
    N_IMAGES,
    VIEW,
    assert_equal,
    follow,
    make_run,
    write_files,
)
from unic.evaluation.metrics import cluster_accuracy
from unic.features.extraction import extract_features
from unic.images.datasets import open_images
from unic.images.views import View
from unic.models.trained import load_model
from unic.runtime.processes import ALONE
from unic.training.prediction import predict_clusters
from unic.training.run import train


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


def test_snapshots_are_scored_and_change_nothing(files: Path, tmp_path: Path) -> None:
    plain = make_run(files, tmp_path / "plain")
    run = make_run(files, tmp_path / "followed", snapshot_every=2)
    for each in (plain, run):
        train(each, ALONE)
    assert_equal(run, plain)
    names = sorted(path.name for path in Path(run.snapshots).iterdir())
    assert names == ["epoch_0002.safetensors", "epoch_0004.safetensors"]
    images = {"train": open_images("folder", IDS, root=str(files))}
    labels = {"train": np.arange(N_IMAGES) % N_CLASSES}
    progress = follow(run, files)
    assert progress["epoch"].tolist() == [2, 4]
    assert progress["split"].tolist() == ["train", "train"]
    model = load_model(Path(run.snapshots, "epoch_0004.safetensors"))
    cpu = torch.device("cpu")
    view = View(**VIEW)
    features = extract_features(images["train"], model.backbone, view, batch_size=40, device=cpu)
    clusters, _ = predict_clusters(model.head, features, device=cpu)
    assert progress["acc"].iloc[1] == cluster_accuracy(labels["train"], clusters)
    assert (progress["kmeans_acc"] > 0.5).all()  # four shades


def test_a_head_that_reads_tokens_runs_and_is_followed(files: Path, tmp_path: Path) -> None:
    run = make_run(files, tmp_path / "run", snapshot_every=2, epochs=2)
    run = replace(run, model=replace(run.model, head="self_attention"))
    train(run, ALONE)
    assert load_model(run.model_file).head.reads_tokens
    progress = follow(run, files)
    assert progress["epoch"].tolist() == [2]
    assert progress["acc"].between(0.25, 1).all()
