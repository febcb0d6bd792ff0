"""Maps in two dimensions against umap-learn's, from the same neighbors, in one run.

``python -m benchmarks.maps --n 10000 100000`` on made images, ``python -m benchmarks.maps
results/NAME`` on those of an experiment. The two take turns. Of few dims the neighbors of made
images are found by a k-d tree, which is what a million of them take; ``--alone`` leaves UMAP out.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from unic.maps.layout import choose_n_neighbors, map_images
from unic.maps.trustworthiness import score_map
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.runtime.jobs import limit_threads
from unic.storage.stores import open_store

MOST_TREE_DIMS = 8
SMALL = 5000  # images that both are compiled on


class Images(NamedTuple):
    """What a map is made from."""

    name: str
    features: NDArray[np.float32]  # (n, d)
    indices: NDArray[np.int64]  # (n, k + 1)
    distances: NDArray[np.float32]  # (n, k + 1)


Make = Callable[[Images], NDArray[np.float32]]


class Cost(NamedTuple):
    """What a call took."""

    seconds: float
    processor: float  # seconds of all threads
    peak: float  # MB above what was held before


def made(n_images: int, n_dims: int, n_neighbors: int) -> Images:
    """Images about ``n / 500`` centers, at least 10, of different numbers and widths."""
    generator = np.random.default_rng(0)
    n_centers = max(10, n_images // 500)
    centers = generator.normal(size=(n_centers, n_dims)) * 3
    shares = generator.dirichlet(np.full(n_centers, 2.0))
    widths = generator.uniform(0.2, 0.8, size=(n_centers, n_dims))
    center = generator.choice(n_centers, n_images, p=shares)  # (n,)
    noise = generator.normal(size=(n_images, n_dims))
    features = (centers[center] + widths[center] * noise).astype(np.float32)
    name = f"made, n = {n_images}, d = {n_dims}"
    if n_dims > MOST_TREE_DIMS:
        mined = mine_neighbors(features, n_neighbors=n_neighbors + 1, far_rank=n_images // 2)
        return Images(name, features, mined.indices, mined.distances)
    distances, indices = cKDTree(features).query(features, n_neighbors + 1)
    if (indices[:, 0] != np.arange(n_images)).any():
        raise RuntimeError("made images must be distinct")
    return Images(name, features, indices.astype(np.int64), distances.astype(np.float32))


def read(folder: Path) -> Images:
    """The training images of an experiment."""
    features = open_store(folder / "features.zarr", kind="features")
    neighbors = open_store(folder / "neighbors.zarr", kind="neighbors")
    metric = neighbors.parameters("neighbors")["metric"]
    points = to_euclidean(features.read("features"), metric)
    indices, distances = neighbors.read("indices"), neighbors.read("distances")
    name = f"{folder.name}, n = {len(points)}, d = {points.shape[1]}"
    return Images(name, points, indices, distances)


def unic_map(images: Images) -> NDArray[np.float32]:
    return map_images(images.indices, images.features, seed=0)


def umap_map(images: Images) -> NDArray[np.float32]:
    """UMAP's, from as many neighbors, as fast as it goes: without a seed, in all threads."""
    import umap

    n_listed = choose_n_neighbors(images.indices) + 1  # UMAP counts the image itself
    known = (images.indices[:, :n_listed], images.distances[:, :n_listed], None)
    n_threads = numba.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reducer = umap.UMAP(n_neighbors=n_listed, precomputed_knn=known, n_jobs=n_threads)
        return np.ascontiguousarray(reducer.fit_transform(images.features), dtype=np.float32)


def measure(call: Callable[[], NDArray[np.float32]]) -> tuple[NDArray[np.float32], Cost]:
    """What a call gives, and what it takes."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak; of Linux
    before = _peak()
    wall, processor = time.perf_counter(), time.process_time()
    found = call()
    seconds, seconds_of_all = time.perf_counter() - wall, time.process_time() - processor
    return found, Cost(seconds, seconds_of_all, _peak() - before)


def _peak() -> float:
    """The most memory since the last reset, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def compare(images: Images, makers: dict[str, Make], turns: int) -> None:
    """Let all take turns, and print a line each; two of them end in ratios of the least costs."""
    costs: dict[str, list[Cost]] = {name: [] for name in makers}
    for _ in range(turns):
        for name, make in makers.items():
            positions, cost = measure(lambda make=make: make(images))  # type: ignore[misc]
            costs[name].append(cost)
            scores = score_map(positions, images.indices, images.features)
            columns = [
                *(images.name, name),
                *(f"{cost.seconds:.1f}", f"{cost.processor:.1f}", f"{cost.peak:.0f}"),
                *(f"{scores.trustworthiness:.4f}", f"{scores.continuity:.4f}"),
            ]
            print(f"| {' | '.join(columns)} |", flush=True)
    if len(makers) == 2:
        for unit in ("seconds", "processor"):
            ours, other = (min(getattr(cost, unit) for cost in costs[name]) for name in makers)
            print(f"ratio_{unit} {other / ours:.2f}", flush=True)


def all_images(arguments: argparse.Namespace) -> Iterator[Images]:
    yield from map(read, arguments.folders)
    for n_images in arguments.n:
        yield made(n_images, arguments.d, arguments.k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="of experiments")
    parser.add_argument("--n", type=int, nargs="*", default=[], help="of made images")
    parser.add_argument("--d", type=int, default=64)
    parser.add_argument("--k", type=int, default=15, help="neighbors of each, itself not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=2, help="of each")
    parser.add_argument("--alone", action="store_true", help="without umap-learn")
    arguments = parser.parse_args()
    makers = {"unic": unic_map} | ({} if arguments.alone else {"umap-learn": umap_map})
    limit_threads(arguments.threads)
    small = made(SMALL, 4, arguments.k)
    for make in makers.values():
        make(small)  # compiles
    print("| images | map | seconds | of the processor | MB more | trustworthiness | continuity |")
    print("|---|---|---|---|---|---|---|")
    for images in all_images(arguments):
        compare(images, makers, arguments.turns)


if __name__ == "__main__":
    main()
