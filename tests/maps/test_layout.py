"""Maps against what they minimize, their laws, and ugly images."""

import re

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.maps.made import blobs, rank_all
from unic.maps.layout import (
    _descend,
    _few_threads,
    _Phase,
    choose_n_neighbors,
    map_images,
)
from unic.maps.trustworthiness import score_map


def draw(features: NDArray[np.floating], n_listed: int = 8, **options: int) -> NDArray[np.float32]:
    points = features.astype(np.float32)
    return map_images(rank_all(points, n_listed), points, **({"seed": 0} | options))


def divergence_slope(
    positions: NDArray[np.float64], indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The gradient of t-SNE's divergence by each position, from its definition."""
    n_images = len(positions)
    p = np.zeros((n_images, n_images))
    np.put_along_axis(p, indices[:, 1:], 1.0, axis=1)
    p = (p + p.T) / (p + p.T).sum()
    ways = positions[:, None] - positions
    weights = 1 / (1 + np.square(ways).sum(axis=2))
    np.fill_diagonal(weights, 0)
    slope: NDArray[np.float64] = np.einsum(
        "ij,ijc->ic", 4 * (p - weights / weights.sum()) * weights, ways
    )
    return slope


def test_the_divergence_hardly_falls_any_more() -> None:
    features = blobs(150)
    indices = rank_all(features, 11)
    positions = map_images(indices, features, seed=0).astype(np.float64)
    others = np.random.default_rng(0).permutation(positions)

    def steepness(places: NDArray[np.float64]) -> float:
        # A map has lost its scale: at the one at which it fits best.
        scaled = (scale * places for scale in np.geomspace(1, 300, 200))
        return float(min(np.linalg.norm(divergence_slope(each, indices)) for each in scaled))

    assert steepness(positions) < 0.05 * steepness(others)


def test_neighbors_are_neighbors_in_the_map() -> None:
    features = blobs(1200, n_blobs=6)  # by the grid
    indices = rank_all(features, 16)
    positions = map_images(indices, features, seed=0)
    scores = score_map(positions, indices, features)
    assert scores.trustworthiness > 0.97
    assert scores.continuity > 0.97
    blob = np.arange(1200) % 6
    near = rank_all(positions, 11)[:, 1:]
    assert (blob[near] == blob[:, None]).mean() > 0.99


def test_maps_lie_like_the_principal_components() -> None:
    features = blobs(200) * np.array([4, 2, 1, 1, 1, 1, 1, 1], dtype=np.float32)
    one, other = draw(features, seed=0), draw(features, seed=1)
    assert one.tobytes() != other.tobytes()
    assert np.corrcoef(one[:, 0], other[:, 0])[0, 1] > 0.9
    assert np.corrcoef(one[:, 1], other[:, 1])[0, 1] > 0.9


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba has one thread")
def test_the_number_of_threads_changes_no_byte() -> None:
    positions = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    listed = ((np.arange(3000)[:, None] + 7 * np.arange(1, 6)) % 3000).astype(np.int32)
    found, n_before = [], numba.get_num_threads()
    for n_threads in (1, 2):
        numba.set_num_threads(n_threads)
        found.append(_descend(positions, listed, _Phase(12, 4.0, 0.8)).tobytes())
    numba.set_num_threads(n_before)
    assert found[0] == found[1]


def test_a_map_of_few_images_takes_one_thread_and_gives_the_others_back() -> None:
    n_threads = numba.get_num_threads()
    with _few_threads(9000):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == n_threads


def test_equal_arguments_give_equal_bytes() -> None:
    assert draw(blobs(1100)).tobytes() == draw(blobs(1100)).tobytes()


def test_neighbors_of_one_kind_give_the_same_map_whatever_the_features_scale() -> None:
    features = blobs(80)
    np.testing.assert_allclose(draw(features), draw(features * 1024), atol=1e-3)


UGLY = {
    "two": blobs(2),
    "three": blobs(3),
    "four": blobs(4),
    "five": blobs(5),
    "one dim": blobs(60, n_dims=1),
    "all alike": np.ones((50, 4)),
    "mostly copies": np.concatenate([np.ones((300, 4)), blobs(100, n_dims=4)]),
    "pairs of copies": np.repeat(blobs(60), 2, axis=0),
    "tiny": blobs(60) * 1e-42,
    "an outlier": np.concatenate([blobs(60), np.full((1, 8), 1e18)]),
    "at the end of float32": np.concatenate(
        [blobs(60), np.full((1, 8), 3e38), -np.full((1, 8), 3e38)]
    ),
    "far apart": np.concatenate([blobs(40) + 1e6 * i for i in range(12)]),
}


@pytest.mark.parametrize("name", UGLY)
@pytest.mark.parametrize("n_listed", [2, 8])
def test_ugly_images_have_finite_places_apart(name: str, n_listed: int) -> None:
    features = UGLY[name]
    positions = draw(features, n_listed=min(n_listed, len(features)))
    assert positions.shape == (len(features), 2)
    assert positions.dtype == np.float32
    assert np.isfinite(positions).all()
    assert np.abs(positions).max() == 1
    assert len(np.unique(positions, axis=0)) > 0.75 * len(features)


def test_hubs_and_images_that_nobody_lists() -> None:
    indices = np.zeros((500, 3), dtype=np.int64)
    indices[:, 0] = np.arange(500)
    indices[:, 1] = indices[:, 0] == 0
    indices[:, 2] = (np.arange(500) + 2) % 500
    positions = map_images(indices, blobs(500), seed=0)
    assert np.isfinite(positions).all()
    assert positions.std(axis=0).min() > 0.1


def test_an_image_is_joined_to_few_of_few() -> None:
    assert choose_n_neighbors(np.zeros((4, 3), dtype=np.int64)) == 1
    assert choose_n_neighbors(np.zeros((31, 20), dtype=np.int64)) == 10
    assert choose_n_neighbors(np.zeros((1000, 51), dtype=np.int64)) == 15
    features = blobs(100)
    few = rank_all(features, 6)
    np.testing.assert_array_equal(
        map_images(few, features, seed=0), draw(features, 20, n_neighbors=5)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": blobs(9)}, "features must be of the 20 images of indices, got 9"),
        ({"features": np.full((20, 2), np.nan, np.float32)}, "features must be finite"),
        ({"indices": np.zeros((20, 4))}, "indices must be an int64 array"),
        ({"indices": np.arange(20)}, "indices must be an int64 array"),
        ({"n_neighbors": 0}, "n_neighbors must be at least 1, got 0"),
    ],
)
def test_refuses_what_is_no_map(change: dict[str, object], message: str) -> None:
    features = blobs(20)
    arguments = {"indices": rank_all(features, 5), "features": features, "seed": 0} | change
    with pytest.raises(ValueError, match=re.escape(message)):
        map_images(**arguments)
