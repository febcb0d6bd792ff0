"""A small run: images of four shades, and all that the stages before it give."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file

from unic.evaluation.learning_curve import follow_snapshots
from unic.features.cached_views import extract_tokens
from unic.features.frozen import FrozenBackbone
from unic.images.augmentations import choose_augmentation
from unic.images.datasets import open_images
from unic.images.index import write_index
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.models.engines import Engine
from unic.neighbors.cleaning import clean_neighbors
from unic.storage.stores import open_store, write_derived, write_features, write_known_labels
from unic.training.run import FinetuningRun

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


def write_files(folder: Path) -> Path:
    """What the stages before the finetuning give for 40 images of four shades."""
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
        FrozenBackbone(
            load_backbone("test_vit", weights="random", options={"img_size": 32}, image_size=32),
            Engine("torch", torch.float32, torch.device("cpu")),
        ),
        n_views=3,
        dtype="float16",
        batch_size=8,
        seed=0,
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
        engine="auto",
        threads=1,
    )


def results(run: FinetuningRun) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    history = pd.read_csv(run.history_file).drop(columns="images_per_second")
    return load_file(run.model_file), history


def assert_equal(run: FinetuningRun, other: FinetuningRun) -> None:
    (ours, history), (theirs, other_history) = results(run), results(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    pd.testing.assert_frame_equal(history, other_history, check_exact=True)


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
