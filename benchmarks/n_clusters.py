"""How near the estimated number of clusters is to the number of classes, by each criterion.

Reads the features and labels of experiments, ``python -m benchmarks.n_clusters results/digits``.
Training images alone are looked at; labels are read for the number of classes, and with
``--labeled`` for a share of them that the estimate is told.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.quality.n_clusters import Estimate, estimate_n_clusters
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import open_store, read_splits

CRITERIA = ("agreement", "silhouette", "modularity")


def read(folder: Path, n_images: int | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features ``(n, d)`` and labels ``(n,)`` of the training images, or of some of them."""
    features = read_splits(open_store(folder / "features.zarr", kind="features"), "features")
    labels = read_splits(open_store(folder / "labels.zarr", kind="labels"), "labels")
    rows = np.arange(len(labels["train"]))
    if n_images is not None:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:n_images])
    return features["train"][rows], labels["train"][rows]


def tell(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Known labels: a share of the images of the first half of the classes."""
    is_old = labels < (labels.max() + 1) // 2
    is_told = np.random.default_rng(seed).random(len(labels)) < share
    return np.where(is_old & is_told, labels, UNKNOWN)


def describe(estimate: Estimate, n_classes: int) -> dict[str, object]:
    """The columns of an estimate."""
    curve = estimate.curve
    peaks = {name: curve.n_clusters[getattr(curve, name).argmax()] for name in CRITERIA}
    return {
        "classes": n_classes,
        "estimate": estimate.n_clusters,
        "error": f"{(estimate.n_clusters - n_classes) / n_classes:+.0%}",
        "interval": f"{estimate.low} to {estimate.high}",
        "holds": estimate.low <= n_classes <= estimate.high,
        "score": f"{curve.score.max():.2f}",
    } | peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of experiments")
    parser.add_argument("--n", type=int, help="images, drawn at random; all without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labeled", type=float, default=0.0, help="share of old images told")
    parser.add_argument("--curves", type=Path, help="a folder for a CSV file a run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for number, folder in enumerate(arguments.folders):
        features, labels = read(folder, arguments.n)
        for seed in range(arguments.seeds):
            known = tell(labels, arguments.labeled, seed)
            generator, start = torch.Generator().manual_seed(seed), time.perf_counter()
            estimate = estimate_n_clusters(features, known_labels=known, generator=generator)
            seconds = time.perf_counter() - start
            row = {"images": folder.name, "n": len(labels), "seed": seed}
            row |= describe(estimate, len(np.unique(labels))) | {"seconds": round(seconds)}
            if number == seed == 0:
                print(f"| {' | '.join(row)} |\n{'|---' * len(row)}|")
            print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
            if arguments.curves is not None:
                arguments.curves.mkdir(parents=True, exist_ok=True)
                curve = pd.DataFrame(estimate.curve._asdict())
                curve.to_csv(arguments.curves / f"{folder.name}_{seed}.csv", index=False)


if __name__ == "__main__":
    main()
