"""How well scores without labels tell good clusterings from bad ones.

Reads the features and labels of experiments,
``python -m benchmarks.label_free results/digits results/caltech101 results/cifar10_jpeg``. Many
clusterings of each set, of several methods, seeds and numbers of clusters, of parts of the images,
and spoiled ones, are scored by ``unic.quality.scores``; how the scores rank them is compared with
ACC, within each set. Labels are read for ACC alone.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.baselines.methods import MethodInputs
from unic.baselines.spectral import embed_units, join_neighbors
from unic.baselines.ward import merge
from unic.evaluation.metrics import cluster_accuracy
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.quality.agreements import measure_stability
from unic.quality.scores import (
    COMBINED_WITH_RUNS,
    SCORES,
    Quality,
    combine,
    measure_silhouette,
    score_clusters,
)
from unic.recipe.clustering import cluster as run_recipe
from unic.recipe.heads import SCALE, Heads, Training, start_heads, train_heads
from unic.recipe.partitions import spherical_kmeans, tied_mixture
from unic.recipe.spaces import find_directions
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import open_store, read_splits

N_NEIGHBORS = 10
WHITENING = 0.25
SEEDS = (0, 1, 2)
STEPS = (20, 60, 200)  # of heads from random weights
WRONG = (0.05, 0.1, 0.2, 0.35, 0.5)  # shares of images that are dealt to random clusters
MERGED = (1, 2, 3)  # pairs of clusters that are merged, while as many large ones are halved
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)  # of the true number of clusters
CPU = torch.device("cpu")
Clusters = NDArray[np.int64]
Method = Callable[["Data", int, int], Clusters]


class Data(NamedTuple):
    """Images, what is known of them, and what is true."""

    features: NDArray[np.float32]  # (n, d)
    plain: NDArray[np.float32]  # (n, d), of unit length
    points: NDArray[np.float32]  # (n, r), partly whitened, of unit length
    neighbors: NDArray[np.int64]  # (n, 1 + k) of the points, the image first
    labels: Clusters  # (n,)
    n_classes: int


class Run(NamedTuple):
    """A clustering, and others of the same kind by other seeds."""

    kind: str  # method, part, spoiled
    name: str
    n_clusters: int
    clusters: Clusters  # (n,)
    confidence: NDArray[np.float32]  # (n,)
    others: Sequence[Clusters]
    stability: float


def read(folder: Path, n_images: int) -> Data:
    """The training images of an experiment, at most so many, drawn at random."""
    features = read_splits(open_store(folder / "features.zarr", kind="features"), "features")
    labels = read_splits(open_store(folder / "labels.zarr", kind="labels"), "labels")
    rows = np.random.default_rng(0).permutation(len(labels["train"]))[:n_images]
    return prepare(features["train"][np.sort(rows)], labels["train"][np.sort(rows)])


def prepare(features: NDArray[np.float32], labels: Clusters) -> Data:
    points = find_directions(features).transform(features, whitening=WHITENING)
    mined = mine_neighbors(points, n_neighbors=N_NEIGHBORS + 1, far_rank=None)
    plain = to_euclidean(features, "cosine")
    return Data(features, plain, points, mined.indices, labels, int(labels.max()) + 1)


def take(data: Data, rows: NDArray[np.int64]) -> Data:
    """Some of the images, as if there were no others."""
    return prepare(data.features[rows], data.labels[rows])._replace(n_classes=data.n_classes)


def kmeans(data: Data, n_clusters: int, seed: int, *, space: str, n_restarts: int) -> Clusters:
    rows = getattr(data, space)
    fit = fit_kmeans(
        rows, n_clusters=n_clusters, n_restarts=n_restarts, generator=seeded(seed), device=CPU
    )
    return assign_clusters(rows, fit.centers)


def spherical(data: Data, n_clusters: int, seed: int, *, space: str) -> Clusters:
    rows = getattr(data, space)
    return spherical_kmeans(rows, n_clusters=n_clusters, n_runs=1, generator=seeded(seed))[0]


def ward(data: Data, n_clusters: int, seed: int, *, n_dims: int) -> Clusters:  # noqa: ARG001
    return merge(data.points[:, :n_dims], n_clusters)


def spectral(data: Data, n_clusters: int, seed: int) -> Clusters:
    rows = embed_units(join_neighbors(data.neighbors), n_clusters)
    return spherical_kmeans(rows, n_clusters=n_clusters, n_runs=1, generator=seeded(seed))[0]


def mixture(data: Data, n_clusters: int, seed: int) -> Clusters:
    return tied_mixture(data.points, n_clusters=n_clusters, generator=seeded(seed))


def recipe(data: Data, n_clusters: int, seed: int) -> Clusters:
    unknown = np.full(len(data.features), UNKNOWN)
    inputs = MethodInputs({"train": data.features}, data.neighbors, unknown)
    found = run_recipe(inputs, n_clusters=n_clusters, generator=seeded(seed), device=CPU)
    return found["train"][0]


def head(data: Data, n_clusters: int, seed: int, *, n_steps: int) -> Clusters:
    """A head that starts from random weights, and may end before it has learned anything."""
    generator = seeded(seed)
    weights = 0.1 * torch.randn(1, n_clusters, data.points.shape[1], generator=generator)
    trained = train_heads(
        Heads(weights, torch.zeros(1, n_clusters)),
        data.points,
        data.neighbors[:, 1:],
        priors=np.full((1, n_clusters), 1.0 / n_clusters, dtype=np.float32),
        known_labels=np.full(len(data.points), UNKNOWN),
        settings=Training(n_steps=n_steps, learning_rate=0.1),
        generator=generator,
    )
    return trained.predict(data.points)[:, 0].argmax(1).numpy()


METHODS: dict[str, tuple[Method, Sequence[int]]] = {
    "k-means, raw": (partial(kmeans, space="features", n_restarts=1), SEEDS),
    "k-means, unit length": (partial(kmeans, space="plain", n_restarts=1), SEEDS),
    "k-means, whitened": (partial(kmeans, space="points", n_restarts=3), SEEDS),
    "spherical k-means": (partial(spherical, space="plain"), SEEDS),
    "spherical k-means, whitened": (partial(spherical, space="points"), SEEDS),
    "Ward, 16 directions": (partial(ward, n_dims=16), SEEDS[:1]),
    "Ward, 64 directions": (partial(ward, n_dims=64), SEEDS[:1]),
    "spectral": (spectral, SEEDS),
    "tied mixture": (mixture, SEEDS),
    "consensus": (recipe, SEEDS[:2]),
    **{f"head, {n} steps": (partial(head, n_steps=n), SEEDS) for n in STEPS},
}
CHEAP = ("k-means, unit length", "spherical k-means, whitened", "Ward, 64 directions", "spectral")
SPOILED = ("spherical k-means, whitened", "spectral", "consensus")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def deal(clusters: Clusters, n_clusters: int, share: float, seed: int) -> Clusters:
    """Put a share of the images into random clusters."""
    generator = np.random.default_rng(seed)
    is_dealt = generator.random(len(clusters)) < share
    return np.where(is_dealt, generator.integers(n_clusters, size=len(clusters)), clusters)


def merge_and_halve(data: Data, clusters: Clusters, n_clusters: int, n_pairs: int) -> Clusters:
    """Merge the nearest pairs of clusters, and halve the largest others: wrong, but not ragged."""
    found = clusters.copy()
    heads = start_heads(data.points, clusters[None], n_clusters)
    cosines = (heads.weights[0] @ heads.weights[0].T).numpy() / SCALE**2  # (c, c)
    np.fill_diagonal(cosines, -np.inf)
    touched: set[int] = set()
    for _ in range(n_pairs):
        open_ones = np.array([c for c in range(n_clusters) if c not in touched])
        if len(open_ones) < 3:
            break
        among = cosines[np.ix_(open_ones, open_ones)]
        one, other = open_ones[list(np.unravel_index(among.argmax(), among.shape))].tolist()
        found[found == other] = one
        touched |= {one, other}
        sizes = np.bincount(found, minlength=n_clusters)
        sizes[list(touched)] = -1
        large = int(sizes.argmax())
        touched.add(large)
        rows = np.flatnonzero(found == large)
        parts = spherical_kmeans(data.points[rows], n_clusters=2, n_runs=1, generator=seeded(0))[0]
        found[rows[parts == 1]] = other
    return found


def find_confidence(
    points: NDArray[np.float32], clusters: Clusters, n_clusters: int
) -> NDArray[np.float32]:
    """Probability of each image's cluster by the cosines to the means of all, for every method."""
    probs = start_heads(points, clusters[None], n_clusters).predict(points)[:, 0]
    return probs.numpy()[np.arange(len(points)), clusters].clip(0.0, 1.0)


