import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tests.training.runs import (
    IDS,
    N_IMAGES,
    VIEW,
    assert_equal,
    make_run,
    results,
    start,
    write_files,
)
from unic.features.extraction import extract_features
from unic.images.datasets import open_images
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.models.heads import FITTED_NORMS
from unic.models.trained import load_model
from unic.runtime.processes import ALONE, Processes, run_together
from unic.storage.stores import write_features
from unic.training.run import FinetuningRun, train


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


SOURCES = {
    "mined": ("negatives",),
    "in_batch": ("features", "neighbors"),
    "cached": ("negatives", "tokens"),
    "cached in_batch": ("features", "neighbors", "tokens"),
}


@pytest.mark.parametrize("names", SOURCES.values(), ids=SOURCES)
def test_a_run_leaves_a_model_and_a_history_and_learns(
    names: tuple[str, ...], files: Path, tmp_path: Path
) -> None:
    run = make_run(files, tmp_path, *names)
    train(run, ALONE)
    _, history = results(run)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history", "model"]


def test_the_head_of_the_lowest_loss_is_kept(files: Path, tmp_path: Path) -> None:
    several = make_run(files, tmp_path / "several", n_heads=4, trainable=None, epochs=8)
    train(several, ALONE)
    state, history = results(several)
    one = make_run(files, tmp_path / "one", trainable=None, epochs=8)
    train(one, ALONE)
    first, _ = results(one)
    kept = history["head"].iloc[-1]
    same = torch.allclose(state["head.0.weight"], first["head.0.weight"], rtol=1e-4, atol=1e-6)
    assert same == (kept == 0)
    assert history["loss"].iloc[-1] <= results(one)[1]["loss"].iloc[-1] + 1e-5


def with_features(files: Path, folder: Path, name: str) -> NDArray[np.float32]:
    """Copy the files into a folder, and write a store of what the backbone gives beside them."""
    shutil.copytree(files, folder)
    images = open_images("folder", IDS, root=str(files))
    backbone = load_backbone("test_vit", weights="random", options={"img_size": 32}, image_size=32)
    device = torch.device("cpu")
    features = extract_features(images, backbone, View(**VIEW), batch_size=40, device=device)
    shutil.rmtree(folder / f"{name}.zarr", ignore_errors=True)
    manifest = folder / f"{name}.zarr/zarr.json"
    write_features(manifest, {"train": features}, {"train": IDS}, backbone="test_vit")
    return features


