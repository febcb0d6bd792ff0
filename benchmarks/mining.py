"""Mining against faiss, scikit-learn and torch, interleaved in one process, in CPU seconds.

Peers search for a sample of the images, and their time is scaled to all; ours is the whole pass.
"""

import argparse
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from unic.mining import mine_neighbors
from unic.mining.tiles import has_int8
from unic.negatives import index_negatives


def clustered(n_images: int, n_dims: int) -> NDArray[np.float32]:
    """600 clusters, noise 1.7 times as wide as their spread in every dim."""
    generator = np.random.default_rng(0)
    centers = 0.6 * generator.standard_normal((600, n_dims), dtype=np.float32)
    features = generator.standard_normal((n_images, n_dims), dtype=np.float32)
    features += centers[generator.integers(600, size=n_images)]
    return features


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """CPU time of a call, the best of some."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def torch_topk(features: torch.Tensor, n_queries: int, n_neighbors: int) -> None:
    norms = features.square().sum(dim=1)
    for start in range(0, n_queries, 256):
        products = features[start : start + 256] @ features.T
        (norms - 2 * products).topk(n_neighbors, largest=False)


def measure(n_images: int, arguments: argparse.Namespace) -> dict[str, float]:
    n_neighbors, n_queries = arguments.k, min(arguments.queries, n_images)
    far_rank = min(arguments.far_rank, n_images // 2)
    features = clustered(n_images, arguments.d)
    tensor = torch.from_numpy(features)
    whole = n_images / n_queries
    index = faiss.IndexFlatL2(arguments.d)
    index.add(features)
    brute = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(features)
    unlabeled = np.full(n_images, -1, dtype=np.int64)
    times: dict[str, float] = {}

    def ours(precision: str) -> None:
        mined = mine_neighbors(
            features, n_neighbors=n_neighbors, far_rank=None, precision=precision
        )
        truth = index.search(features[:n_queries], n_neighbors)[1]
        found = zip(mined.indices[:n_queries], truth, strict=True)
        recall = np.mean([len(np.intersect1d(a, b)) / n_neighbors for a, b in found])
        print(f"  ours {precision}: recall against faiss {recall:.6f}, {mined.stats}")

    def faiss_flat(n_found: int, n_searched: int) -> float:
        call = lambda: index.search(features[:n_searched], n_found)  # noqa: E731
        return seconds(call, 2) * n_images / n_searched

    def one_pass() -> None:
        mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank)
        index_negatives(
            features,
            mined.far_radius,
            far_rank=far_rank,
            n_negatives=64,
            known_labels=unlabeled,
            generator=np.random.default_rng(0),
        )
        print(f"  one pass: {mined.stats}")

    rows = min(1024, n_images)
    products = torch.empty(rows, n_images)
    gemm = seconds(lambda: torch.mm(tensor[:rows], tensor.T, out=products), 3)
    times["float32 GEMM"] = gemm * n_images / rows
    times["faiss"] = faiss_flat(n_neighbors, n_queries)
    search = seconds(lambda: index.search(features[:n_queries], n_neighbors))
    for precision in ["float32"] + ["int8"] * has_int8():
        times[f"ours {precision}"] = seconds(lambda: ours(precision)) - search  # noqa: B023
    times["faiss"] = min(times["faiss"], faiss_flat(n_neighbors, n_queries))
    times["torch mm + topk"] = whole * seconds(lambda: torch_topk(tensor, n_queries, n_neighbors))
    few = min(256, n_queries)
    times["scikit-learn"] = seconds(lambda: brute.kneighbors(features[:few])) * n_images / few
    times["faiss far rank"] = faiss_flat(far_rank, few)
    times["ours one pass"] = seconds(one_pass)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[5000, 10_000, 20_000])
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--far-rank", type=int, default=6300)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    small = clustered(1000, arguments.d)
    mine_neighbors(small, n_neighbors=5, far_rank=20)  # compiles
    index_negatives(
        small,
        mine_neighbors(small, n_neighbors=5, far_rank=20).far_radius,
        far_rank=20,
        n_negatives=2,
        known_labels=np.full(1000, -1),
        generator=np.random.default_rng(0),
    )
    rows = {}
    with threadpool_limits(arguments.threads):
        for n_images in arguments.n:
            rows[n_images] = measure(n_images, arguments)
            times = rows[n_images]
            print(f"n = {n_images}, d = {arguments.d}, k = {arguments.k}, CPU seconds")
            for name, value in times.items():
                share = times["float32 GEMM"] / value
                ratio = times["faiss"] / value
                print(f"  {name:16} {value:9.2f}  GEMM {share:5.0%}  faiss / it {ratio:6.2f}")
    print("growth, CPU microseconds per image and 1000 images")
    for name in times:
        cells = (f"{1e9 * row[name] / n_images**2:9.2f}" for n_images, row in rows.items())
        print(f"  {name:16}", *cells)
    ours = min(value for name, value in times.items() if name in ("ours float32", "ours int8"))
    print(f"ratio_vs_sklearn {times['scikit-learn'] / ours:.2f}")
    print(f"ratio_float32_vs_faiss {times['faiss'] / times['ours float32']:.2f}")
    print(f"ratio_vs_faiss {times['faiss'] / ours:.2f}")
    print(f"ratio_one_pass {times['faiss far rank'] / times['ours one pass']:.2f}")


if __name__ == "__main__":
    main()
