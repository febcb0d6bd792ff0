"""Features that many images share and outliers, which a pass would stumble over."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.rank_reference import assert_same, reference
from unic.neighbors.exact.operand import has_fast_digits
from unic.neighbors.exact.panels import rank_panels
from unic.neighbors.exact.ranking import Ranked
from unic.neighbors.exact.specials import find_specials
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.mining import mine_neighbors

PRECISIONS = ("int16", "float32") if has_fast_digits() else ("float32",)
needs_int8 = pytest.mark.skipif(not has_fast_digits(), reason="no fast int8 products")


def whole_numbers(n_images: int, n_dims: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Features whose distances are exact in float64, in whatever order they are added."""
    generator = np.random.default_rng(seed)
    return generator.integers(-50, 51, size=(n_images, n_dims)).astype(np.float32)


def gaussian(n_images: int, n_dims: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(n_images, n_dims)).astype(np.float32)


def with_copies(n_images: int, *counts: int) -> NDArray[np.float32]:
    """Features of which some are shared by so many images each, anywhere."""
    features = whole_numbers(n_images, 6)
    places = np.random.default_rng(1).permutation(n_images)
    for count in counts:
        features[places[:count]] = features[places[0]]
        places = places[count:]
    return features


def with_outliers(n_images: int, n_outliers: int, factor: float) -> NDArray[np.float32]:
    features = whole_numbers(n_images, 6)
    features[np.random.default_rng(2).permutation(n_images)[:n_outliers]] *= np.float32(factor)
    return features


HARD = {
    "a tenth alike": with_copies(600, 60),
    "half alike": with_copies(600, 300),
    "nearly all alike": with_copies(600, 590),
    "several alike": with_copies(600, 17, 40, 100, 16),
    "a few distinct": whole_numbers(12, 6)[np.arange(600) * 7 % 12],
    "one-hot": np.eye(8, dtype=np.float32)[np.arange(600) * 5 % 8],
    "one outlier": with_outliers(600, 1, 1e3),
    "outliers": with_outliers(600, 15, 1e3),
    "far outlier": with_outliers(600, 1, 2.0**20),
    "many outliers": with_outliers(600, 120, 1e3),
    "both": np.concatenate([with_copies(300, 50, 20), with_outliers(300, 5, 1e3)]),
}


@pytest.mark.parametrize("far_rank", [21, 100, 310, 599])
@pytest.mark.parametrize("name", list(HARD))
def test_equals_full_sort(name: str, far_rank: int) -> None:
    features = HARD[name]
    expected = reference(features, 20, far_rank)
    for precision in PRECISIONS:
        for block_size in (None, 64):
            mined = mine_neighbors(
                features,
                n_neighbors=20,
                far_rank=far_rank,
                precision=precision,
                block_size=block_size,
            )
            assert_same(mined, expected)


@pytest.mark.parametrize("far_rank", [21, 100, 310, 599])
@pytest.mark.parametrize("name", list(HARD))
def test_panels_equal_full_sort(name: str, far_rank: int) -> None:
    features, specials = HARD[name], find_specials(HARD[name])
    if not len(specials.ordinary):
        pytest.skip("nothing is left for a panel")
    found: list[Ranked] = []
    rank_panels(
        features,
        specials.ordinary,
        specials=specials,
        n_neighbors=20,
        far_rank=far_rank,
        device=torch.device("cpu"),
        block_size=64,
        keep=found.append,
    )
    rows, *columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    expected = reference(features, 20, far_rank)
    np.testing.assert_array_equal(rows, specials.ordinary)
    for column, whole in zip(columns, expected[:3], strict=True):
        np.testing.assert_array_equal(column, whole[rows])


@needs_int8
@pytest.mark.parametrize("far_rank", [21, 100, 310])
@pytest.mark.parametrize("name", list(HARD))
def test_a_bound_of_the_far_radius_holds(name: str, far_rank: int) -> None:
    features = HARD[name]
    mined = mine_neighbors(features, n_neighbors=20, far_rank=far_rank, far_bound=True)
    expected = reference(features, 20, far_rank)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_array_equal(mined.distances, expected.distances)
    assert (mined.far_radius >= expected.far_radius).all()
    if name != "many outliers":  # which pull the mean of those that are not set apart
        assert (mined.far_radius <= 1.1 * expected.far_radius + 1).mean() > 0.95


