"""k-means against scikit-learn, interleaved in one process, in CPU seconds of one thread.

Both run greedy k-means++ and Lloyd's iterations with the same number of restarts, iterations at
most and tolerance. Features are of clusters that overlap, 3 modes each, in a spectrum that decays
(``decaying``), the same of unit length and a flatter spectrum (``unit``), those of the benchmark of
mining, whose noise has no spectrum (``isotropic``), and what is read from a file.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from benchmarks.mining import clustered
from unic.baselines.kmeans import fit_kmeans


class Fit(NamedTuple):
    """A fit, and what it took."""

    seconds: float
    inertia: float
    n_iter: int  # of the best restart


def decaying(
    n_images: int, n_dims: int, n_clusters: int, *, exponent: float
) -> NDArray[np.float32]:
    """Features ``(n, d)`` whose clusters and noise have variance ``i^-exponent`` in direction i."""
    generator = np.random.default_rng(0)
    spread = np.arange(1, n_dims + 1, dtype=np.float32) ** np.float32(-exponent / 2)  # (d,)
    directions = np.linalg.qr(generator.standard_normal((n_dims, n_dims)))[0].astype(np.float32)
    classes = generator.standard_normal((n_clusters, 1, n_dims), dtype=np.float32)
    modes = classes + 0.5 * generator.standard_normal((n_clusters, 3, n_dims), dtype=np.float32)
    shares = generator.dirichlet(np.full(3 * n_clusters, 3.0))
    drawn = generator.choice(3 * n_clusters, size=n_images, p=shares)  # (n,)
    noise = generator.standard_normal((n_images, n_dims), dtype=np.float32)
    return ((modes.reshape(-1, n_dims)[drawn] + noise) * spread) @ directions


def to_unit_length(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def fit_ours(features: NDArray[np.float32], n_clusters: int, n_restarts: int, seed: int) -> Fit:
    start = time.process_time()
    found = fit_kmeans(
        features,
        n_clusters=n_clusters,
        n_restarts=n_restarts,
        generator=torch.Generator().manual_seed(seed),
    )
    return Fit(time.process_time() - start, found.inertia, found.n_iter)


def fit_theirs(features: NDArray[np.float32], n_clusters: int, n_restarts: int, seed: int) -> Fit:
    start = time.process_time()
    model = KMeans(n_clusters, n_init=n_restarts, random_state=seed, tol=1e-4, max_iter=300)
    found = model.fit(features)
    return Fit(time.process_time() - start, float(found.inertia_), found.n_iter_)


def measure(
    name: str, features: NDArray[np.float32], n_clusters: int, n_restarts: int, n_seeds: int
) -> None:
    """Fit both for some seeds in turn, and print medians of the times and means of the inertias."""
    ours, theirs = [], []
    for seed in range(n_seeds):
        ours.append(fit_ours(features, n_clusters, n_restarts, seed))
        theirs.append(fit_theirs(features, n_clusters, n_restarts, seed))
    seconds = [float(np.median([fit.seconds for fit in fits])) for fits in (ours, theirs)]
    inertias = [np.array([fit.inertia for fit in fits]) for fits in (ours, theirs)]
    print(f"{name}, {len(features)} x {features.shape[1]}, restarts: {n_restarts}")
    for who, fits, median, found in zip(
        ("ours", "scikit-learn"), (ours, theirs), seconds, inertias, strict=True
    ):
        spread = 100 * found.std() / found.mean()
        iterations = [fit.n_iter for fit in fits]
        print(f"  {who:12} {median:8.2f} s, inertia {found.mean():.6g} ± {spread:.2f} %", end="")
        print(f", iterations {iterations}")
    difference = 100 * (inertias[0].mean() / inertias[1].mean() - 1)
    print(f"  inertia {difference:+.2f} %, ratio {seconds[1] / seconds[0]:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[20_000])
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--restarts", type=int, nargs="+", default=[1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--file", type=Path, nargs="*", default=[], help="npy, float32 or uint8")
    parser.add_argument("--only", nargs="*", default=["decaying", "unit", "isotropic"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    fit_ours(decaying(400, 128, 40, exponent=1.0), 40, 1, 0)  # compiles
    with threadpool_limits(1):
        for n_restarts in arguments.restarts:
            for n_images in arguments.n:
                size = n_images, arguments.d
                for name in arguments.only:
                    if name == "isotropic":
                        features = clustered(*size)
                    elif name == "unit":
                        features = to_unit_length(decaying(*size, arguments.k, exponent=0.7))
                    else:
                        features = decaying(*size, arguments.k, exponent=1.0)
                    measure(name, features, arguments.k, n_restarts, arguments.seeds)
                for path in arguments.file:
                    features = np.load(path)[:n_images].astype(np.float32)
                    measure(path.stem, features, arguments.k, n_restarts, arguments.seeds)


if __name__ == "__main__":
    main()
