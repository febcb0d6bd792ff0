"""How well scores without labels tell good runs from bad.

``python -m benchmarks.label_free results/digits results/caltech101`` clusters a sample of the
training images of each experiment by several methods and seeds, at the true number of classes, and
spoils some of the runs. Each run is scored without labels and by ACC; the tables are Spearman's
rank correlation of the two, 1 where a score ranks all runs as ACC does; and how many points of ACC
are lost by the run that a score ranks first, against the best. Other runs are those of the same
method by other seeds, spoiled likewise; Ward's has none, and is left out where they are needed.
Labels are used for ACC alone.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from unic.baselines import spectral, ward
from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.baselines.methods import MethodInputs
from unic.baselines.spherical_kmeans import fit_spherical_kmeans
from unic.evaluation.metrics import cluster_accuracy
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.quality.scores import COMBINED, SCORES, Quality, combine, score_clusters
from unic.recipe import clustering as recipe
from unic.storage.known_labels import UNKNOWN
from unic.storage.stores import open_store, read_splits

N_NEIGHBORS = 10
N_SEEDS = {
    "k-means": 4,
    "k-means, unit length": 4,
    "spherical k-means": 3,
    "spectral": 3,
    "Ward": 1,
    "recipe": 2,
}
SPOILED_METHODS = ("k-means, unit length", "recipe")
MOVED = (0.05, 0.15, 0.3)
MERGED = 0.1  # of the clusters are joined with another, and at least one
# Most methods know no confidence: it is 1 for all of their runs.
RANKED = [
    name
    for name, score in SCORES.items()
    if score.is_higher_better is not None and name != "confidence"
]
COMBINATIONS = (
    COMBINED,
    ("neighbor_agreement_adjusted", "run_agreement"),
    ("silhouette", "run_agreement"),
    ("neighbor_agreement_adjusted", "silhouette", "run_agreement"),
)


class Data(NamedTuple):
    """A sample of the training images of an experiment."""

    name: str
    inputs: MethodInputs
    units: NDArray[np.float32]  # (n, d), of unit length
    labels: NDArray[np.int64]  # (n,)
    n_clusters: int


class Run(NamedTuple):
    """A clustering, and how it came about."""

    method: str
    spoiled: str  # how, or empty
    seed: int
    clusters: NDArray[np.int64]  # (n,)


def read(folder: Path, n_images: int) -> Data:
    features = read_splits(open_store(folder / "features.zarr", kind="features"), "features")
    labels = read_splits(open_store(folder / "labels.zarr", kind="labels"), "labels")
    drawn = np.random.default_rng(0).permutation(len(labels["train"]))[:n_images]
    rows = np.sort(drawn)
    train = features["train"][rows]
    truth = np.unique(labels["train"][rows], return_inverse=True)[1].astype(np.int64)
    units = to_euclidean(train, "cosine")
    mined = mine_neighbors(units, n_neighbors=N_NEIGHBORS + 1, far_rank=None)
    unknown = np.full(len(rows), UNKNOWN)
    inputs = MethodInputs({"train": train}, mined.indices, unknown)
    return Data(folder.name, inputs, units, truth, int(truth.max()) + 1)


def cluster(data: Data, method: str, seed: int) -> NDArray[np.int64]:
    """Clusters by a method; k-means starts once, so that its seeds differ."""
    generator, n_clusters = torch.Generator().manual_seed(seed), data.n_clusters
    if method.startswith("k-means"):
        points = data.units if method.endswith("unit length") else data.inputs.features["train"]
        return kmeans(points, n_clusters, generator)
    if method == "spherical k-means":
        units = torch.from_numpy(data.units)
        fit = fit_spherical_kmeans(units, n_clusters=n_clusters, n_restarts=1, generator=generator)
        return (units @ torch.from_numpy(fit.centers).T).argmax(dim=1).numpy()
    by_name = {"spectral": spectral.cluster, "Ward": ward.cluster, "recipe": recipe.cluster}
    found = by_name[method](data.inputs, n_clusters=n_clusters, generator=generator, device="cpu")
    return found["train"][0]


def kmeans(
    points: NDArray[np.float32], n_clusters: int, generator: torch.Generator
) -> NDArray[np.int64]:
    fit = fit_kmeans(points, n_clusters=n_clusters, n_restarts=1, generator=generator)
    return assign_clusters(points, fit.centers)


def move(
    clusters: NDArray[np.int64], share: float, n_clusters: int, seed: int
) -> NDArray[np.int64]:
    """Move a share of the images to clusters drawn at random."""
    generator = np.random.default_rng(seed)
    found = clusters.copy()
    rows = generator.permutation(len(found))[: round(share * len(found))]
    found[rows] = generator.integers(n_clusters, size=len(rows))
    return found


def merge(data: Data, clusters: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Join clusters with others drawn at random, and split the largest ones by k-means as often."""
    generator = np.random.default_rng(seed)
    found = clusters.copy()
    n_merged = max(1, round(MERGED * data.n_clusters))
    drawn = generator.permutation(data.n_clusters)[: 2 * n_merged]
    joined, freed = drawn[:n_merged], drawn[n_merged:]
    for one, other in zip(joined, freed, strict=True):
        found[found == other] = one
    for empty in freed:
        sizes = np.bincount(found, minlength=data.n_clusters)
        sizes[joined] = 0
        rows = np.flatnonzero(found == sizes.argmax())
        halves = kmeans(data.units[rows], 2, torch.Generator().manual_seed(seed))
        found[rows[halves == 1]] = empty
    return found


