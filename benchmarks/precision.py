"""What another precision of the features changes: neighbors, clusters, and categories discovered.

Reads two experiments on the same images, one of which has ``backbone: {precision: bfloat16}``:
``python -m benchmarks.precision results/digits results/digits_bfloat16``. Clusters are the
recipe's; for discovery half of the images of the first half of the classes are labeled, drawn anew
for every seed, and All is of the other images.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unic.evaluation.metrics import cluster_accuracy, gcd_accuracy
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.recipe.clustering import fit
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import open_store

NUMBERS = (10, 50)


def share_neighbors(one: NDArray[np.float32], two: NDArray[np.float32]) -> list[float]:
    """Share of the k nearest of each image, itself left out, that both have."""
    lists = [
        mine_neighbors(to_euclidean(rows, "cosine"), n_neighbors=max(NUMBERS) + 1, far_rank=None)
        for rows in (one, two)
    ]
    shares = []
    for k in NUMBERS:
        left, right = (each.indices[:, 1 : k + 1] for each in lists)  # (n, k)
        pairs = zip(left, right, strict=True)
        shares.append(float(np.mean([len(np.intersect1d(a, b)) / k for a, b in pairs])))
    return shares


def cluster(
    features: NDArray[np.float32], labels: NDArray[np.int64], known: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    fitted = fit(
        features,
        known_labels=known,
        n_clusters=int(labels.max()) + 1,
        generator=torch.Generator().manual_seed(seed),
    )
    return fitted.model.predict_training().probs.argmax(1).numpy()


def score(features: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> list[float]:
    """ACC without labels, and All with some, percent."""
    nothing = np.full(len(labels), UNKNOWN)
    acc = cluster_accuracy(labels, cluster(features, labels, nothing, seed))
    is_old = labels < (int(labels.max()) + 1) // 2
    is_known = is_old & (np.random.default_rng(seed).random(len(labels)) < 0.5)
    known = np.where(is_known, labels, UNKNOWN)
    found = cluster(features, labels, known, seed)[~is_known]
    every = gcd_accuracy(labels[~is_known], found, is_old=is_old[~is_known]).all
    return [100 * acc, 100 * every]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs=2)
    parser.add_argument("--images", type=int, default=4000, help="at most so many")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    labels = open_store(options.folders[0] / "labels.zarr", kind="labels").read("labels")
    rows = np.sort(np.random.default_rng(0).permutation(len(labels))[: options.images])
    stores = [open_store(folder / "features.zarr", kind="features") for folder in options.folders]
    sets = [store.read("features")[rows] for store in stores]
    shares = share_neighbors(*sets)
    equal = ", ".join(f"{100 * s:.2f} % at k = {k}" for k, s in zip(NUMBERS, shares, strict=True))
    print(f"{options.folders[0].name}, {len(rows):,} images: equal neighbors {equal}")
    print("| features | ACC | All |\n|---|---|---|")
    for store, features in zip(stores, sets, strict=True):
        scores = np.array([score(features, labels[rows], s) for s in range(options.seeds)])
        cells = (
            f"{mean:.1f} ± {std:.1f}"
            for mean, std in zip(scores.mean(0), scores.std(0, ddof=1), strict=True)
        )
        engine = store.parameters("features")["engine"]
        print(f"| {engine} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