def halves_agree(data: Data, method: Method, n_clusters: int, seed: int) -> float:
    """Stability of a method where means of clusters stand for what it learned from a half."""

    def learn(rows: NDArray[np.int64]) -> Clusters:
        half = Data(*(array[rows] for array in data[:3]), data.neighbors, data.labels, 0)
        near = mine_neighbors(half.points, n_neighbors=N_NEIGHBORS + 1, far_rank=None).indices
        clusters = method(half._replace(neighbors=near), n_clusters, seed)
        means = start_heads(half.points, clusters[None], n_clusters)
        return means.predict(data.points)[:, 0].argmax(1).numpy()

    return measure_stability(
        learn, n_images=len(data.points), n_clusters=n_clusters, seed=seed
    ).kappa


def group(
    data: Data,
    kind: str,
    name: str,
    n_clusters: int,
    found: Sequence[Clusters],
    stabilities: Sequence[float] | None = None,
) -> Iterator[Run]:
    """Runs that differ in their seed alone."""
    for position, clusters in enumerate(found):
        others = [*found[:position], *found[position + 1 :]]
        confidence = find_confidence(data.points, clusters, n_clusters)
        stability = np.nan if stabilities is None else stabilities[position]
        yield Run(kind, name, n_clusters, clusters, confidence, others, stability)


