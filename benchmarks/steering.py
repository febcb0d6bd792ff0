"""What a person in the loop adds: answers about images that are chosen, beside as many at random.

Reads features and labels of experiments, ``python -m benchmarks.steering results/caltech101 ...``.
Truth only answers. Images are clustered without labels first. Then, round after round, clusters
without a name are named after the class that most of their 8 surest images are of, which labels
their examples, right or wrong; 20 images are chosen and answered; and the recipe clusters again
with all that was said, through the marks and labels that ``unic again`` goes by. Beside it the
recipe clusters with as many labels of images drawn at random. Accuracy is that of all images, and
of those that have a label on neither side.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unic.evaluation.metrics import cluster_accuracy
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.recipe.clustering import fit
from unic.steering.board import Run
from unic.steering.marks import N_EXAMPLES, Marks
from unic.steering.suggestions import suggest_images
from unic.storage.stores import open_store

N_SHOWN = 8  # images by which a person names a cluster


class Images(NamedTuple):
    """Images of a set, and what a person would say of them."""

    features: NDArray[np.float32]  # (n, d)
    neighbors: NDArray[np.int64]  # (n, k)
    labels: NDArray[np.int64]  # (n,), true
    n_clusters: int


class Found(NamedTuple):
    """What the recipe says of all images."""

    run: Run
    confidences: NDArray[np.float32]  # (n, 2), of the two likeliest clusters


Strategy = Callable[[Marks, Found, Images, int], list[int]]


def choose_by_coverage(marks: Marks, _: Found, images: Images, n: int) -> list[int]:
    """As the package does."""
    return [each.row for each in suggest_images(marks.state, images.neighbors, n_suggested=n)]


def choose_unsure(marks: Marks, found: Found, _: Images, n: int) -> list[int]:
    """The smallest margins between the two likeliest clusters."""
    margins = found.confidences[:, 0] - found.confidences[:, 1]
    margins[[*marks.state.labels]] = np.inf
    return np.argsort(margins, kind="stable")[:n].tolist()


def choose_by_cluster(marks: Marks, __: Found, images: Images, n: int) -> list[int]:
    """The densest image of the cluster with the fewest labels, not beside a label (TypiClust)."""
    points = to_euclidean(images.features, "cosine")
    near = points[images.neighbors[:, 1:]]  # (n, k, d)
    distances = np.linalg.norm(near - points[:, None], axis=2).mean(axis=1)  # (n,)
    clusters, labeled = marks.state.clusters, np.zeros(len(points), dtype=bool)
    labeled[[*marks.state.labels]] = True
    chosen: list[int] = []
    for _ in range(n):
        counts = np.bincount(clusters[labeled], minlength=images.n_clusters)
        sizes = np.bincount(clusters[~labeled], minlength=images.n_clusters)
        order = np.lexsort([-sizes, counts, sizes == 0])
        is_free = (clusters == order[0]) & ~labeled
        beside = np.isin(np.arange(len(points)), images.neighbors[labeled])
        rows = np.flatnonzero(is_free & ~beside if (is_free & ~beside).any() else is_free)
        chosen.append(int(rows[distances[rows].argmin()]))
        labeled[chosen[-1]] = True
    return chosen


def choose_at_random(marks: Marks, found: Found, _: Images, n: int) -> list[int]:
    """Any images without a label; what is added is then by names alone."""
    rows = np.setdiff1d(np.arange(len(found.confidences)), [*marks.state.labels])
    generator = np.random.default_rng(marks.state.n_marks)
    return generator.choice(rows, n, replace=False).tolist()


STRATEGIES: Mapping[str, Strategy] = {
    "coverage": choose_by_coverage,
    "unsure": choose_unsure,
    "clusters": choose_by_cluster,
    "random": choose_at_random,
}


def read_images(folder: Path, n_images: int) -> Images:
    """Features and labels of a set, thinned to as many images of each class."""
    features = open_store(folder / "features.zarr", kind="features").read("features")
    labels = open_store(folder / "labels.zarr", kind="labels").read("labels")
    order = np.random.default_rng(0).permutation(len(labels))
    n_clusters = int(labels.max()) + 1
    if n_images < len(labels):
        of_class = [order[labels[order] == label] for label in range(n_clusters)]
        order = np.concatenate([rows[: n_images // n_clusters] for rows in of_class])
    rows = np.sort(order)
    points = to_euclidean(features[rows], "cosine")
    neighbors = mine_neighbors(points, n_neighbors=11, far_rank=None).indices
    return Images(features[rows], neighbors, labels[rows], n_clusters)


def cluster(images: Images, given: Mapping[int, str], seed: int) -> Found:
    """Cluster by the recipe; ``given`` are labels by row."""
    names = sorted({*given.values()})
    known = np.full(len(images.labels), -1)
    for row, name in given.items():
        known[row] = names.index(name)
    generator = torch.Generator().manual_seed(seed)
    fitted = fit(
        images.features, known_labels=known, n_clusters=images.n_clusters, generator=generator
    )
    clusters, confidences = fitted.model.predict_training().rank()
    ids = [f"{row}.png" for row in range(len(known))]
    run = Run(
        ids,
        clusters[:, 0],
        images.n_clusters,
        dict(enumerate(names)),
        {ids[row]: name for row, name in given.items()},
    )
    return Found(run, confidences)


def name_clusters(marks: Marks, surest: NDArray[np.int64], images: Images) -> None:
    """Name the clusters that have no name, as somebody would who sees the surest images."""
    clusters = marks.state.clusters[surest]
    for number in np.unique(clusters):
        if int(number) not in marks.state.names:
            shown = surest[clusters == number][:N_SHOWN]
            name = np.bincount(images.labels[shown]).argmax()
            marks.name_cluster(int(number), f"class {name:03d}", shown=shown.tolist())


def steer(
    images: Images, choose: Strategy, *, n_rounds: int, n_asked: int, n_examples: int, seed: int
) -> list[NDArray[np.float64]]:
    """Labels, accuracy of unlabeled ones and of all, and both at random, round by round."""
    found = cluster(images, {}, seed)
    first = 100 * cluster_accuracy(images.labels, found.run.clusters)
    scores = [np.array([0.0, first, first, first, first])]
    drawn = np.random.default_rng(seed).permutation(len(images.labels))
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(n_rounds):
            surest = np.argsort(-found.confidences[:, 0], kind="stable")
            marks = Marks(Path(folder), found.run, surest, n_examples=n_examples)
            if n_examples:
                name_clusters(marks, surest, images)
            for row in choose(marks, found, images, n_asked):
                marks.mark_images([row], f"class {images.labels[row]:03d}")
            given = marks.state.labels
            found = cluster(images, given, seed)
            rows = drawn[: len(given)]
            answers = {int(row): f"class {images.labels[row]:03d}" for row in rows}
            other = cluster(images, answers, seed)
            is_open = np.ones(len(drawn), dtype=bool)
            is_open[[*given, *rows]] = False
            both = [(which.run.clusters, is_open) for which in (found, other)]
            accuracies = [cluster_accuracy(images.labels[at], c[at]) for c, at in both]
            accuracies += [cluster_accuracy(images.labels, c) for c, _ in both]
            scores.append(np.array([len(given), *(100 * each for each in accuracies)]))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="such as results/caltech101")
    parser.add_argument("--images", type=int, default=4000, help="at most so many of a set")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=["coverage"])
    parser.add_argument("--examples", type=int, default=N_EXAMPLES, help="of a named cluster")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--asked", type=int, default=20, help="images in a round")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | chosen by | round | labels | unlabeled | at random | all | at random |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for folder in options.folders:
        images = read_images(folder, options.images)
        for strategy in options.strategies:
            seeds = []
            for seed in options.seeds:
                seeds.append(
                    steer(
                        images,
                        STRATEGIES[strategy],
                        n_rounds=options.rounds,
                        n_asked=options.asked,
                        n_examples=options.examples,
                        seed=seed,
                    )
                )
            for number, scores in enumerate(zip(*seeds, strict=True)):
                mean = np.mean(scores, axis=0)
                std = np.std(scores, axis=0, ddof=int(len(scores) > 1))
                cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean[1:], std[1:], strict=True)]
                name = f"{folder.name} ({len(images.labels):,})"
                print(
                    f"| {name} | {strategy} | {number} | {mean[0]:.0f} | {' | '.join(cells)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
