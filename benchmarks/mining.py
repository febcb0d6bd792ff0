"""Mining against faiss, scikit-learn and torch, interleaved in one process, in CPU seconds.

Peers search for a sample of the images, and their time is scaled to all; ours is the whole pass.
The features are 200 classes of 3 modes with 24 dims of variation in common and noise in all.

With --device cuda: against faiss-gpu's flat index and cuVS, where they are installed, all searching
for all images; seconds until the GPU is done, what is sent to it and back included.
"""

import argparse
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import matplotlib.pyplot as plt
import numba
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from benchmarks import devices
from unic.neighbors.exact.operand import has_fast_digits
from unic.neighbors.far_sets import FarPool
from unic.neighbors.mining import Neighbors, mine_neighbors
from unic.neighbors.negatives import index_negatives

N_NEGATIVES = 64
PRECISIONS = ["float32"] + ["int8"] * has_fast_digits()


def clustered(n_images: int, n_dims: int, part: int = 0) -> NDArray[np.float32]:
    """Features ``(n, d)`` as the module says; other parts are other images of the same classes."""
    generator = np.random.default_rng(0)
    classes = 0.35 * generator.standard_normal((200, 1, n_dims), dtype=np.float32)
    modes = classes + 0.25 * generator.standard_normal((200, 3, n_dims), dtype=np.float32)
    shared = 0.3 * generator.standard_normal((24, n_dims), dtype=np.float32)
    generator = np.random.default_rng([0, part]) if part else generator
    features = generator.standard_normal((n_images, n_dims), dtype=np.float32)
    for start in range(0, n_images, 8192):  # in place: one copy is what mining starts from
        rows = features[start : start + 8192]
        rows *= np.float32(0.6)
        rows += generator.standard_normal((len(rows), 24), dtype=np.float32) @ shared
        rows += modes.reshape(600, n_dims)[generator.integers(600, size=len(rows))]
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


def one_pass(
    features: NDArray[np.float32], n_neighbors: int, far_rank: int, settings: dict[str, Any]
) -> tuple[Neighbors, NDArray[np.int64]]:
    """Neighbors, far radius and negatives."""
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank, **settings)
    pool = FarPool(
        features,
        mined.far_radius,
        far_rank=far_rank,
        known_labels=np.full(len(features), -1, dtype=np.int64),
        is_bound=settings.get("far_bound", False),
    )
    drawn = index_negatives(pool, n_negatives=N_NEGATIVES, generator=np.random.default_rng(0))
    return mined, drawn


