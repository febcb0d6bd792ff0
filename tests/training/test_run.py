import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from unic.evaluation.learning_curve import follow_snapshots
from unic.evaluation.metrics import cluster_accuracy
from unic.features.cached_views import extract_tokens
from unic.features.extraction import extract_features
from unic.images.augmentations import choose_augmentation
from unic.images.datasets import open_images
from unic.images.index import read_index, write_index
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.models.heads import FITTED_NORMS
from unic.models.trained import load_model
from unic.neighbors.cleaning import clean_neighbors
from unic.runtime.processes import ALONE, Processes, run_together
from unic.storage.stores import open_store, write_derived, write_features, write_known_labels
from unic.training.prediction import predict_clusters
from unic.training.run import FinetuningRun, train

N_IMAGES, N_CLASSES = 40, 4
IDS = [f"{row:02}.png" for row in range(N_IMAGES)]
MODEL = {
    "name": "test_vit",
    "options": {"img_size": 32},
    "image_size": 32,
    "n_clusters": N_CLASSES,
    "head": "mlp",
    "head_norm": None,
    "head_width": 64,
}
VIEW = {"image_size": 32, "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.2] * 3}
FINETUNING = {
    "trainable": "last_block",
    "epochs": 5,
    "batch_size": 10,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "lambda_pos": 1,
    "lambda_neg": 1,
    "lambda_ent": 3,
    "schedule": "cosine",
    "clip_norm": None,
    "accumulation": 1,
    "entropy_momentum": 0,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before the finetuning give for 40 images of four shades."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    classes = np.arange(N_IMAGES) % N_CLASSES
    ids = {"train": IDS}
    for row, image_id in enumerate(ids["train"]):
        noise = generator.integers(0, 60, (32, 32, 3)) + 60 * classes[row]
        Image.fromarray(noise.astype(np.uint8)).save(folder / image_id)
    write_index(folder / "images.parquet", ids, name="folder", root=str(folder))
    features = np.eye(N_CLASSES)[classes] + generator.normal(0, 0.05, (N_IMAGES, N_CLASSES))
    features = features.astype(np.float32)
    write_features(folder / "features.zarr/zarr.json", {"train": features}, ids, backbone="x")
    unknown = np.full(N_IMAGES, -1, dtype=np.int64)
    write_known_labels(folder / "known_labels.zarr/zarr.json", unknown, ids["train"])
    store = open_store(folder / "features.zarr", kind="features")
    distances = np.linalg.norm(features[:, None] - features, axis=2)
    order = distances.argsort(axis=1)
    neighbors = {
        "indices": order[:, :5],
        "distances": np.take_along_axis(distances, order[:, :5], axis=1),
        "far_radius": np.sort(distances, axis=1)[:, 12],
    }
    manifest = folder / "neighbors.zarr/zarr.json"
    write_derived(manifest, "neighbors", neighbors, of=store, parameters={"metric": "euclidean"})
    positives = clean_neighbors(order[:, :5], max_union_size=20, known_labels=unknown)
    manifest = folder / "positives.zarr/zarr.json"
    write_derived(manifest, "positives", positives.arrays(), of=store, parameters={})
    manifest = folder / "negatives.zarr/zarr.json"
    write_derived(manifest, "negatives", {"indices": order[:, 15:30]}, of=store, parameters={})
    view = View(**VIEW)
    extract_tokens(
        folder / "tokens.json",
        ViewLoader(
            open_images("folder", ids["train"], root=str(folder)),
            view,
            augmentation=choose_augmentation("scan"),
        ),
        load_backbone("test_vit", weights="random", options={"img_size": 32}, image_size=32),
        n_views=3,
        dtype="float16",
        batch_size=8,
        seed=0,
        precision=torch.float32,
        device=torch.device("cpu"),
        parameters={},
    )
    return folder


def make_run(
    files: Path,
    out: Path,
    *names: str,
    augmentation: str | None = "scan",
    snapshot_every: int | None = None,
    n_heads: int = 1,
    head_norm: str | None = None,
    **settings: Any,
) -> FinetuningRun:
    names = ("images", "positives", "known_labels", *(names or ("negatives",)))
    kinds = {"images": "images.parquet", "tokens": "tokens.json"}
    return FinetuningRun.parse(
        inputs={name: str(files / kinds.get(name, f"{name}.zarr/zarr.json")) for name in names},
        outputs={name: str(out / name) for name in ("model", "history")},
        params={
            "source": {"name": "folder", "root": str(files), "view": VIEW},
            "augmentation": augmentation,
            "precision": "float32",
            "draw": "once" if "negatives" in names else "in_batch",
            "pool": {
                "pool": "far",
                "labeled_share": 0.0,
                "exclude_known_same_label": True,
            },
            "weights": "random",
            "network": "auto",
            "model": MODEL | {"head_norm": head_norm},
            "n_heads": n_heads,
            "snapshot_every": snapshot_every,
            "finetuning": FINETUNING | settings,
        },
        seed=3,
        device="cpu",
        threads=1,
    )


def results(run: FinetuningRun) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    history = pd.read_csv(run.history_file).drop(columns="images_per_second")
    return load_file(run.model_file), history


def assert_equal(run: FinetuningRun, other: FinetuningRun) -> None:
    (ours, history), (theirs, other_history) = results(run), results(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)


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


def fail_in_one(text: str, processes: Processes) -> None:
    if processes.rank == 1:
        raise ValueError(text)
    processes.gather(torch.zeros(1, 1, 2))  # waits for the other


@pytest.mark.slow
def test_a_failure_in_one_process_ends_all() -> None:
    with pytest.raises(ChildProcessError, match="they ended with"):
        run_together(fail_in_one, "broken", n_processes=2)


def options(kind: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kind.items() if key != "names"}


def test_refuses_a_batch_that_cannot_be_shared_out() -> None:
    with pytest.raises(ValueError, match="must be a multiple of the 2 processes, got 5"):
        Processes(0, 2).positions(3, 5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_are_columns_and_make_up_the_batch(size: int) -> None:
    rows = np.arange(3 * 6).reshape(3, 6)
    positions = [Processes(rank, size).positions(3, 6) for rank in range(size)]
    shares = [rows.ravel()[slice(None) if part is None else part] for part in positions]
    found = np.concatenate([share.reshape(3, -1) for share in shares], axis=1)
    np.testing.assert_array_equal(found, rows)


# Killed without warning


def start(run: FinetuningRun) -> "subprocess.Popen[bytes]":
    code = (
        "from unic.images.source import *; from unic.neighbors.negatives import *;"
        "from unic.training.run import *; from unic.runtime.processes import ALONE;"
        f"train({run!r}, ALONE)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TQDM_DISABLE": "1"},
        stderr=subprocess.DEVNULL,
    )


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


# Snapshots


def follow(run: FinetuningRun, files: Path) -> pd.DataFrame:
    return follow_snapshots(
        run.snapshots,
        {"train": open_images("folder", IDS, root=str(files))},
        {"train": np.arange(N_IMAGES) % N_CLASSES},
        View(**VIEW),
        n_restarts=2,
        seed=0,
        batch_size=16,
        device=torch.device("cpu"),
    )


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


def test_refuses_tokens_that_were_kept_for_another_head(files: Path, tmp_path: Path) -> None:
    run = make_run(files, tmp_path, "negatives", "tokens")
    run = replace(run, model=replace(run.model, head="self_attention"))
    with pytest.raises(ValueError, match="must hold views of the 40 training images by this"):
        train(run, ALONE)


@pytest.mark.parametrize("every", [None, 3, 9])
def test_snapshots_of_an_earlier_training_go(
    every: int | None, files: Path, tmp_path: Path
) -> None:
    for each in (2, every):
        run = make_run(files, tmp_path, snapshot_every=each, epochs=4)
        train(run, ALONE)
    names = [path.name for path in Path(run.snapshots).glob("*")]
    assert names == (["epoch_0003.safetensors"] if every == 3 else [])
    if not names:
        with pytest.raises(FileNotFoundError, match="at least 1 and at most"):
            follow(run, files)


def test_a_training_that_goes_on_keeps_its_snapshots(files: Path, tmp_path: Path) -> None:
    run = make_run(files, tmp_path / "run", snapshot_every=1, epochs=20)
    checkpoint, deadline = Path(run.checkpoint), time.monotonic() + 120
    process = start(run)
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    first = Path(run.snapshots, "epoch_0001.safetensors")
    kept = first.stat().st_mtime_ns
    train(run, ALONE)
    assert first.stat().st_mtime_ns == kept
    assert len(list(first.parent.iterdir())) == 20


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


def test_refuses_tokens_of_other_images(files: Path, tmp_path: Path) -> None:
    index = tmp_path / "images.parquet"
    ids = read_index(files / "images.parquet")
    write_index(index, {"train": ids["train"][::-1]}, name="folder", root=str(files))
    run = make_run(files, tmp_path, "negatives", "tokens")
    run = replace(run, views=replace(run.views, images=str(index)))
    with pytest.raises(ValueError, match="must hold views of the 40 training images"):
        train(run, ALONE)
