"""Mining and drawing negatives where features are alike or stand out, against ordinary ones.

Processor seconds of one thread, each case measured in turn with the ordinary one, the least of
some rounds. Every case gives the exact neighbors; what each takes beside the ordinary features is
the question.
"""

import argparse
import time

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.mining import clustered, one_pass
from unic.neighbors.compilation import compile_loops

Features = NDArray[np.float32]


def make_cases(n_images: int, n_dims: int) -> dict[str, Features]:
    """Ordinary features first, then what is made of them."""
    ordinary = clustered(n_images, n_dims)
    generator = np.random.default_rng(1)
    order = generator.permutation(n_images)

    def alike(share: float) -> Features:
        features = ordinary.copy()
        features[order[: int(share * n_images)]] = features[order[0]]
        return features

    def scaled(n_scaled: int, factor: float) -> Features:
        features = ordinary.copy()
        features[order[:n_scaled]] *= np.float32(factor)
        return features

    return {
        "ordinary": ordinary,
        "10 % identical": alike(0.1),
        "50 % identical": alike(0.5),
        "90 % identical": alike(0.9),
        "each image twice": np.repeat(ordinary, 2, axis=0)[:n_images],
        "each image 30 times": np.repeat(ordinary, 30, axis=0)[:n_images],
        "one-hot": np.eye(n_dims, dtype=np.float32)[generator.integers(n_dims, size=n_images)],
        "whole numbers 0 and 1": (ordinary > 0).astype(np.float32),
        "one image x 10": scaled(1, 10),
        "one image x 30": scaled(1, 30),
        "one image x 1e4": scaled(1, 1e4),
        "one image x 1e6": scaled(1, 1e6),
        "1 % of the images x 100": scaled(n_images // 100, 100),
        "lengths of all orders": ordinary
        * generator.lognormal(size=(n_images, 1)).astype(np.float32),
        "all x 1e-30": ordinary * np.float32(1e-30),
        "all + 1,000": ordinary + np.float32(1000),
        "10 % of the images x 1,000": scaled(n_images // 10, 1000),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--far-rank", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    compile_loops()
    numba.set_num_threads(1)
    torch.set_num_threads(1)
    cases = make_cases(arguments.n, arguments.d)

    def seconds(name: str, settings: dict[str, bool]) -> float:
        start = time.process_time()
        one_pass(cases[name], arguments.k, arguments.far_rank, settings)
        return time.process_time() - start

    sizes = f"n = {arguments.n}, d = {arguments.d}, k = {arguments.k}, rank {arguments.far_rank}"
    print(f"{sizes}: mining and 64 negatives an image, processor seconds, times the ordinary ones")
    print(f"{'':28}{'exact radius':>18}{'bound':>18}")
    with threadpool_limits(1):
        for far_bound in (False, True):  # warms up
            seconds("ordinary", {"far_bound": far_bound})
        for name in cases:
            cells = []
            for far_bound in (False, True):
                settings = {"far_bound": far_bound}
                rounds = range(arguments.rounds)
                times = [(seconds("ordinary", settings), seconds(name, settings)) for _ in rounds]
                ordinary, own = map(min, zip(*times, strict=True))
                cells.append(f"{own:10.2f} {own / ordinary:5.2f} x")
            print(f"{name:28}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
