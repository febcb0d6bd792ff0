"""A model that the workflow has packed gives new images what the workflow gives its test images."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import unic
from tests.workflow.project import ROOT, Project, copy_project
from unic.evaluation.summary import HEADLINES
from unic.images.datasets import open_images
from unic.images.index import read_index, write_index
from unic.images.views import View, prepare_image
from unic.inference.bundle import Bundle, read_bundle
from unic.inference.export import SUFFIXES, export_model
from unic.inference.packing import Origin, Stages, pack
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

  trained:
    base: digits
    seeds: [1]
    finetuning:
      start: consensus
      head: linear
      head_norm: standardize
      epochs: 1
    kmeans:
      n_restarts: 1
      pixels: false

  frozen:
    base: trained
    views:
      augmentation: null
    finetuning:
      trainable: null

  tokens:
    base: trained
    finetuning:
      start: random
      trainable: null
      head: self_attention
      head_norm: null
      head_width: 64
"""
OWNER = "results/digits"  # whose stages it shares


class Trained(NamedTuple):
    """An experiment with a training."""

    folder: Path
    path: Path  # of its model, with nothing beside it
    found: Prediction  # what that says of the test images
    pixels: list[NDArray[np.uint8]]  # of these


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
    assert 0.8 < np.median(found.outliers.score) < 1.2  # test images are as training images are


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


def stages_of(project: Project, **changes: Any) -> Stages:
    folder = project.folder / "results/small"
    files: dict[str, Any] = {
        "images": folder / "images.parquet",
        "known_labels": project.folder / OWNER / "known_labels.zarr/zarr.json",
        "models": [project.folder / OWNER / "seed0/consensus.safetensors"],
        "backbone": str(ROOT / "unic/models/bundled/digits_test_resnet.safetensors"),
    }
    return Stages.parse(files | changes)


def pack_small(
    project: Project, *, metrics: Any = None, weights: str = "given", **changes: Any
) -> Bundle:
    """Pack again, in some other way."""
    if metrics is None:
        metrics = json.loads((project.folder / "results/small/metrics.json").read_text())
    origin = Origin("test_resnet", weights, "auto", {}, VIEW, None, "last_block", is_named=True)
    return pack(metrics, stages_of(project, **changes), origin)


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


# Of a training


@pytest.fixture(scope="module", params=["trained", "frozen", "tokens"])
def trained(
    request: pytest.FixtureRequest, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """An experiment with a training, its model alone, and what this says of the test images."""
    project.run(f"results/{request.param}/model.safetensors")
    folder = project.folder / "results" / request.param
    path = tmp_path_factory.mktemp("trained") / "model.safetensors"
    shutil.copy(folder / "model.safetensors", path)
    pixels = read_test_pixels(folder)
    return Trained(folder, path, unic.load(path, device="cpu").predict(pixels), pixels)


def read_test_pixels(folder: Path) -> list[NDArray[np.uint8]]:
    ids = read_index(folder.parent / "small/images.parquet")["test"]
    images = open_images("digits", ids, root=None)
    return [images[row] for row in range(len(ids))]


def wanted_of(trained: Trained) -> pd.DataFrame:
    """What the workflow says of the test images."""
    table = pd.read_parquet(trained.folder / "seed1/predictions.parquet")
    return table[table["split"] == "test"]


def test_a_training_gives_new_images_what_the_workflow_gave_them(trained: Trained) -> None:
    wanted, found = wanted_of(trained), trained.found
    assert len(found.clusters) == len(wanted) == 359
    assert found.clusters.tolist() == wanted["cluster"].tolist()
    assert wanted["cluster"].nunique() > 5
    np.testing.assert_allclose(found.confidence, wanted["confidence"], atol=1e-4)
    store = open_store(trained.folder / "seed1/features.zarr/zarr.json", kind="features")
    features = store.read("features", split="test")
    np.testing.assert_allclose(found.features, features, rtol=1e-4, atol=1e-4)


def test_a_training_has_neighbors_and_outliers(trained: Trained) -> None:
    found = trained.found
    assert found.neighbors.shape == (359, 10)
    assert (np.diff(found.distances, axis=1) > -1e-6).all()
    assert 0.8 < np.median(found.outliers.score) < 1.3  # as training images
    assert found.outliers.is_outlier.mean() < 0.1


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_graph_of_a_training_is_equal_to_it(trained: Trained, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"model{SUFFIXES[kind]}"
    export_model(read_bundle(trained.path), path, kind=kind)
    images = torch.stack([prepare_image(image, VIEW) for image in trained.pixels])
    if kind == "onnx":
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        clusters, confidence, _ = session.run(None, {"images": images.numpy()})
    else:
        with torch.no_grad():
            outputs = torch.export.load(path).module()(images)
        clusters, confidence, _ = (each.numpy() for each in outputs)
    wanted = wanted_of(trained)
    assert clusters.tolist() == wanted["cluster"].tolist()
    np.testing.assert_allclose(confidence, wanted["confidence"], atol=1e-4)


def test_a_training_describes_itself(trained: Trained) -> None:
    said = read_bundle(trained.path).description
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    assert said.seed == metrics["shown"]["seed"] == 1
    assert said.head is not None
    assert (said.trained is None) == (trained.folder.name != "trained")
    assert set(said.quality) == {"silhouette", "neighbor_agreement"}
    card = (trained.folder / "model.md").read_text()
    assert f"a trained head ({said.head['head'].replace('_', '-')}) clusters it" in card


def test_a_training_of_other_images_is_refused(project: Project, tmp_path: Path) -> None:
    project.run("results/frozen/model.safetensors")
    write_index(tmp_path / "a.parquet", {"train": ["0", "1"]}, name="digits", root=None)
    folder = project.folder / "results/frozen/seed1"
    with pytest.raises(ValueError, match="must be of the train images of the index"):
        pack_small(
            project,
            images=tmp_path / "a.parquet",
            models=[folder / "model.safetensors"],
            features=[folder / "features.zarr/zarr.json"],
            predictions=[folder / "predictions.parquet"],
        )
