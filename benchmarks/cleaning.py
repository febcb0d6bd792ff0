"""Union sizes against a blocked scipy sparse product, sorting and sets, in CPU seconds.

With --device cuda: by sorting on a GPU against all threads of the CPU, seconds until they are done.
"""

import argparse
import resource
import time
from collections.abc import Callable

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from benchmarks import devices
from unic.neighbors.cleaning import reciprocity, union_sizes


def clustered_lists(n_images: int, n_neighbors: int) -> NDArray[np.int64]:
    """Neighbors drawn from the 4 k images that follow in a shuffled order, the image first."""
    generator = np.random.default_rng(0)
    steps = generator.integers(1, 4 * n_neighbors, size=(n_images, n_neighbors))
    steps.sort(axis=1)
    steps += np.arange(n_neighbors)  # distinct
    steps[:, 0] = 0
    order = generator.permutation(n_images)
    lists = np.empty((n_images, n_neighbors), dtype=np.int64)
    lists[order] = order[(np.arange(n_images)[:, None] + steps) % n_images]
    return lists


def by_sparse_product(
    indices: NDArray[np.int64], rows: int, block: int = 2048
) -> NDArray[np.int64]:
    n_images, n_neighbors = indices.shape
    bounds = np.arange(n_images + 1) * n_neighbors
    ones = np.ones(indices.size, dtype=np.int32)
    graph = csr_array((ones, indices.ravel().copy(), bounds), shape=(n_images, n_images))
    parts = [graph[start : start + block] @ graph for start in range(0, rows, block)]
    return np.concatenate([np.diff(part.indptr) for part in parts])[:rows]


def by_sorting(indices: NDArray[np.int64], rows: int, block: int = 1024) -> NDArray[np.int64]:
    narrow = indices.astype(np.int32)
    parts = []
    for start in range(0, rows, block):
        members = narrow[indices[start : start + block]].reshape(-1, indices.shape[1] ** 2)
        members.sort(axis=1)
        parts.append(1 + (members[:, 1:] != members[:, :-1]).sum(axis=1))
    return np.concatenate(parts)[:rows]


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure_on_gpu(n_images: int, n_neighbors: int, device: torch.device) -> None:
    """Time on a GPU and on the CPU, whose results must agree."""
    indices = clustered_lists(n_images, n_neighbors)
    expected = union_sizes(indices)
    if not (union_sizes(indices, device=device) == expected).all():
        raise RuntimeError("union sizes of the GPU differ from those of the CPU")
    ours = devices.seconds(lambda: union_sizes(indices, device=device), device, 3)
    start = time.perf_counter()
    union_sizes(indices)
    by_cpu = time.perf_counter() - start
    lookups = n_images * n_neighbors**2
    print(
        f"n = {n_images}, k = {n_neighbors}: {ours:.3f} s, {1e9 * ours / lookups:.3f} ns a lookup; "
        f"CPU with {numba.get_num_threads()} threads {by_cpu:.3f} s; the same sizes"
    )
    print(f"ratio_union_{n_images} {by_cpu / ours:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[16_000, 64_000, 256_000])
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--rows", type=int, default=16_384, help="that the peers are timed on")
    parser.add_argument("--threads", type=int, help="1 by default, with a GPU all")
    devices.add_device(parser)
    arguments = parser.parse_args()
    device = devices.take_device(arguments.device)
    if device.type == "cuda":
        print(devices.describe(device))
        numba.set_num_threads(arguments.threads or numba.config.NUMBA_NUM_THREADS)
        for n_images in arguments.n:
            measure_on_gpu(n_images, arguments.k, device)
        return
    numba.set_num_threads(arguments.threads or 1)
    union_sizes(clustered_lists(300, 5))  # compiles
    for n_images in arguments.n:
        indices = clustered_lists(n_images, arguments.k)
        rows = min(arguments.rows, n_images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ours = min(seconds(lambda: union_sizes(indices)) for _ in range(2))  # noqa: B023
        extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        sparse = seconds(lambda: by_sparse_product(indices, rows)) * n_images / rows  # noqa: B023
        by_sort = seconds(lambda: by_sorting(indices, rows)) * n_images / rows  # noqa: B023
        sizes = union_sizes(indices)
        if not (sizes[:rows] == by_sparse_product(indices, rows)).all():
            raise RuntimeError("union sizes differ from those of the sparse product")
        lookups = n_images * arguments.k**2
        print(
            f"n = {n_images}, k = {arguments.k}: ours {ours:.2f} s, {1e9 * ours / lookups:.2f} ns "
            f"a lookup, {extra:.0f} MB more; scipy {sparse:.1f}; sort and diff {by_sort:.1f}; "
            f"median union {np.median(sizes):.0f}; "
            f"reciprocity {seconds(lambda: reciprocity(indices)):.2f} s"  # noqa: B023
        )
    print(f"ratio_union {sparse / ours:.2f}")


if __name__ == "__main__":
    main()