def cluster_all(data: Data) -> Iterator[tuple[Data, Run]]:
    """All clusterings of a set by the true number of clusters."""
    n_clusters = data.n_classes
    by_method = {}
    for name, (method, seeds) in METHODS.items():
        by_method[name] = [method(data, n_clusters, seed) for seed in seeds]
        stabilities = None
        if method is not recipe:  # which takes long
            stabilities = [halves_agree(data, method, n_clusters, seed) for seed in seeds]
        for run in group(data, "method", name, n_clusters, by_method[name], stabilities):
            yield data, run
    for name in SPOILED:
        for share in WRONG:
            spoiled = [
                deal(clusters, n_clusters, share, seed)
                for seed, clusters in enumerate(by_method[name][:2])
            ]
            for run in group(data, "spoiled", f"{name}, {share:.0%} dealt", n_clusters, spoiled):
                yield data, run
        for n_pairs in MERGED:
            merged = [
                merge_and_halve(data, clusters, n_clusters, n_pairs)
                for clusters in by_method[name][:2]
            ]
            for run in group(data, "spoiled", f"{name}, {n_pairs} merged", n_clusters, merged):
                yield data, run
    for seed in SEEDS[:2]:
        rows = np.random.default_rng(seed).permutation(len(data.labels))[: len(data.labels) // 2]
        part = take(data, np.sort(rows))
        for name in CHEAP:
            method, seeds = METHODS[name]
            found = [method(part, n_clusters, seed) for seed in seeds[:2]]
            for run in group(part, "part", f"{name}, part {seed}", n_clusters, found):
                yield part, run


def cluster_by_counts(data: Data) -> Iterator[tuple[Data, Run]]:
    """Clusterings by several numbers of clusters."""
    for factor in FACTORS:
        n_clusters = max(2, round(factor * data.n_classes))
        for name in CHEAP:
            method, seeds = METHODS[name]
            found = [method(data, n_clusters, seed) for seed in seeds]
            stabilities = [halves_agree(data, method, n_clusters, seed) for seed in seeds]
            for run in group(data, f"K x {factor:g}", name, n_clusters, found, stabilities):
                yield data, run


def score(data: Data, run: Run) -> Quality:
    """Scores of a run, and some that are tried here."""
    found = score_clusters(
        run.clusters,
        run.confidence,
        features=data.plain,
        neighbors=data.neighbors,
        n_clusters=run.n_clusters,
        other_runs=run.others,
    )
    whitened = measure_silhouette(run.clusters, data.points, n_clusters=run.n_clusters).overall
    worst = {
        f"{name}, worst cluster": float(np.nanmin(found.by_cluster[name]))
        for name in ("neighbor_agreement_adjusted", "isolation", "silhouette")
    }
    extra = {"silhouette, whitened": whitened, "stability": run.stability, **worst}
    return Quality(dict(found.overall) | extra, found.by_cluster)


def measure(name: str, runs: Iterator[tuple[Data, Run]]) -> pd.DataFrame:
    """A row for every run: what it is, its scores, and ACC."""
    qualities, records = [], []
    for data, run in runs:
        quality = score(data, run)
        acc = cluster_accuracy(data.labels, run.clusters)
        records.append({"set": name, "kind": run.kind, "run": run.name, "acc": acc})
        records[-1] |= dict(quality.overall)
        qualities.append(quality)
    found = pd.DataFrame(records).assign(combined=combine(qualities))
    has_runs = found["run_ari"].notna()  # not of methods that every seed does the same
    with_runs = [each for each, kept in zip(qualities, has_runs, strict=True) if kept]
    found.loc[has_runs, "combined, with runs"] = combine(with_runs, names=COMBINED_WITH_RUNS)
    return found


def correlate(
    records: pd.DataFrame, score_name: str, measure_ranks: Callable[..., object]
) -> float:
    """Rank correlation of a score with ACC, its sign turned where lower is better."""
    used = records[records[score_name].notna()]
    if len(used) < 5 or used[score_name].nunique() < 2:
        return np.nan
    found = float(measure_ranks(used[score_name], used["acc"]).statistic)  # type: ignore[attr-defined]
    is_lower_better = score_name in SCORES and SCORES[score_name].is_higher_better is False
    return -found if is_lower_better else found


def print_table(title: str, records: pd.DataFrame) -> None:
    """A row for every score: rank correlations with ACC, within sets and over all."""
    sets = records["set"].unique()
    about = ["set", "kind", "run", "acc"]
    names = [name for name in records if name not in about and records[name].nunique() > 1]
    counts = ", ".join(f"{name} {(records['set'] == name).sum()}" for name in sets)
    print(f"\n{title}: {len(records)} runs ({counts})\n")
    print(f"| score | {' | '.join(sets)} | mean | over all sets | Kendall, mean |")
    print("|---" * (len(sets) + 4) + "|")
    rows = []
    for name in names:
        within = [correlate(records[records["set"] == each], name, spearmanr) for each in sets]
        kendall = [correlate(records[records["set"] == each], name, kendalltau) for each in sets]
        over = correlate(records, name, spearmanr)
        rows.append((name, [*within, np.nanmean(within), over, np.nanmean(kendall)]))
    for name, values in sorted(rows, key=lambda row: -row[1][-3]):
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of experiments: results/digits")
    parser.add_argument("--n", type=int, default=3000, help="images of a set, drawn at random")
    parser.add_argument("--csv", type=Path, help="a file for the scores of every run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    true_count, counts = [], []
    for folder in arguments.folders:
        data = read(folder, arguments.n)
        true_count.append(measure(folder.name, cluster_all(data)))
        counts.append(measure(folder.name, cluster_by_counts(data)))
        print(f"{folder.name}: {len(true_count[-1]) + len(counts[-1])} runs", flush=True)
    records, by_count = pd.concat(true_count), pd.concat(counts)
    print_table("The true number of clusters", records)
    print_table("Of these, methods as they are", records[records["kind"] == "method"])
    print_table("Half to twice the true number", by_count)
    if arguments.csv is not None:
        pd.concat([records, by_count]).to_csv(arguments.csv, index=False)


if __name__ == "__main__":
    main()