@settings(max_examples=60, deadline=None)
@given(
    distinct=st.integers(2, 120),
    weight=st.floats(0.3, 4),
    n_outliers=st.integers(0, 4),
    factor=st.sampled_from([1, 10, 1e3, 2.0**18]),
    share=st.floats(0, 1),
    rows=st.floats(0.05, 1),
    seed=st.integers(0, 1000),
)
def test_any_copies_and_outliers_are_ranked_as_by_a_full_sort(
    distinct: int,
    weight: float,
    n_outliers: int,
    factor: float,
    share: float,
    rows: float,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    pool = whole_numbers(distinct, 3, seed=seed)
    features = pool[(distinct * generator.random(220) ** weight).astype(np.int64)]
    features[generator.permutation(220)[:n_outliers]] *= np.float32(factor)
    assume((features != features[0]).any())
    far_rank = 2 + int(share * 217)
    n_neighbors = 1 + int(share * (far_rank - 2) / 2)
    part = range(int(220 * (1 - rows)), 220)
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank, rows=part)
    expected = reference(features, n_neighbors, far_rank)
    for found, whole in zip(mined[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(found, whole[part.start :])


# What is set apart


def test_finds_copies_and_outliers_and_nothing_else() -> None:
    features = gaussian(500, 12)
    features[20:37] = features[3]  # 18 alike
    features[100:116] = features[101]  # 16 alike are few enough
    features[[7, 444]] *= 100
    specials = find_specials(features)
    assert specials.weights.tolist() == [18, 1, 1]
    assert specials.members.tolist() == [3, *range(20, 37), 7, 444]
    everyone = np.concatenate([specials.ordinary, specials.members])
    np.testing.assert_array_equal(np.sort(everyone), np.arange(500))
    exact = features.astype(np.float64)
    for number, image in enumerate([3, 7, 444]):
        squared = np.square(exact - exact[image]).sum(axis=1)
        np.testing.assert_allclose(specials.squared[:, number], squared[specials.ordinary])
        np.testing.assert_allclose(specials.mutual[number], squared[[3, 7, 444]])


def test_sets_nothing_apart_of_ordinary_features() -> None:
    specials = find_specials(gaussian(500, 12))
    np.testing.assert_array_equal(specials.ordinary, np.arange(500))
    assert specials.squared.shape == (500, 0)


def test_zeros_of_either_sign_are_the_same() -> None:
    features = gaussian(200, 4)
    features[:20] = 0.0
    features[10:20] = -0.0
    assert find_specials(features).weights.tolist() == [20]


def test_features_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    features = with_copies(300, 40)
    monkeypatch.setattr(
        "unic.neighbors.exact.specials._hash_rows",
        lambda rows: np.zeros(len(rows), dtype=np.uint64),
    )
    assert_same(mine_neighbors(features, n_neighbors=20, far_rank=99), reference(features, 20, 99))


# What it is for


@needs_int8
@pytest.mark.parametrize("factor", [10, 30, 1e4])
def test_an_outlier_leaves_the_far_sets_of_others_alone(factor: float) -> None:
    features = gaussian(2000, 64)
    features[5] *= np.float32(factor)
    mined = mine_neighbors(features, n_neighbors=10, far_rank=200, far_bound=True)
    assert mined.stats.far_sampled == 64 * 1800
    assert mined.stats.far_kept > 0.9 * mined.stats.far_sampled
    unlabeled = np.full(2000, -1, dtype=np.int64)
    anchors = np.arange(512)
    n_pairs = [
        FarPairs(features, m.far_radius, known_labels=unlabeled).is_far(anchors).sum()
        for m in (mined, mine_neighbors(features, n_neighbors=10, far_rank=200))
    ]
    assert n_pairs[0] > 0.9 * n_pairs[1]


@needs_int8
def test_says_where_a_bound_leaves_little(caplog: pytest.LogCaptureFixture) -> None:
    # An entry that stands out in each image leaves one byte little for all others.
    features = gaussian(1000, 64) * np.float32(0.05)
    features[np.arange(1000), np.arange(1000) % 64] = 10
    mined = mine_neighbors(features, n_neighbors=10, far_rank=100, far_bound=True)
    assert mined.stats.far_kept < 0.9 * mined.stats.far_sampled
    assert "of the images beyond the far rank, whose bound is not close" in caplog.text
    caplog.clear()
    mined = mine_neighbors(features, n_neighbors=10, far_rank=100)
    assert (mined.stats.far_kept, mined.stats.far_sampled) == (0, 0)
    assert "bound" not in caplog.text


@pytest.mark.parametrize("make", [lambda: with_copies(3000, 300), lambda: with_copies(3000, 1500)])
def test_copies_leave_no_rows_to_float64(make) -> None:
    mined = mine_neighbors(make(), n_neighbors=10, far_rank=250)
    assert mined.stats.redone_float64 < 100


@pytest.mark.parametrize("factor", [10, 1e3, 1e6])
def test_an_outlier_leaves_no_rows_to_float64(factor: float) -> None:
    features = gaussian(3000, 32)
    features[17] *= np.float32(factor)
    mined = mine_neighbors(features, n_neighbors=10, far_rank=250)
    assert mined.stats.redone_float64 < 10