def count_violations(
    features: NDArray[np.float32], drawn: NDArray[np.int64], far_rank: int, n_rows: int = 256
) -> int:
    """Negatives inside the far rank by float64, of some rows."""
    exact, violations = features.astype(np.float64), 0
    for row in range(0, len(features), -(-len(features) // n_rows)):
        squared = np.square(exact - exact[row]).sum(axis=1)
        squared[row] = -1.0
        order = np.lexsort((np.arange(len(features)), squared))
        violations += int(np.isin(drawn[row], order[:far_rank]).sum())
    return violations


def measure(n_images: int, arguments: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of each way, in the order in which they are run."""
    n_neighbors, n_queries = arguments.k, min(arguments.queries, n_images)
    far_rank = min(arguments.far_rank, n_images // 2)
    features = clustered(n_images, arguments.d)
    tensor = torch.from_numpy(features)
    index = faiss.IndexFlatL2(arguments.d)
    index.add(features)
    truth = index.search(features[:n_queries], n_neighbors)[1]
    brute = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(features)
    whole, few = n_images / n_queries, min(256, n_queries)
    times: dict[str, float] = {}

    def by_faiss(n_found: int, n_searched: int) -> float:
        search = seconds(lambda: index.search(features[:n_searched], n_found), 2)
        return search * n_images / n_searched

    rows = min(1024, n_images)
    products = torch.empty(rows, n_images)
    by_torch = seconds(lambda: torch.mm(tensor[:rows], tensor.T, out=products), 3)
    by_numpy = seconds(lambda: np.matmul(features[:rows], features.T, out=products.numpy()), 3)
    times["float32 GEMM"] = min(by_torch, by_numpy) * n_images / rows
    times["faiss"] = by_faiss(n_neighbors, n_queries)
    for precision in PRECISIONS:
        start = time.process_time()
        mined = mine_neighbors(
            features, n_neighbors=n_neighbors, far_rank=None, precision=precision
        )
        times[f"ours {precision}"] = time.process_time() - start
        found = zip(mined.indices[:n_queries], truth, strict=True)
        recall = np.mean([len(np.intersect1d(a, b)) / n_neighbors for a, b in found])
        print(f"  ours {precision}: recall against faiss {recall:.6f}, {mined.stats}")
    times["faiss"] = min(times["faiss"], by_faiss(n_neighbors, n_queries))
    times["torch mm + topk"] = whole * seconds(lambda: torch_topk(tensor, n_queries, n_neighbors))
    times["scikit-learn"] = seconds(lambda: brute.kneighbors(features[:few])) * n_images / few
    times["faiss far rank"] = by_faiss(far_rank, few)
    passes: dict[str, dict[str, Any]] = {"float32": {"precision": "float32"}}
    if has_fast_digits():
        passes |= {"int8": {}, "int8 bound": {"far_bound": True}}
    for name, settings in passes.items():
        start = time.process_time()
        mined, drawn = one_pass(features, n_neighbors, far_rank, settings)
        times[f"one pass {name}"] = time.process_time() - start
        violations = count_violations(features, drawn, far_rank)
        print(f"  one pass {name}: {violations} negatives inside rank {far_rank}, {mined.stats}")
    return times


def search_by_faiss(
    features: NDArray[np.float32], n_neighbors: int, device: torch.device
) -> NDArray[np.int64]:
    """Neighbors by a flat index on the device."""
    if not hasattr(faiss, "StandardGpuResources"):
        raise ImportError("faiss is built for CPUs alone; the extra gpu has faiss-gpu-cu12")
    resources = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatL2(resources, features.shape[1])
    index.add(features)
    found: NDArray[np.int64] = index.search(features, n_neighbors)[1]
    torch.cuda.synchronize(device)
    return found


def search_by_cuvs(
    features: NDArray[np.float32], n_neighbors: int, device: torch.device
) -> NDArray[np.int64]:
    """Neighbors by cuVS' all-neighbors graph, exact as of one cluster by brute force."""
    from cuvs.neighbors import all_neighbors  # type: ignore[import-not-found]

    settings = all_neighbors.AllNeighborsParams(algo="brute_force", metric="sqeuclidean")
    found = all_neighbors.build(torch.from_numpy(features).to(device), n_neighbors, settings)
    indices = found[0] if isinstance(found, tuple) else found
    copied: NDArray[np.int64] = indices.copy_to_host()
    return copied


PEERS = {"faiss-gpu flat": search_by_faiss, "cuVS all-neighbors": search_by_cuvs}


def measure_on_gpu(n_images: int, arguments: argparse.Namespace, device: torch.device) -> bool:
    """Print seconds of each way and what share of the peak its products are; whether none failed.

    Shares count 2 n^2 d FLOP in float32, which ours splits into three products of bfloat16.
    """
    features = clustered(n_images, arguments.d)
    far_rank, n_neighbors = min(arguments.far_rank, n_images // 2), arguments.k
    flops = 2.0 * n_images**2 * arguments.d
    peaks = {name: devices.peak(device, dtype) for name, dtype in devices.DTYPES.items()}
    found: dict[str, NDArray[np.int64]] = {}

    def by_us(rank: int | None) -> None:
        mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=rank, device=device)
        found["ours"] = mined.indices
        print(f"  {mined.stats}")

    def by_peer(name: str) -> None:
        found[name] = PEERS[name](features, n_neighbors, device)

    ways: dict[str, Callable[[], None]] = {
        "ours": lambda: by_us(None),
        "ours, far rank too": lambda: by_us(far_rank),
        **{name: (lambda name=name: by_peer(name)) for name in PEERS},  # type: ignore[misc]
    }
    times, is_whole = {}, True
    for name, way in ways.items():
        try:
            way()
            times[name] = devices.seconds(way, device, 2)
        except ImportError as error:
            print(f"  {name}: not installed ({error})")
        except Exception:  # of a peer's, or out of memory; the others are still measured
            print(f"  {name}: failed\n{traceback.format_exc()}")
            is_whole = False
    for name, spent in times.items():
        rate = flops / spent
        share, halves = rate / peaks["float32"], 3 * rate / peaks["bfloat16"]
        print(
            f"  {name:18} {spent:8.3f} s, {rate / 1e12:6.1f} TFLOP/s, {share:.0%} of the peak in "
            f"float32, {halves:.0%} of that in bfloat16 as three products"
        )
    for name in PEERS if "ours" in times else ():
        if name not in times:
            continue
        pairs = zip(found["ours"][:1024], found[name][:1024], strict=True)
        shared = np.mean([len(np.intersect1d(a, b)) / n_neighbors for a, b in pairs])
        print(f"  of {name}'s neighbors are ours: {shared:.6f}")
        key = name.split()[0].replace("-", "_").lower()
        print(f"ratio_{key}_{n_images} {times[name] / times['ours']:.2f}")
    return is_whole


def print_growth(rows: dict[int, dict[str, float]], plot: Path | None) -> None:
    """Table of the growth with n, and a plot."""
    print("growth: CPU microseconds for each image and 1000 images, n =", *rows)
    names = list(next(iter(rows.values())))
    for name in names:
        cells = (f"{1e9 * row[name] / n_images**2:9.2f}" for n_images, row in rows.items())
        print(f"  {name:18}", *cells)
    if plot is None:
        return
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    for name in names:
        style = "-o" if name.startswith(("ours", "one pass")) else "--s"
        axes.loglog(list(rows), [row[name] for row in rows.values()], style, label=name)
    axes.set(xlabel="images", ylabel="processor seconds, one thread")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(plot, dpi=150)


def print_scaling(n_images: int, n_threads: int, arguments: argparse.Namespace) -> None:
    """Wall time of our passes with one thread and with more, in turn, the best of three."""
    features = clustered(n_images, arguments.d)
    far_rank = min(arguments.far_rank, n_images // 2)
    for name, rank in (("neighbors", None), ("one pass", far_rank)):
        walls: dict[int, float] = {}
        for threads in [1, n_threads] * 3:
            torch.set_num_threads(threads)
            start = time.perf_counter()
            mine_neighbors(features, n_neighbors=arguments.k, far_rank=rank)
            wall = time.perf_counter() - start
            walls[threads] = min(wall, walls.get(threads, np.inf))
        ratio = walls[1] / walls[n_threads]
        print(
            f"{name}, n = {n_images}: {walls[1]:.2f} s with 1 thread, {walls[n_threads]:.2f} s "
            f"with {n_threads}: {ratio:.2f} times as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[5000, 10_000, 20_000])
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--far-rank", type=int, default=6300)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--plot", type=Path, help="PNG of the growth with n")
    parser.add_argument("--threads", type=int, help="compare this many with one, and nothing else")
    devices.add_device(parser)
    arguments = parser.parse_args()
    device = devices.take_device(arguments.device)
    if device.type == "cuda":
        print(f"{devices.describe(device)}, d = {arguments.d}, k = {arguments.k}")
        done = []
        for n_images in arguments.n:
            print(f"n = {n_images}", flush=True)
            done.append(measure_on_gpu(n_images, arguments, device))
        raise SystemExit(not all(done))
    numba.set_num_threads(1)
    for precision in ("auto", "float32"):  # compiles
        one_pass(clustered(1000, arguments.d), 5, 20, {"precision": precision})
    if arguments.threads is not None:
        for n_images in arguments.n:
            print_scaling(n_images, arguments.threads, arguments)
        return
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    rows = {}
    with threadpool_limits(1):
        for n_images in arguments.n:
            print(f"n = {n_images}, d = {arguments.d}, k = {arguments.k}, one thread")
            times = rows[n_images] = measure(n_images, arguments)
            for name, value in times.items():
                share, ratio = times["float32 GEMM"] / value, times["faiss"] / value
                print(f"  {name:18} {value:9.2f} s  GEMM {share:5.0%}  faiss / it {ratio:6.2f}")
    print_growth(rows, arguments.plot)
    fastest = min(times[f"ours {precision}"] for precision in PRECISIONS)
    passes = [name for name in times if name.startswith("one pass")]
    for name in passes:
        ratio = times["faiss far rank"] / times[name]
        print(f"ratio_{name.replace(' ', '_')} {ratio:.2f}")
    print(f"ratio_vs_sklearn {times['scikit-learn'] / fastest:.2f}")
    print(f"ratio_float32_vs_faiss {times['faiss'] / times['ours float32']:.2f}")
    print(f"ratio_vs_faiss {times['faiss'] / fastest:.2f}")
    print(f"ratio_one_pass {times['faiss far rank'] / min(times[name] for name in passes):.2f}")


if __name__ == "__main__":
    main()
