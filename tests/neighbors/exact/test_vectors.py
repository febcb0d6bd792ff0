import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from unic.neighbors.exact.ranking import sum_in_order
from unic.neighbors.exact.vectors import LANES, SUMS, measure_pairs, pack


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_packs_numbers_and_their_places(share: float) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=20 * LANES).astype(np.float32)
    values[0], values[-1] = -0.0, np.inf
    values[generator.random(len(values)) >= share] = np.nan
    packed = np.empty(len(values) + LANES, dtype=np.float32)
    places = np.empty(len(values) + LANES, dtype=np.int32)
    count = pack(values, packed, places)
    expected = np.flatnonzero(~np.isnan(values))
    np.testing.assert_array_equal(places[:count], expected)
    assert packed[:count].tobytes() == values[expected].tobytes()


def sum_plainly(values: list[float]) -> float:
    """Dim ``t`` goes to sum ``t mod 32``, and the sums are folded in halves."""
    sums = [0.0] * SUMS
    for dim, value in enumerate(values):
        sums[dim % SUMS] += value
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [first + second for first, second in zip(sums[:half], sums[half:], strict=True)]
    return sums[0]


@pytest.mark.parametrize("n_dims", [1, 31, 32, 33, 100, 768])
def test_a_distance_is_added_in_one_order_everywhere(n_dims: int) -> None:
    generator = np.random.default_rng(n_dims)
    scales = 10.0 ** generator.integers(-6, 6, n_dims)  # any other order gives other bits
    features = (generator.standard_normal((40, n_dims)) * scales).astype(np.float32)
    left, right = np.arange(39), np.arange(1, 40)
    squares = (features[left].astype(np.float64) - features[right]) ** 2  # (p, d)
    expected = np.array([sum_plainly(row) for row in squares.tolist()])
    np.testing.assert_array_equal(measure_pairs(features, left, right), expected)
    np.testing.assert_array_equal(sum_in_order(torch.from_numpy(squares)).numpy(), expected)
    if n_dims == 768:
        assert (squares.sum(1) != expected).any()


@pytest.mark.parametrize("processor", ["generic", "x86-64-v3"])
def test_compiles_for_processors_without_wide_vectors(processor: str) -> None:
    if processor.startswith("x86") and os.uname().machine != "x86_64":
        pytest.skip(f"LLVM knows {processor} on x86-64 alone")
    code = (
        "import numpy as np; from unic.neighbors.exact.vectors import pack;"
        "values = np.full(32, np.nan, dtype=np.float32); values[[3, 20]] = 1.5, -2;"
        "packed, places = np.empty(48, dtype=np.float32), np.empty(48, dtype=np.int32);"
        "count = pack(values, packed, places); print(packed[:count], places[:count])"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "[ 1.5 -2. ] [ 3 20]\n", run.stderr
