"""Tiles: one pass over the distances, against rows ranked in float64."""

import numpy as np
import pytest

from tests.rank_reference import (
    PRECISIONS,
    assert_exact,
    clustered_features,
    duplicated_features,
    needs_int8,
    random_features,
)
from unic.neighbors.exact.ranking import ExactRows
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
    assert mined.stats.redone_int16 == 400
    assert mined.stats.redone_float64 == 0
