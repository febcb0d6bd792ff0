"""What finetuning the last block adds to the recipe without settings, a second of processor.

Reads images and features of an experiment, ``python -m benchmarks.last_block results/digits``. A
linear head first learns the recipe's clusters; then head and last block are trained on positives
and entropy (UNIC, Eqs. 6 and 8), with and without negatives, on views without augmentation. ACC of
test images; labels are read for it alone.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from unic.baselines.methods import MethodInputs
from unic.evaluation.metrics import cluster_accuracy
from unic.images.datasets import open_images
from unic.images.index import read_index, read_source
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.heads import LinearHead
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.recipe.clustering import cluster
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import open_store, read_splits
from unic.training.step import FinetuningSettings, Trainer

BATCH_SIZE = 256
N_NEIGHBORS = 10
CPU = torch.device("cpu")
Splits = dict[str, NDArray[np.float32]]


class Data(NamedTuple):
    """Images, frozen features and labels of both splits."""

    loaders: dict[str, ViewLoader]
    features: Splits
    labels: dict[str, NDArray[np.int64]]
    n_clusters: int


def read(folder: Path, view: View, n_images: int | None) -> Data:
    """The images of an experiment; of the training images some."""
    ids, source = read_index(folder / "images.parquet"), read_source(folder / "images.parquet")
    features = read_splits(open_store(folder / "features.zarr", kind="features"), "features")
    labels = read_splits(open_store(folder / "labels.zarr", kind="labels"), "labels")
    rows = {split: np.arange(len(split_ids)) for split, split_ids in ids.items()}
    if n_images is not None:
        drawn = np.random.default_rng(0).permutation(rows["train"])[:n_images]
        rows["train"] = np.sort(drawn)
        rows["test"] = rows["test"][: n_images // 2]
    loaders = {
        split: ViewLoader(
            open_images(source.name, [ids[split][row] for row in kept], root=source.root), view
        )
        for split, kept in rows.items()
    }
    return Data(
        loaders,
        {split: features[split][kept] for split, kept in rows.items()},
        {split: labels[split][kept] for split, kept in rows.items()},
        int(labels["train"].max()) + 1,
    )


def run_recipe(data: Data, seed: int) -> dict[str, NDArray[np.int64]]:
    """Clusters of both splits by the recipe without settings."""
    n_images = len(data.features["train"])
    own = np.repeat(np.arange(n_images)[:, None], 2, axis=1)
    found = cluster(
        MethodInputs(data.features, own, np.full(n_images, UNKNOWN)),
        n_clusters=data.n_clusters,
        generator=torch.Generator().manual_seed(seed),
        device=CPU,
    )
    return {split: clusters for split, (clusters, _) in found.items()}


def learn(head: LinearHead, features: NDArray[np.float32], clusters: NDArray[np.int64]) -> None:
    """Let a head learn given clusters of frozen features by cross-entropy."""
    rows, targets = torch.from_numpy(features), torch.from_numpy(clusters)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss = cross_entropy(head(rows), targets)
        loss.backward()
        optimizer.step()


def finetune(
    data: Data, backbone: Backbone, head: LinearHead, settings: FinetuningSettings, seed: int
) -> None:
    """Train the head and the last block, a neighbor an anchor, far images of the batch."""
    features = data.features["train"]
    generator = np.random.default_rng(seed)
    normalized = to_euclidean(features, "cosine")
    mined = mine_neighbors(normalized, n_neighbors=N_NEIGHBORS + 1, far_rank=len(normalized) // 10)
    unknown = np.full(len(normalized), UNKNOWN)
    far_pairs = FarPairs(normalized, mined.far_radius, known_labels=unknown)
    n_batches = max(1, len(features) // BATCH_SIZE)
    backbone.set_trainable("last_block")
    trainer = Trainer(backbone, [head], settings, n_batches)
    for _ in range(settings.epochs):
        order = generator.permutation(len(features))
        for anchors in np.array_split(order, n_batches):
            ranks = generator.integers(1, N_NEIGHBORS + 1, size=len(anchors))
            rows = np.concatenate([anchors, mined.indices[anchors, ranks]])
            images = next(data.loaders["train"].batches([rows], generator))
            with torch.no_grad():
                output = backbone.prepare(images)
            trainer.train(output, 2, far_pairs.is_far(anchors))


@torch.no_grad()
def score(data: Data, backbone: Backbone, head: LinearHead) -> float:
    """ACC of the test images, percent."""
    batches: Sequence[NDArray[np.int64]] = np.array_split(
        np.arange(len(data.labels["test"])), max(1, len(data.labels["test"]) // BATCH_SIZE)
    )
    views = data.loaders["test"].batches(batches, np.random.default_rng(0))
    found = np.concatenate([head(backbone(images)).argmax(1).numpy() for images in views])
    return 100.0 * cluster_accuracy(data.labels["test"], found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of an experiment, such as results/digits")
    parser.add_argument("--backbone", default="test_resnet", help="that its features are of")
    parser.add_argument("--weights", default="bundled:digits_test_resnet")
    parser.add_argument("--same-padding", action="store_true", help="pad_type same of timm")
    parser.add_argument("--size", type=int, default=32, help="of the images, pixels")
    parser.add_argument("--crop", type=float, default=1.0)
    parser.add_argument("--n", type=int, help="training images, drawn at random; all without it")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    view = View(arguments.size, arguments.crop, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    data = read(arguments.folder, view, arguments.n)
    options = {"pad_type": "same"} if arguments.same_padding else {}
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        start = time.process_time()
        clusters = run_recipe(data, seed)
        acc = 100.0 * cluster_accuracy(data.labels["test"], clusters["test"])
        rows.setdefault("the recipe", []).append((acc, time.process_time() - start))
        for weight in (0.0, 1.0):
            backbone = load_backbone(
                arguments.backbone,
                weights=arguments.weights,
                options=options,
                image_size=arguments.size,
            )
            generator = torch.Generator().manual_seed(seed)
            head = LinearHead(data.features["train"].shape[1], data.n_clusters, generator=generator)
            settings = FinetuningSettings(
                trainable="last_block",
                epochs=arguments.epochs,
                batch_size=BATCH_SIZE,
                learning_rate=arguments.rate,
                weight_decay=0.0,
                lambda_pos=1.0,
                lambda_neg=weight,
                lambda_ent=3.0,
            )
            start = time.process_time()
            learn(head, data.features["train"], clusters["train"])
            if weight == 0.0:
                spent = time.process_time() - start
                learned = rows.setdefault("a head that learned its clusters", [])
                learned.append((score(data, backbone, head), spent))
            finetune(data, backbone, head, settings, seed)
            spent = time.process_time() - start
            name = f"the last block after it, negatives {weight:g}"
            rows.setdefault(name, []).append((score(data, backbone, head), spent))
    print("| | ACC | processor s | points a minute over the recipe |\n|---|---|---|---|")
    base = np.mean([acc for acc, _ in rows["the recipe"]])
    for name, found in rows.items():
        accs, spent = np.array(found).T
        gain = 60.0 * (accs.mean() - base) / spent.mean()
        print(
            f"| {name} | {accs.mean():.2f} ± {accs.std():.2f} | {spent.mean():.1f} | {gain:.2f} |"
        )


if __name__ == "__main__":
    main()