@pytest.mark.parametrize("norm", FITTED_NORMS)
def test_heads_keep_the_statistics_of_the_features_that_were_mined(
    norm: str, files: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    features = with_features(files, folder, "features").astype(np.float64)
    names = ("negatives", "features")
    run = make_run(folder, tmp_path, *names, head_norm=norm, n_heads=2, snapshot_every=5)
    train(run, ALONE)
    model = load_model(run.model_file)
    mean = model.head[0].mean.double().numpy()
    np.testing.assert_array_equal(mean, features.mean(0).astype(np.float32))
    if norm == "standardize":
        expected = np.sqrt(np.square(features - features.mean(0)).mean())
        assert float(model.head[0].scale) == pytest.approx(expected, rel=1e-6)
    snapshot = load_model(Path(run.snapshots, "epoch_0005.safetensors"))  # of the last epoch
    for name, tensor in model.head.state_dict().items():
        assert torch.equal(snapshot.head.state_dict()[name], tensor)


def test_a_stopped_run_goes_on_with_the_same_statistics(files: Path, tmp_path: Path) -> None:
    """They are no part of a checkpoint, but come from the features again."""
    folder = tmp_path / "files"
    with_features(files, folder, "features")
    settings: dict[str, Any] = {"head_norm": "standardize", "n_heads": 2, "epochs": 2}
    run = make_run(folder, tmp_path / "run", "negatives", "features", **settings)
    stopped = replace(run, history_file=str(tmp_path))
    with pytest.raises(OSError, match="directory"):
        train(stopped, ALONE)
    assert Path(run.checkpoint).is_file()
    train(run, ALONE)
    undisturbed = make_run(folder, tmp_path / "undisturbed", "negatives", "features", **settings)
    train(undisturbed, ALONE)
    assert_equal(run, undisturbed)


def test_refuses_statistics_of_other_features(files: Path, tmp_path: Path) -> None:
    run = make_run(files, tmp_path, "negatives", "features", head_norm="center")
    with pytest.raises(ValueError, match="must have the 64 dims that the head reads, got 4"):
        train(run, ALONE)
    ids = {"train": IDS[::-1]}
    other = tmp_path / "other.zarr/zarr.json"
    write_features(other, {"train": np.ones((N_IMAGES, 64), np.float32)}, ids, backbone="x")
    run = replace(run, pairs=replace(run.pairs, features=str(other)))
    with pytest.raises(ValueError, match="row i must mean the same image"):
        train(run, ALONE)


def test_a_frozen_backbone_trains_on_its_features(files: Path, tmp_path: Path) -> None:
    """Whatever way features come, the training is the same."""
    folder = tmp_path / "files"
    with_features(files, folder, "frozen")
    settings: dict[str, Any] = {"trainable": None, "augmentation": None, "n_heads": 2}
    ours = make_run(folder, tmp_path / "ours", "negatives", "frozen", **settings)
    theirs = make_run(files, tmp_path / "theirs", "negatives", **settings)
    for run in (ours, theirs):
        train(run, ALONE)
    columns = ["loss", "loss_pos", "loss_neg", "head"]
    pd.testing.assert_frame_equal(results(ours)[1][columns], results(theirs)[1][columns], rtol=1e-4)
    features = str(folder / "features.zarr/zarr.json")
    wrong = replace(ours, views=replace(ours.views, frozen=features))
    with pytest.raises(ValueError, match=r"must hold features of the backbone.s 64 dims, it has 4"):
        train(wrong, ALONE)


def test_sources_give_runs_of_their_own(files: Path, tmp_path: Path) -> None:
    losses = set()
    for name, names in SOURCES.items():
        run = make_run(files, tmp_path / name, *names, epochs=1)
        train(run, ALONE)
        losses.add(results(run)[1]["loss"].iloc[0])
    assert len(losses) == 4


# Several processes


def train_each(runs: list[FinetuningRun], processes: Processes) -> None:
    for run in runs:
        train(run, processes)


def test_two_processes_train_as_one_does(files: Path, tmp_path: Path) -> None:
    """Over 20 steps the losses are those of one process, for every kind of views and negatives."""
    steps = {"batch_size": N_IMAGES, "epochs": 20}  # an epoch is a step
    others = {"entropy_momentum": 0.5, "accumulation": 3, "clip_norm": 1.0, "lambda_con": 2.0}
    others["n_heads"] = 2
    kinds: dict[str, dict[str, Any]] = {
        "fresh": steps,
        "warp": steps | {"augmentation": "warp"},
        "in_batch": steps | {"names": SOURCES["in_batch"]},
        "cached": steps | {"names": SOURCES["cached in_batch"]},
        "others": others,
    }
    alone, shared = (
        [
            make_run(files, tmp_path / f"{name}{n}", *kind.get("names", ()), **options(kind))
            for name, kind in kinds.items()
        ]
        for n in (1, 2)
    )
    run_together(train_each, alone, n_processes=1)
    run_together(train_each, shared, n_processes=2)
    for one, two in zip(alone, shared, strict=True):
        expected, found = results(one)[1], results(two)[1]
        assert expected["step"].iloc[-1] in (20, 10)
        for name in ("loss", "loss_pos", "loss_neg", "loss_ent", "loss_con"):
            assert np.abs(found[name] - expected[name]).max() < 1e-5
        assert found["used_clusters"].tolist() == expected["used_clusters"].tolist()


def options(kind: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kind.items() if key != "names"}


# Killed without warning


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([signal.SIGKILL, signal.SIGTERM], id="twice"),
        pytest.param([signal.SIGKILL] * 6 + [signal.SIGTERM], id="often", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_in_the_result_of_an_undisturbed_one(
    signals: list[signal.Signals], files: Path, tmp_path: Path
) -> None:
    epochs = 4 * len(signals) + 4
    settings: dict[str, Any] = {"epochs": epochs, "n_heads": 2, "entropy_momentum": 0.5}
    undisturbed = make_run(files, tmp_path / "undisturbed", **settings)
    train(undisturbed, ALONE)
    run = make_run(files, tmp_path / "killed", **settings)
    checkpoint, generator = Path(run.checkpoint), np.random.default_rng(0)
    for sent in signals:
        saved = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process, deadline = start(run), time.monotonic() + 120
        while (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == saved) and (
            time.monotonic() < deadline
        ):
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.05))
        process.send_signal(sent)
        assert process.wait() == -sent
        assert not Path(run.model_file).exists()
    train(run, ALONE)
    assert_equal(run, undisturbed)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["history", "model"]


# What a checkpoint belongs to


def test_a_checkpoint_of_other_settings_is_not_taken_up(files: Path, tmp_path: Path) -> None:
    first = make_run(files, tmp_path / "first", epochs=2)
    train(first, ALONE)
    other = make_run(files, tmp_path / "other", epochs=2, learning_rate=5e-3)
    again = replace(first, model_file=other.model_file, history_file=other.history_file)
    stopped = replace(other, history_file=str(tmp_path))
    with pytest.raises(OSError, match="directory"):
        train(stopped, ALONE)
    assert Path(other.checkpoint).is_file()
    train(again, ALONE)
    assert_equal(again, first)
