"""Tiles: one pass over the distances, against rows ranked in float64."""

import os
import subprocess
import sys

import numpy as np
import pytest
from llvmlite import binding

from tests.rank_reference import (
    PRECISIONS,
    assert_exact,
    clustered_features,
    duplicated_features,
    needs_int8,
    needs_microkernel,
    random_features,
)
from unic.neighbors.exact import tiles
from unic.neighbors.exact.operand import Precision
from unic.neighbors.exact.ranking import ExactRows, Ranked
from unic.neighbors.exact.specials import no_specials
from unic.neighbors.exact.tiles import rank_rows
from unic.neighbors.exact.vectors import LARGEST
from unic.neighbors.mining import mine_neighbors


@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
@pytest.mark.parametrize(
    ("n_images", "n_dims", "n_neighbors", "far_rank"),
    [(3000, 8, 200, 900), (2000, 256, 50, 400), (1500, 1024, 10, 1400)],
)
def test_tiles_are_exact(make, n_images: int, n_dims: int, n_neighbors: int, far_rank: int) -> None:
    features = make(n_images, n_dims)
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank)
    assert_exact(mined, features, far_rank)
    for precision in PRECISIONS:
        near = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=None, precision=precision)
        np.testing.assert_array_equal(near.indices, mined.indices)
        np.testing.assert_array_equal(near.distances, mined.distances)
        assert near.far_radius.shape == (0,)
        assert near.stats.precision == precision


def test_many_images_are_exact() -> None:
    features = clustered_features(20_000, 64, 100)
    mined = mine_neighbors(features, n_neighbors=50, far_rank=2500)
    exact = ExactRows(features)
    rows = np.random.default_rng(1).permutation(20_000)[:300]
    indices, distances, far_radius = exact.nearest(rows, n_neighbors=50, far_rank=2500)
    np.testing.assert_array_equal(mined.indices[rows], indices)
    np.testing.assert_array_equal(mined.distances[rows], distances)
    np.testing.assert_array_equal(mined.far_radius[rows], far_radius)
    assert mined.stats.redone_float64 < 200
    assert mined.stats.redone_int16 == 0


@needs_int8
def test_rows_that_int8_cannot_settle_are_redone_and_counted() -> None:
    # All are about equally far: hundreds come before the 20th within the error of int8.
    features = np.eye(400, dtype=np.float32) + random_features(400, 400) * np.float32(1e-2)
    mined = mine_neighbors(features, n_neighbors=20, far_rank=None, precision="int8")
    assert_exact(mined, features, None)
    assert mined.stats.redone_int16 + mined.stats.redone_float64 == 400
    assert mined.stats.redone_float64 <= (0 if LARGEST == 127 else 8)  # smaller digits tell less


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("block_size", [16, None])
@pytest.mark.parametrize("n_rows", [1, 40, 75, 150])  # two rectangles, two triangles
def test_some_rows_are_those_of_float64(
    n_rows: int, block_size: int | None, precision: Precision
) -> None:
    features = clustered_features(150, 24)
    rows = np.random.default_rng(3).permutation(150)[:n_rows]
    blocks: list[Ranked] = []
    far_rank = None if precision == "int8" else 60
    unsettled = rank_rows(
        features,
        rows,
        specials=no_specials(150),
        n_neighbors=9,
        far_rank=far_rank,
        precision=precision,
        block_size=block_size,
        keep=blocks.append,
    )
    ranked = Ranked(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    assert sorted([*ranked.rows, *unsettled]) == sorted(rows)
    assert precision == "int8" or len(unsettled) < max(2, 0.2 * n_rows)
    expected = ExactRows(features).nearest(ranked.rows, n_neighbors=9, far_rank=far_rank)
    for ours, theirs in zip(ranked[1:], expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@needs_microkernel
def test_float32_takes_over_where_only_the_microkernel_multiplies_digits_fast(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tiles, "_MOST_IN_DOUBT", 0)
    monkeypatch.setattr(tiles, "has_int8", lambda: False)
    features = random_features(200, 20)
    with caplog.at_level("INFO"):
        mined = mine_neighbors(features, n_neighbors=9, far_rank=60, precision="int16")
    assert "float32 is faster on this processor" in caplog.text
    assert_exact(mined, features, 60)


MINE = """
import logging
import numpy as np
from tests.rank_reference import assert_same, random_features, reference
from unic.neighbors.mining import mine_neighbors

logging.basicConfig(format="%(message)s", level=logging.INFO)
signs = np.random.default_rng(0).choice([-1, 1], size=(90, 100))
signs[60:] = -signs[:30]  # digits are the largest, and all of a product may have one sign
signs[50:60] = signs[:10]
for features in (signs.astype(np.float32), random_features(90, 41)):
    expected = reference(features, 7, 60)
    mined = mine_neighbors(features, n_neighbors=7, far_rank=60, precision="int16")
    assert_same(mined, expected)
    mined = mine_neighbors(features, n_neighbors=7, far_rank=None, precision="int8")
    assert_same(mined._replace(far_radius=expected.far_radius), expected)
"""


@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2"), reason="no AVX2")
def test_tiles_are_exact_by_avx2() -> None:
    settings = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "+avx2"}
    run = subprocess.run(
        [sys.executable, "-c", MINE], env=os.environ | settings, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "compared in registers by AVX2" in run.stderr
