"""What a few labels of half of the classes add to the recipe.

Reads features and labels of experiments, ``python -m benchmarks.few_labels results/digits ...``.
Of the first half of the classes 0, 5 or 20 images each are labeled, drawn anew for every seed; All,
Old and New are of the training images that are labeled in none of the three cases.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unic.evaluation.metrics import gcd_accuracy
from unic.recipe.clustering import fit
from unic.storage.stores import open_store

NUMBERS = (0, 5, 20)


def draw(labels: NDArray[np.int64], n_old: int, seed: int) -> NDArray[np.int64]:
    """Rank of each image among those of its class, in a random order; -1 for new classes."""
    ranks = np.full(len(labels), -1)
    order = np.random.default_rng(seed).permutation(len(labels))
    for label in range(n_old):
        rows = order[labels[order] == label]
        ranks[rows] = np.arange(len(rows))
    return ranks


def run(
    features: NDArray[np.float32], labels: NDArray[np.int64], n_labels: int, seed: int
) -> NDArray[np.float64]:
    """All, Old and New of the images that no case labels, percent."""
    n_classes = int(labels.max()) + 1
    n_old = n_classes // 2
    ranks = draw(labels, n_old, seed)
    known = np.where((ranks >= 0) & (ranks < n_labels), labels, -1)
    fitted = fit(
        features,
        known_labels=known,
        n_clusters=n_classes,
        generator=torch.Generator().manual_seed(seed),
    )
    clusters = fitted.model.predict_training().probs.argmax(1).numpy()
    most = max(NUMBERS)
    scored = (ranks < 0) | (ranks >= most)
    found = gcd_accuracy(labels[scored], clusters[scored], is_old=labels[scored] < n_old)
    return 100 * np.array([found.all, found.old, found.new])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="such as results/digits")
    parser.add_argument("--images", type=int, default=4000, help="at most so many of a set")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | labels a class | All | Old | New |\n|---|---|---|---|---|", flush=True)
    for folder in options.folders:
        features = open_store(folder / "features.zarr", kind="features").read("features")
        labels = open_store(folder / "labels.zarr", kind="labels").read("labels")
        rows = np.sort(np.random.default_rng(0).permutation(len(labels))[: options.images])
        for n_labels in NUMBERS:
            scores = np.stack(
                [run(features[rows], labels[rows], n_labels, s) for s in range(options.seeds)]
            )
            cells = (
                f"{mean:.1f} ± {std:.1f}"
                for mean, std in zip(scores.mean(0), scores.std(0, ddof=1), strict=True)
            )
            name = f"{folder.name} ({len(rows):,})"
            print(f"| {name} | {n_labels} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
