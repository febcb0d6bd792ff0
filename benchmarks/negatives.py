"""Drawing negatives through the far radius against ranks from faiss and from argsort."""

import argparse
import time

import faiss
import numpy as np
import torch

from benchmarks.mining import clustered
from unic.neighbors.far_sets import FarPool
from unic.neighbors.mining import mine_neighbors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--far-rank", type=int, default=1200)
    parser.add_argument("--m", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    features = clustered(arguments.n, arguments.d)
    far_rank, rows = arguments.far_rank, min(256, arguments.n)
    mined = mine_neighbors(features, n_neighbors=2, far_rank=far_rank)
    unlabeled = np.full(arguments.n, -1, dtype=np.int64)
    start = time.process_time()
    sampler = FarPool(features, mined.far_radius, far_rank=far_rank, known_labels=unlabeled)
    prepared = time.process_time() - start
    sampler.draw(np.arange(9), 1, np.random.default_rng(0))  # compiles
    start = time.process_time()
    drawn = sampler.draw(np.arange(arguments.n), arguments.m, np.random.default_rng(0))
    ours = time.process_time() - start
    index = faiss.IndexFlatL2(arguments.d)
    index.add(features)
    start = time.process_time()
    index.search(features[:rows], far_rank)
    peer = (time.process_time() - start) * arguments.n / rows
    exact = features.astype(np.float64)
    violations = 0
    for row in range(rows):
        squared = np.square(exact - exact[row]).sum(axis=1)
        squared[row] = -1.0
        order = np.lexsort((np.arange(arguments.n), squared))
        violations += np.isin(drawn[row], order[:far_rank]).sum()
    print(f"far sets prepared in {prepared:.2f} s, {1e6 * ours / arguments.n:.1f} us an anchor")
    print(f"violations against float64 {violations} of {rows * arguments.m}")
    print(f"ratio_redraw_vs_faiss {peer / ours:.2f}")


if __name__ == "__main__":
    main()
