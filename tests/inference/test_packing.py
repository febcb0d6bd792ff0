"""A model that the workflow has packed gives new images what the workflow gives its test images."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import unic
from tests.workflow.project import ROOT, Project, copy_project
from unic.evaluation.summary import HEADLINES
from unic.images.datasets import open_images
from unic.images.index import read_index, write_index
from unic.images.views import View
from unic.inference.bundle import Bundle
from unic.inference.packing import pack
from unic.inference.predictor import Prediction
from unic.storage.stores import open_store

pytestmark = pytest.mark.workflow
VIEW = View(32, 1.0, (0.5,) * 3, (0.5,) * 3)
SMALL = """\
experiments:
  small:
    base: digits
    method: consensus
    seeds: [0]
    kmeans:
      pixels: false
"""
OWNER = "results/digits"  # whose stages it shares


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = copy_project(tmp_path_factory.mktemp("inference") / "project")
    (made.folder / "config" / "tiny.yaml").write_text(SMALL)
    made.run("results/small/model.safetensors")
    return made


@pytest.fixture(scope="module")
def alone(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, with nothing beside it."""
    path = tmp_path_factory.mktemp("alone") / "model.safetensors"
    shutil.copy(project.folder / "results/small/model.safetensors", path)
    return path


@pytest.fixture(scope="module")
def found(project: Project, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    """What the model says of the test images, which are files."""
    folder = tmp_path_factory.mktemp("new")
    ids = read_index(project.folder / "results/small/images.parquet")["test"]
    images = open_images("digits", ids, root=None)
    paths = [folder / f"{image_id}.png" for image_id in ids]
    for row, path in enumerate(paths):
        Image.fromarray(images[row]).save(path)
    return unic.load(alone, device="cpu").predict(paths)


def test_new_images_get_what_the_workflow_gave_them(project: Project, found: Prediction) -> None:
    table = pd.read_parquet(project.folder / OWNER / "seed0/consensus.parquet")
    wanted = table[table["split"] == "test"]
    assert len(found.clusters) == len(wanted) == 359
    assert found.clusters.tolist() == wanted["cluster"].tolist()
    assert found.second.tolist() == wanted["second"].tolist()
    frame = found.to_frame()
    for name in ("confidence", "second_confidence", "distance"):
        np.testing.assert_allclose(frame[name], wanted[name], atol=1e-5)


def test_so_do_their_features(project: Project, found: Prediction) -> None:
    features = open_store(project.folder / OWNER / "features.zarr/zarr.json", kind="features")
    wanted = features.read("features", split="test")
    np.testing.assert_allclose(found.features, wanted, rtol=1e-4, atol=1e-4)


def test_neighbors_are_training_images(project: Project, found: Prediction) -> None:
    ids = read_index(project.folder / "results/small/images.parquet")["train"]
    assert found.neighbor_ids[7] == [ids[row] for row in found.neighbors[7]]
    assert 0.4 < found.outlier.mean() < 0.6  # test images are as the training images are


def test_describes_itself_without_naming_the_machine(project: Project, alone: Path) -> None:
    said = unic.load(alone, device="cpu").bundle.description
    assert (said.experiment, said.seed, said.n_clusters) == ("small", 0, 10)
    assert (said.weights, said.license) == ("bundled:digits_test_resnet", "mit")
    text = (project.folder / "results/small/model.md").read_text()
    metrics = json.loads((project.folder / "results/small/metrics.json").read_text())
    acc = metrics["methods"]["unic"]["test"]["acc"]["mean"]
    assert f"| test | acc | {100 * acc:.1f} |" in text
    assert HEADLINES["acc"] in text
    for content in (text.encode(), alone.read_bytes()):
        assert os.fsencode(project.folder.parent) not in content


def test_the_same_run_gives_the_same_bytes(project: Project, alone: Path) -> None:
    folder = project.folder / "results/small"
    card = (folder / "model.md").read_bytes()
    assert project.plan("results/small/model.safetensors") == {}
    project.run("--forcerun", "pack_model", "--", "results/small/model.safetensors")
    assert (folder / "model.safetensors").read_bytes() == alone.read_bytes()
    assert (folder / "model.md").read_bytes() == card


def pack_small(project: Project, **changes: Any) -> Bundle:
    """Pack again, in some other way."""
    weights = ROOT / "unic/models/bundled/digits_test_resnet.safetensors"
    arguments = {
        "metrics": json.loads((project.folder / "results/small/metrics.json").read_text()),
        "models": [project.folder / OWNER / "seed0/consensus.safetensors"],
        "images": project.folder / "results/small/images.parquet",
        "view": VIEW,
        "decoded": None,
        "name": "test_resnet",
        "weights": str(weights),
        "weights_file": weights,
        "network": "auto",
        "options": {},
    }
    return pack(**arguments | changes)


def test_given_weights_are_named_without_their_folder(project: Project) -> None:
    said = pack_small(project).description
    assert (said.weights, said.license) == ("digits_test_resnet.safetensors", None)
    assert pack_small(project, weights="pretrain").description.weights == "pretrain"


def test_the_shown_seed_is_packed(project: Project) -> None:
    path = project.folder / OWNER / "seed0/consensus.safetensors"
    metrics = {"experiment": "small", "seeds": [4, 2], "shown": {"seed": 2}}
    bundle = pack_small(project, metrics=metrics, models=["absent", path])
    assert bundle.description.seed == 2
    with pytest.raises(FileNotFoundError, match="absent"):
        pack_small(project, metrics=metrics, models=[path, "absent"])


def test_a_model_of_other_images_is_refused(project: Project, tmp_path: Path) -> None:
    write_index(tmp_path / "a.parquet", {"train": ["0", "1"]}, name="digits", root=None)
    with pytest.raises(ValueError, match=r"must be of the 2 training images .* got 1438"):
        pack_small(project, images=tmp_path / "a.parquet")


def test_another_method_has_no_model(project: Project) -> None:
    finished = project.snakemake("--dry-run", "results/digits_scan/model.safetensors")
    assert finished.returncode != 0
    assert "must be of an experiment of method consensus" in finished.stdout + finished.stderr
