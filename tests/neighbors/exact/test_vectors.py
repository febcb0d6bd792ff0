import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from llvmlite import binding
from numba import njit

from tests.rank_reference import needs_microkernel
from unic.neighbors.exact import vectors
from unic.neighbors.exact.ranking import sum_in_order
from unic.neighbors.exact.vectors import (
    DEPTH,
    GROUP,
    LANES,
    LARGEST,
    PANEL,
    STRIP,
    SUMS,
    count_bits,
    fine_product,
    first_bit,
    measure_pairs,
    multiply,
    pack,
    pack_panels,
    pack_rows,
)

PACKAGE = Path(vectors.__file__).parents[2]
SHAPES = [(1, 1, 1), (6, 64, 4), (13, 130, 9), (7, 65, 127), (20, 70, 768)]


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
    np.testing.assert_array_equal(measure_pairs(features, left, features, right), expected)
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
        "count = pack(values, packed, places); print(packed[:count], places[:count]);"
        "from unic.neighbors.exact.vectors import has_microkernel; print(has_microkernel())"
    )
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "[ 1.5 -2. ] [ 3 20]\nFalse\n", run.stderr


# The micro-kernel


def make_digits(n_images: int, n_dims: int) -> np.ndarray:
    digits = np.random.default_rng(n_dims).integers(-LARGEST, LARGEST + 1, (n_images, n_dims))
    digits[0] = LARGEST  # the extremes
    digits[-1] = -LARGEST
    return digits.astype(np.int8)


@njit
def multiply_all(packed, panels, n_rows, n_columns):
    products = np.empty((n_rows, n_columns), dtype=np.int32)
    part = np.empty(GROUP * PANEL, dtype=np.int32)
    digits, starts = packed.digits, packed.starts
    size = len(digits) // len(starts)
    for column in range(0, n_columns, PANEL):
        for row in range(0, n_rows, GROUP):
            first = column * size
            multiply(digits, row * size, panels, first, size // DEPTH, starts, row, part)
            for r in range(row, min(row + GROUP, n_rows)):
                for c in range(column, min(column + PANEL, n_columns)):
                    products[r, c] = part[(r - row) * PANEL + c - column]
    return products


@njit
def multiply_fine(digits, n_dims, left, right, start):
    flat = digits.reshape(digits.size)
    return fine_product(flat, left * 2 * n_dims, right * 2 * n_dims, n_dims, start)


@njit
def take_bits(mask):
    places = []
    while mask:
        places.append(first_bit(mask))
        mask &= mask - np.uint64(1)
    return places


@pytest.mark.parametrize("shape", SHAPES)
def test_panels_hold_columns_in_strips(shape: tuple[int, int, int]) -> None:
    _, n_columns, n_dims = shape
    digits = make_digits(n_columns, n_dims)
    panels = pack_panels(digits)
    assert panels.ctypes.data % 64 == 0
    unpacked = panels.reshape(-1, -(-n_dims // DEPTH), STRIP, DEPTH).transpose(0, 2, 1, 3)
    unpacked = unpacked.reshape(-(-n_columns // PANEL) * PANEL, -1).astype(np.int64) - LARGEST
    np.testing.assert_array_equal(unpacked[:n_columns, :n_dims], digits)
    assert not unpacked[n_columns:].any()
    assert not unpacked[:, n_dims:].any()


@needs_microkernel
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_exact(shape: tuple[int, int, int]) -> None:
    n_rows, n_columns, n_dims = shape
    columns, rows = make_digits(n_columns, n_dims), make_digits(n_rows, n_dims)
    places = np.random.default_rng(0).permutation(n_rows)
    packed = pack_rows(rows, n_dims, places)
    products = multiply_all(packed, pack_panels(columns), n_rows, n_columns)
    expected = rows[places].astype(np.int64) @ columns.T.astype(np.int64)
    np.testing.assert_array_equal(products, expected)


@needs_microkernel
@pytest.mark.parametrize("n_dims", [1, 63, 64, 65, 130, 768])
def test_fine_products_are_exact(n_dims: int) -> None:
    digits = make_digits(9, 2 * n_dims)
    packed = pack_rows(digits, n_dims, np.arange(9))
    coarse, fine = np.split(digits.astype(np.int64), 2, axis=1)
    expected = coarse @ fine.T + fine @ coarse.T
    for left in range(9):
        for right in range(9):
            start = packed.fine_starts[left]
            assert multiply_fine(digits, n_dims, left, right, start) == expected[left, right]


@pytest.mark.parametrize(
    "features", ["avx2", "avx2,avxvnni", "avx512vl,avx512vnni"], ids=lambda names: names
)
def test_products_of_other_instructions_are_exact(features: str) -> None:
    names, has = features.split(","), binding.get_host_cpu_features()
    if not all(has.get(name, False) for name in names):
        pytest.skip(f"no {features}")
    settings = ",".join(f"+{name}" for name in names)
    environment = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": settings}
    tests = [
        f"{__file__}::{name}"
        for name in ("test_products_are_exact", "test_fine_products_are_exact")
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "11 passed" in run.stdout


def test_bits_are_taken_from_the_lowest_on() -> None:
    places = [0, 5, 31, 32, 63]
    mask = np.uint64(sum(1 << place for place in places))
    assert take_bits(mask) == places
    assert njit(lambda mask: count_bits(mask))(mask) == len(places)


COMPILE = """
import numpy as np
from unic.neighbors.exact.lists import order_statistic
print(order_statistic(np.arange(40, dtype=np.float32), 3), end=" ")
print(sum(order_statistic.stats.cache_hits.values()))
"""


def test_a_change_of_one_file_compiles_the_functions_of_others_anew(tmp_path: Path) -> None:
    copy = tmp_path / "unic"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def run() -> str:
        command = [sys.executable, "-c", COMPILE]
        settings = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
        return subprocess.run(command, **settings).stdout

    assert [run(), run()] == ["3.0 0\n", "3.0 1\n"]
    (copy / "neighbors" / "mining.py").touch()
    assert run() == "3.0 1\n"
    (copy / "neighbors" / "exact" / "vectors.py").touch()
    assert [run(), run()] == ["3.0 0\n", "3.0 1\n"]


def test_all_files_with_compiled_functions_are_looked_at() -> None:
    compiled = re.compile(r"^@(njit|intrinsic)", re.MULTILINE)
    files = {path for path in PACKAGE.rglob("*.py") if compiled.search(path.read_text())}
    assert {str(path.relative_to(PACKAGE)) for path in files} == set(vectors._LOOPS)