def make_runs(data: Data) -> list[Run]:
    runs = []
    for method, n_seeds in N_SEEDS.items():
        plain = [cluster(data, method, seed) for seed in range(n_seeds)]
        print(f"{data.name}: {method} is done", flush=True)
        for seed, clusters in enumerate(plain):
            runs.append(Run(method, "", seed, clusters))
            if method in SPOILED_METHODS:
                runs += [
                    Run(method, f"{share:.0%} moved", seed, moved)
                    for share in MOVED
                    for moved in [move(clusters, share, data.n_clusters, seed)]
                ]
                runs.append(Run(method, "merged", seed, merge(data, clusters, seed)))
    return runs


def measure(folder: Path, n_images: int) -> pd.DataFrame:
    """A row for every run: how it came about, ``acc`` and the scores."""
    torch.set_num_threads(1)
    data = read(folder, n_images)
    runs, records = make_runs(data), []
    for run in runs:
        kind = (run.method, run.spoiled)
        others = [
            other.clusters
            for other in runs
            if (other.method, other.spoiled) == kind and other.seed != run.seed
        ]
        quality = score_clusters(
            run.clusters,
            np.ones(len(run.clusters), dtype=np.float32),
            features=data.inputs.features["train"],
            neighbors=data.inputs.neighbors,
            n_clusters=data.n_clusters,
            other_runs=others,
        )
        how = {"set": data.name, "method": run.method, "spoiled": run.spoiled, "seed": run.seed}
        acc = cluster_accuracy(data.labels, run.clusters)
        records.append(how | {"acc": acc} | dict(quality.overall))
    return pd.DataFrame(records)


def correlate(found: pd.DataFrame, values: pd.Series) -> float:
    """Rank correlation of values, higher being better, with ACC; nan where a side is constant."""
    has_value = values.notna()
    pair = values[has_value], found.loc[has_value, "acc"]
    if min(each.nunique() for each in pair) < 2:
        return np.nan
    return float(spearmanr(*pair).statistic)


def rank(found: pd.DataFrame, names: tuple[str, ...]) -> pd.Series:
    """Several scores combined, within the set of images, of the runs that have them all."""
    ranks = pd.Series(np.nan, index=found.index)
    for _, rows in found.groupby("set"):
        whole = rows.dropna(subset=list(names))
        qualities = [Quality(row[list(names)].to_dict(), {}) for _, row in whole.iterrows()]
        ranks[whole.index] = combine(qualities, names=names)
    return ranks


def print_table(found: pd.DataFrame) -> None:
    sets = list(found["set"].unique())
    print(f"\n| score | {' | '.join(sets)} | mean | over all | points lost |")
    print("|---" * (len(sets) + 4) + "|")
    columns = {
        name: found[name] if SCORES[name].is_higher_better else -found[name] for name in RANKED
    }
    for name, values in columns.items():
        print_row(found, name, values, correlate(found, values))
    for names in COMBINATIONS:  # whose ranks must not be compared between sets
        print_row(found, f"combine: {', '.join(names)}", rank(found, names), np.nan)
    print_row(found, "a run at random", pd.Series(0.0, index=found.index), np.nan)


def print_row(found: pd.DataFrame, name: str, values: pd.Series, over_all: float) -> None:
    sets = [rows for _, rows in found.groupby("set", sort=False)]
    each = [correlate(rows, values[rows.index]) for rows in sets]
    lost = np.mean([lose(rows, values[rows.index]) for rows in sets])
    numbers = [*each, float(np.mean(each)), over_all]
    cells = ["" if np.isnan(number) else f"{number:.2f}" for number in numbers]
    cells.append(f"{100 * lost:.1f}")
    print(f"| {name} | {' | '.join(cells)} |")


def lose(found: pd.DataFrame, values: pd.Series) -> float:
    """ACC of the best run beyond that of the run of the highest value, or the mean of several."""
    return float(found["acc"].max() - found.loc[values == values.max(), "acc"].mean())


def print_tables(found: pd.DataFrame) -> None:
    """How many runs there are, how good they are, and the correlations of all and of the plain."""
    found = found.reset_index(drop=True)
    is_plain = found["spoiled"] == ""
    for name, rows in found.groupby("set", sort=False):
        low, high = 100 * rows["acc"].min(), 100 * rows["acc"].max()
        n_plain = int(is_plain[rows.index].sum())
        print(f"{name}: {len(rows)} runs, {n_plain} not spoiled, ACC {low:.1f} to {high:.1f}")
    print(f"\nall {len(found)} runs")
    print_table(found)
    print(f"\n{is_plain.sum()} runs that are not spoiled")
    print_table(found[is_plain])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of experiments")
    parser.add_argument("--n", type=int, default=3000, help="images of each, drawn at random")
    parser.add_argument("--jobs", type=int, default=1, help="sets measured at a time")
    parser.add_argument("--runs", type=Path, help="CSV file to keep the scores in, or that has")
    arguments = parser.parse_args()
    if arguments.runs is not None and arguments.runs.is_file():
        found = pd.read_csv(arguments.runs).fillna({"spoiled": ""})
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
            tables = pool.map(measure, arguments.folders, repeat(arguments.n))
            found = pd.concat(tables, ignore_index=True)
        if arguments.runs is not None:
            found.to_csv(arguments.runs, index=False)
    print_tables(found)


if __name__ == "__main__":
    main()
