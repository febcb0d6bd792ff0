"""A small experiment on disk: stores as the stages write them, from plain NumPy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unic.evaluation.metrics import cluster_accuracy
from unic.evaluation.summary import summarize_seeds
from unic.experiments.stages import STAGES as STAGE_NAMES
from unic.images.index import read_index, write_index
from unic.storage.files import write_json
from unic.storage.prediction_tables import tabulate, write_predictions
from unic.storage.stores import (
    open_store,
    write_derived,
    write_features,
    write_known_labels,
    write_labels,
)

N_IMAGES, N_NEIGHBORS, FAR_RANK, MAX_UNION_SIZE, N_NEGATIVES = 40, 6, 12, 14, 5
STAGES = ("features", "known_labels", "neighbors", "positives", "negatives")
TEST_ID = "test/a/x.png"
ROOT = "photos"  # below the folder that holds results/


def image_ids(n_images: int = N_IMAGES) -> list[str]:
    return [f"train/{'ab'[row % 2]}/{row}.png" for row in range(n_images)]


def draw_features(n_images: int = N_IMAGES) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    centers = generator.standard_normal((4, 8))[np.arange(n_images) % 4]
    return (centers + 0.7 * generator.standard_normal((n_images, 8))).astype(np.float32)


def rank_images(features: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All images by their distance to each image, itself first, and the distances."""
    exact = features.astype(np.float64)
    distances = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    order = np.argsort(distances - 2 * np.eye(len(features)), axis=1, kind="stable")
    return order.astype(np.int64), np.take_along_axis(distances, order, axis=1)


def known_labels(n_images: int = N_IMAGES) -> NDArray[np.int64]:
    rows = np.arange(n_images)
    return np.where(rows < 10, rows % 4, -1).astype(np.int64)


def write_experiment(
    folder: Path,
    *,
    stages: Sequence[str] = STAGES,
    labeled: bool = True,
    metric: str = "euclidean",
    images: bool = False,
    n_images: int = N_IMAGES,
) -> Path:
    """Write ``results/NAME``: the index, and the stores of the stages that have run."""
    ids, features = image_ids(n_images), draw_features(n_images)
    write_index(
        folder / "images.parquet",
        {"train": ids, "test": [TEST_ID]},
        name="folder",
        root=ROOT,
    )
    if images:
        write_images(folder.resolve().parents[1] / ROOT, ids)
    measured = features
    if metric == "cosine":
        measured = features / np.linalg.norm(features, axis=1, keepdims=True)
    order, distances = rank_images(measured)
    indices = order[:, :N_NEIGHBORS]
    unions = [len(np.unique(indices[row])) for row in indices]
    union_size = np.array(unions, dtype=np.int32)
    mutual = [np.mean([row in indices[other] for other in indices[row, 1:]]) for row in order[:, 0]]
    arrays = {
        "neighbors": {
            "indices": indices,
            "distances": distances[:, :N_NEIGHBORS].astype(np.float32),
            "far_radius": distances[:, FAR_RANK].astype(np.float32),
        },
        "positives": {
            "union_size": union_size,
            "is_clean": union_size <= MAX_UNION_SIZE,
            "reciprocity": np.array(mutual, dtype=np.float32),
            "indices": indices,
        },
        "negatives": {"indices": order[:, FAR_RANK : FAR_RANK + N_NEGATIVES]},
    }
    parameters: dict[str, dict[str, Any]] = {
        "neighbors": {
            "n_neighbors": N_NEIGHBORS,
            "far_rank": FAR_RANK,
            "metric": metric,
            "mining": {
                "engine": "exact",
                "recall": 1.0,
                "redone_float64": 3,
                "far_kept": 7,
                "far_sampled": 8,
            },
        },
        "positives": {"max_union_size": MAX_UNION_SIZE, "quantile": None},
        "negatives": {},
    }
    by_split = {"train": features, "test": features[:1] + 1}
    of_images = {"train": ids, "test": [TEST_ID]}
    write_features(path_of(folder, "features"), by_split, of_images, backbone="vit")
    of = open_store(path_of(folder, "features"), kind="features")
    for kind in arrays:
        manifest = path_of(folder, kind)
        write_derived(manifest, kind, arrays[kind], of=of, parameters=parameters[kind])
        if kind == "neighbors":
            of = open_store(manifest, kind=kind)
    for kind in ("features", *arrays):
        if kind not in stages:
            path_of(folder, kind).unlink()
    if "known_labels" in stages:
        known = known_labels(n_images) if labeled else np.full(n_images, -1, dtype=np.int64)
        write_known_labels(path_of(folder, "known_labels"), known, ids)
    return folder


def write_run(
    folder: Path,
    clusters: Mapping[int, Mapping[str, Sequence[int]]],
    *,
    labels: Mapping[str, Sequence[int]] | None = None,
    n_clusters: int = 4,
    shown: int | None = None,
    method: str = "finetuning",
    owners: Mapping[str, str] | None = None,
    **options: Any,
) -> Path:
    """Write a finished experiment: its stores, predictions, true labels and ``metrics.json``.

    Clusters are given by seed and split, labels by split; names of classes are ``class 0`` and
    so on. The confidence of image ``i`` of a split is ``1 - i / 100``.
    """
    write_experiment(folder, **options)
    ids = read_index(folder / "images.parquet")
    owners = dict.fromkeys(STAGE_NAMES, folder.name) | dict(owners or {})
    stage, name = (
        ("predict", "predictions") if method == "finetuning" else ("fit_consensus", method)
    )
    for seed, of_seed in clusters.items():
        found = {
            split: (np.array(rows), (1 - np.arange(len(rows)) / 100).astype(np.float32))
            for split, rows in of_seed.items()
        }
        path = folder.with_name(owners[stage]) / f"seed{seed}" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(path, tabulate("unic", seed, ids, found))
    scores = {str(seed): _score(of_seed, labels or {}) for seed, of_seed in clusters.items()}
    if labels is not None:
        write_labels(
            path_of(folder, "labels"),
            {split: np.array(labels[split]) for split in ids},
            {split: np.zeros(len(members), dtype=bool) for split, members in ids.items()},
            ids,
            class_names=[f"class {number}" for number in range(4)],
        )
    metrics = {
        "experiment": folder.name,
        "method": method,
        "task": "clustering",
        "n_clusters": n_clusters,
        "seeds": list(clusters),
        "methods": {"unic": summarize_seeds(scores, list(clusters))},
        "shown": {"seed": next(iter(clusters)) if shown is None else shown},
        "stage_owners": owners,
    }
    write_json(folder / "metrics.json", metrics)
    return folder


def _score(
    clusters: Mapping[str, Sequence[int]], labels: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    scores = {split: {"used_clusters": float(len(set(rows)))} for split, rows in clusters.items()}
    for split in labels:
        if min(labels[split]) >= 0:
            found = cluster_accuracy(np.array(labels[split]), np.array(clusters[split]))
            scores[split]["acc"] = found
    return scores


def path_of(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.zarr" / "zarr.json"


def write_images(root: Path, ids: Sequence[str]) -> None:
    """Photos of one color each, two of them in turn wide and high."""
    for row, image_id in enumerate(ids):
        (root / image_id).parent.mkdir(parents=True, exist_ok=True)
        color = (5 * row, 255 - 5 * row, 128)
        Image.new("RGB", (30, 20) if row % 2 else (20, 30), color).save(root / image_id)
