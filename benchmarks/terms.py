"""When negatives and cleaning help: heads on frozen features, with noise planted in the neighbors.

Reads the features and labels of an experiment, ``python -m benchmarks.terms results/digits``. Each
head is linear, on partly whitened features, trained by Adam on batches of 512 with one neighbor an
anchor; ACC of the training images, mean over seeds. Labels are read for these figures alone.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from unic.evaluation.metrics import cluster_accuracy
from unic.neighbors.cleaning import clean_neighbors
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.mining import mine_neighbors
from unic.recipe.heads import start_heads
from unic.recipe.partitions import spherical_kmeans
from unic.recipe.spaces import find_directions
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import open_store, read_splits
from unic.training.losses import batch_negative_loss, entropy_loss, positive_loss

N_NEIGHBORS = 10
BATCH_SIZE = 512
STEPS = {"random": 400, "k-means": 100}
CLEANINGS = ("none", "union, keep", "union, leave out", "mutual", "two steps")
NOISES = (0.0, 0.2, 0.4, 0.6)
LAMBDAS = (0.0, 1.0, 3.0, 10.0)


class Data(NamedTuple):
    """Images, their neighbors, and what is true of them."""

    points: Tensor  # (n, r), of unit length
    neighbors: NDArray[np.int64]  # (n, 1 + k), the image first
    labels: NDArray[np.int64]  # (n,)
    far_pairs: FarPairs  # beyond a tenth of all images
    n_clusters: int


class Positives(NamedTuple):
    """Which images are anchors, and what is positive for each."""

    anchors: NDArray[np.int64]  # (a,), the images that have positives
    lists: NDArray[np.int64]  # (n, k), positives; an image stands for itself where it has fewer


class Setting(NamedTuple):
    """A cell of the map."""

    noise: float
    cleaning: str
    start: str
    lambda_neg: float
    lambda_ent: float


def read(folder: Path, n_images: int | None) -> Data:
    """The training images of an experiment, or some of them."""
    features = read_splits(open_store(folder / "features.zarr", kind="features"), "features")
    labels = read_splits(open_store(folder / "labels.zarr", kind="labels"), "labels")
    rows = np.arange(len(labels["train"]))
    if n_images is not None:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:n_images])
    train = features["train"][rows]
    points = find_directions(train).transform(train, whitening=0.25)
    mined = mine_neighbors(points, n_neighbors=N_NEIGHBORS + 1, far_rank=len(rows) // 10)
    unknown = np.full(len(rows), UNKNOWN)
    far_pairs = FarPairs(points, mined.far_radius, known_labels=unknown)
    truth = labels["train"][rows]
    return Data(torch.from_numpy(points), mined.indices, truth, far_pairs, int(truth.max()) + 1)


def plant(data: Data, noise: float, seed: int) -> NDArray[np.int64]:
    """Neighbors of which a share is replaced by random images."""
    generator = np.random.default_rng(seed)
    lists = data.neighbors.copy()
    is_wrong = generator.random(lists.shape) < noise
    is_wrong[:, 0] = False
    lists[is_wrong] = generator.integers(len(lists), size=int(is_wrong.sum()))
    return lists


def clean(lists: NDArray[np.int64], cleaning: str) -> Positives:
    """Positives by one of several kinds of cleaning."""
    n_images, everyone = len(lists), np.arange(len(lists))
    if cleaning.startswith("union"):
        unknown = np.full(n_images, UNKNOWN)
        kept = clean_neighbors(lists, quantile=0.8, known_labels=unknown).is_clean
        own = np.repeat(everyone[:, None], N_NEIGHBORS, axis=1)
        is_left_out = cleaning == "union, leave out"
        anchors = np.flatnonzero(kept) if is_left_out else everyone
        return Positives(anchors, np.where(kept[:, None], lists[:, 1:], own))
    if cleaning == "mutual":
        is_mutual = (lists[lists[:, 1:]] == everyone[:, None, None]).any(axis=2)  # (n, k)
        return Positives(everyone, np.where(is_mutual, lists[:, 1:], everyone[:, None]))
    if cleaning == "two steps":
        found = np.empty((n_images, N_NEIGHBORS), dtype=np.int64)
        for image in everyone:
            reached, counts = np.unique(lists[lists[image]], return_counts=True)
            counts = np.where(reached == image, 0, counts)
            best = reached[np.argsort(-counts, kind="stable")[:N_NEIGHBORS]]
            found[image] = np.resize(best, N_NEIGHBORS)
        return Positives(everyone, found)
    return Positives(everyone, lists[:, 1:])


def train(data: Data, positives: Positives, setting: Setting, seed: int) -> float:
    """Train a head; return its accuracy on the training images."""
    generator = torch.Generator().manual_seed(seed)
    points, n_clusters = data.points, data.n_clusters
    weights = 0.01 * torch.randn(n_clusters, points.shape[1], generator=generator)
    if setting.start == "k-means":
        clusters = spherical_kmeans(
            points.numpy(), n_clusters=n_clusters, n_runs=1, generator=generator
        )  # (1, n)
        weights = start_heads(points.numpy(), clusters, n_clusters).weights[0]
    weights.requires_grad_()
    n_steps = STEPS[setting.start]
    optimizer = torch.optim.Adam([weights], lr=0.1 if setting.start == "random" else 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    pool = torch.from_numpy(positives.anchors)
    lists = torch.from_numpy(positives.lists)
    for _ in range(n_steps):
        anchors = pool[torch.randint(len(pool), (BATCH_SIZE,), generator=generator)]
        ranks = torch.randint(lists.shape[1], (BATCH_SIZE,), generator=generator)
        log_probs = (points[anchors] @ weights.T).log_softmax(1)
        partners = (points[lists[anchors, ranks]] @ weights.T).log_softmax(1)
        loss = positive_loss(log_probs, partners)
        loss = loss + setting.lambda_ent * entropy_loss(log_probs)
        if setting.lambda_neg:
            is_far = data.far_pairs.is_far(anchors.numpy())
            loss = loss + setting.lambda_neg * batch_negative_loss(log_probs, is_far)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    found = (points @ weights.detach().T).argmax(1).numpy()
    return 100.0 * cluster_accuracy(data.labels, found)


def grid() -> Iterator[Setting]:
    """All kinds of cleaning under noise, with and without negatives; then weights of terms."""
    for noise, cleaning, start, negative in product(NOISES, CLEANINGS, STEPS, (0.0, 5.0)):
        yield Setting(noise, cleaning, start, negative, 3.0)
    for weight, start, negative in product(LAMBDAS, STEPS, (0.0, 1.0, 5.0)):
        if (weight, negative) not in ((3.0, 0.0), (3.0, 5.0)):
            yield Setting(0.0, "none", start, negative, weight)


def measure(data: Data, n_seeds: int) -> pd.DataFrame:
    """A row for every setting: its values, ``mean`` and ``std`` of ACC in percent."""

    @cache
    def find_positives(noise: float, cleaning: str, seed: int) -> Positives:
        return clean(plant(data, noise, seed), cleaning)

    records = []
    for setting in grid():
        scores = [
            train(data, find_positives(setting.noise, setting.cleaning, seed), setting, seed)
            for seed in range(n_seeds)
        ]
        records.append(setting._asdict() | {"mean": np.mean(scores), "std": np.std(scores)})
    return pd.DataFrame(records)


def print_tables(data: Data, found: pd.DataFrame) -> None:
    """Purity by rank, accuracy by noise, accuracy by the weights of entropy and negatives."""
    purity = (data.labels[data.neighbors[:, 1:]] == data.labels[:, None]).mean(axis=0)
    print("purity of neighbors 1 to 10: " + ", ".join(f"{share:.2f}" for share in purity))
    by_noise = found[found["lambda_ent"] == 3.0]
    by_noise = by_noise[by_noise["lambda_neg"] != 1.0]
    print(f"\n| start | negatives | cleaning | {' | '.join(f'noise {n:.0%}' for n in NOISES)} |")
    print("|---" * (3 + len(NOISES)) + "|")
    for (start, negative, cleaning), rows in by_noise.groupby(
        ["start", "lambda_neg", "cleaning"], sort=False
    ):
        cells = [f"{r.mean:.1f} ± {r.std:.1f}" for r in rows.itertuples(index=False, name="Row")]
        print(f"| {start} | {negative:g} | {cleaning} | {' | '.join(cells)} |")
    plain = found[(found["noise"] == 0.0) & (found["cleaning"] == "none")]
    print(f"\n| start | negatives | {' | '.join(f'entropy {w:g}' for w in LAMBDAS)} |")
    print("|---" * (2 + len(LAMBDAS)) + "|")
    for (start, negative), rows in plain.groupby(["start", "lambda_neg"]):
        means = rows.set_index("lambda_ent")["mean"]
        cells = [f"{means[w]:.1f}" if w in means else "" for w in LAMBDAS]
        print(f"| {start} | {negative:g} | {' | '.join(cells)} |")


def plot(found: pd.DataFrame, path: Path) -> None:
    """A panel a start: accuracy by noise, a line a kind of cleaning, dashed with negatives."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(STEPS), sharey=True)
    for axes, start in zip(panels, STEPS, strict=True):
        for number, cleaning in enumerate(CLEANINGS):
            for negative, style in ((0.0, "-"), (5.0, "--")):
                rows = found[
                    (found["start"] == start)
                    & (found["cleaning"] == cleaning)
                    & (found["lambda_neg"] == negative)
                    & (found["lambda_ent"] == 3.0)
                ]
                label = cleaning if negative == 0.0 else None
                axes.plot(rows["noise"], rows["mean"], style, color=f"C{number}", label=label)
        axes.set_title(f"start: {start}")
        axes.set_xlabel("share of neighbors replaced")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("ACC, percent (dashed: negatives of weight 5)")
    panels[0].legend(frameon=False, title="cleaning")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of an experiment, such as results/digits")
    parser.add_argument("--n", type=int, help="images, drawn at random; all without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="a PNG file for the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = read(arguments.folder, arguments.n)
    found = measure(data, arguments.seeds)
    print_tables(data, found)
    if arguments.plot is not None:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
