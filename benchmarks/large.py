"""Mining, cleaning and drawing negatives of many images end to end: time and peak memory."""

import argparse
import resource
import time
from collections.abc import Callable
from typing import TypeVar

import numba
import numpy as np
import torch

from benchmarks.mining import N_NEGATIVES, clustered, count_violations, one_pass
from unic.neighbors.cleaning import clean_neighbors
from unic.neighbors.far_sets import FarPool
from unic.neighbors.mining import mine_neighbors
from unic.neighbors.negatives import index_negatives

_Result = TypeVar("_Result")


def timed(name: str, call: Callable[[], _Result]) -> _Result:
    """Do it, and print wall time, processor time and the most memory held so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:10} {wall:8.1f} s, processor {cpu:8.1f} s, peak memory {peak:.2f} GiB", flush=True
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=256_000)
    parser.add_argument("--d", type=int, default=768)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--far-rank", type=int, default=6300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bound", action="store_true", help="let a bound of the far radius do")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    one_pass(clustered(1000, 16), 5, 20, {})  # compiles
    unlabeled = np.full(arguments.n, -1, dtype=np.int64)
    features = timed("features", lambda: clustered(arguments.n, arguments.d))
    far = {"far_rank": arguments.far_rank}
    mined = timed(
        "mining",
        lambda: mine_neighbors(features, n_neighbors=arguments.k, far_bound=arguments.bound, **far),
    )
    print(mined.stats)
    positives = timed(
        "cleaning",
        lambda: clean_neighbors(mined.indices, max_union_size=1000, known_labels=unlabeled),
    )
    print(f"median union {np.median(positives.union_size):.0f}")
    drawn = timed(
        "negatives",
        lambda: index_negatives(
            FarPool(
                features,
                mined.far_radius,
                known_labels=unlabeled,
                is_bound=arguments.bound,
                **far,
            ),
            n_negatives=N_NEGATIVES,
            generator=np.random.default_rng(0),
        ),
    )
    violations = count_violations(features, drawn, arguments.far_rank, n_rows=16)
    print(f"negatives inside rank {arguments.far_rank} by float64, in 16 rows: {violations}")


if __name__ == "__main__":
    main()
