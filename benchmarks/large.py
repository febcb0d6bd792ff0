"""Mining, cleaning and drawing negatives of many images end to end: time and peak memory."""

import argparse
import re
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.mining import N_NEGATIVES, clustered, count_violations, one_pass
from unic.neighbors.cleaning import clean_neighbors
from unic.neighbors.far_sets import FarPool
from unic.neighbors.mining import mine_neighbors
from unic.neighbors.negatives import index_negatives

_Result = TypeVar("_Result")


class Peak:
    """The most memory held beside the page cache, looked at ten times a second."""

    def __enter__(self) -> "Peak":
        self.gigabytes, self._is_over = 0.0, Event()
        self._thread = Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.1):
            found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
            if found is not None:
                self.gigabytes = max(self.gigabytes, int(found[1]) / 2**20)


def mapped(n_images: int, n_dims: int) -> NDArray[np.float32]:
    """The same kind of features, a part at a time, in a file that is mapped to memory."""
    with tempfile.TemporaryFile() as file:
        for start in range(0, n_images, 8192):
            clustered(min(8192, n_images - start), n_dims, start).tofile(file)
        file.flush()
        return np.memmap(file, np.float32, "c", shape=(n_images, n_dims))


def timed(name: str, call: Callable[[], _Result]) -> _Result:
    """Do it, and print wall time, processor time and the most memory held so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    with Peak() as memory:
        result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{name:10} {wall:8.1f} s, processor {cpu:8.1f} s, peak memory {peak:.2f} GiB, "
        f"{memory.gigabytes:.2f} GiB of it now and beside the page cache",
        flush=True,
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
    parser.add_argument("--mapped", action="store_true", help="map the features from a file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    one_pass(clustered(1000, 16), 5, 20, {})  # compiles
    unlabeled = np.full(arguments.n, -1, dtype=np.int64)
    make = mapped if arguments.mapped else clustered
    features = timed("features", lambda: make(arguments.n, arguments.d))
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
