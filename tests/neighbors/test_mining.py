import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from tests.experiment import rank_images
from tests.rank_reference import (
    PRECISIONS,
    assert_exact,
    assert_same,
    clustered_features,
    duplicated_features,
    needs_int8,
    random_features,
    reference,
)
from unic.neighbors.mining import mine_neighbors


def digits() -> NDArray[np.float32]:
    return load_digits().data.astype(np.float32)


# Against a full sort in float64


@pytest.mark.parametrize(
    ("n_images", "n_dims", "n_neighbors", "far_rank"),
    [(3, 1, 1, 2), (40, 5, 10, 39), (257, 33, 1, 2), (300, 64, 50, 150)],
)
def test_equals_full_sort(
    n_images: int, n_dims: int, n_neighbors: int, far_rank: int, device: str
) -> None:
    features = random_features(n_images, n_dims)
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank, device=device)
    expected = reference(features, n_neighbors, far_rank)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_allclose(mined.distances, expected.distances, rtol=1e-7)
    np.testing.assert_allclose(mined.far_radius, expected.far_radius, rtol=1e-7)


def test_equals_full_sort_on_digits_ties_included(device: str) -> None:
    # Pixels are whole numbers: distances are exact in float64, and many are equal.
    features = digits()
    mined = mine_neighbors(features, n_neighbors=20, far_rank=1000, device=device)
    assert_same(mined, reference(features, 20, 1000))


def test_equals_full_sort_far_from_the_origin(device: str) -> None:
    # Distances of 1 in the company of norms of 1e6: float32 products would see only noise.
    features = (random_features(200, 16) + np.float32(1e6)).astype(np.float32)
    mined = mine_neighbors(features, n_neighbors=10, far_rank=100, device=device)
    expected = reference(features, 10, 100)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_allclose(mined.far_radius, expected.far_radius, rtol=1e-7)


def test_equals_full_sort_with_an_outlier(device: str) -> None:
    # The outlier takes the slack of the screening above all distances; ranking still decides.
    features = random_features(60, 8)
    features[17] = 1e12
    mined = mine_neighbors(features, n_neighbors=10, far_rank=30, device=device)
    expected = reference(features, 10, 30)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_allclose(mined.far_radius, expected.far_radius, rtol=1e-7)


def test_returns_the_promised_shapes_and_dtypes() -> None:
    mined = mine_neighbors(random_features(12, 4), n_neighbors=3, far_rank=6)
    assert (mined.indices.shape, mined.indices.dtype) == ((12, 3), np.int64)
    assert (mined.distances.shape, mined.distances.dtype) == ((12, 3), np.float32)
    assert (mined.far_radius.shape, mined.far_radius.dtype) == ((12,), np.float32)


@pytest.mark.parametrize("far_bound", [False, True])
def test_features_that_are_mapped_from_a_file_give_the_same(
    far_bound: bool, tmp_path: Path
) -> None:
    features = clustered_features(900, 24)
    features[40:70], features[7] = features[3], 1e3  # copies and an outlier are set apart
    features.tofile(tmp_path / "features")
    settings = {"n_neighbors": 9, "far_rank": 90, "far_bound": far_bound}
    expected = mine_neighbors(features, **settings)
    for mode in ("c", "r"):
        mapped = np.memmap(tmp_path / "features", np.float32, mode, shape=features.shape)
        found = mine_neighbors(mapped, **settings)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_takes_read_only_and_strided_features() -> None:
    features = random_features(20, 8)
    expected = mine_neighbors(features, n_neighbors=3, far_rank=6)
    strided = np.repeat(features, 2, axis=1)[:, ::2]
    strided.flags.writeable = False
    assert_same(mine_neighbors(strided, n_neighbors=3, far_rank=6), expected)


@settings(max_examples=60, deadline=None)
@given(
    features=arrays(
        np.float32,
        st.tuples(st.integers(4, 40), st.integers(1, 9)),
        elements=st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6, width=32),
    ),
    share=st.floats(0, 1),
    precision=st.sampled_from(PRECISIONS),
    has_far=st.booleans(),
    block_size=st.sampled_from([3, 16, None]),
)
def test_any_features_are_ranked_as_in_float64(
    features: NDArray[np.float32],
    share: float,
    precision: str,
    has_far: bool,
    block_size: int | None,
) -> None:
    assume((features != features[0]).any())
    n_images = len(features)
    far_rank = 2 + int(share * (n_images - 3))
    n_neighbors = 1 + int(share * (far_rank - 2))
    mined = mine_neighbors(
        features,
        n_neighbors=n_neighbors,
        far_rank=far_rank if has_far else None,
        precision="int16" if precision == "int8" and has_far else precision,
        block_size=block_size,
    )
    assert_exact(mined, features, far_rank if has_far else None)


@needs_int8
@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
def test_a_bound_of_the_far_radius_holds_and_is_close(make) -> None:
    features = make(1500, 256)
    exact = mine_neighbors(features, n_neighbors=20, far_rank=300)
    bound = mine_neighbors(features, n_neighbors=20, far_rank=300, far_bound=True)
    np.testing.assert_array_equal(bound.indices, exact.indices)
    assert bound.stats.precision == "int8"
    assert (bound.far_radius >= exact.far_radius).all()
    assert (bound.far_radius <= 1.05 * exact.far_radius).all()


def test_other_engines_give_the_far_radius_where_a_bound_will_do() -> None:
    features = random_features(100, 8)
    exact = mine_neighbors(features, n_neighbors=5, far_rank=30)
    bound = mine_neighbors(
        features, n_neighbors=5, far_rank=30, far_bound=True, precision="float32"
    )
    assert_same(bound, exact)


# Laws


@pytest.mark.parametrize("n_duplicates", [1, 5, 20])
def test_an_image_precedes_its_duplicates(n_duplicates: int, device: str) -> None:
    features = random_features(64, 7)
    copies = np.arange(1, n_duplicates + 1) * 3  # spread over the blocks
    features[copies] = features[0]
    mined = mine_neighbors(features, n_neighbors=5, far_rank=40, device=device, block_size=10)
    np.testing.assert_array_equal(mined.indices[:, 0], np.arange(64))
    for i in (0, *copies):
        others = [j for j in (0, *copies) if j != i][:4]
        assert mined.indices[i, 1 : 1 + len(others)].tolist() == others
        np.testing.assert_array_equal(mined.distances[i, : 1 + len(others)], 0.0)


def test_ties_at_the_last_rank_go_to_the_lower_index(device: str) -> None:
    features = np.eye(30, dtype=np.float32)  # all distances are equal
    mined = mine_neighbors(features, n_neighbors=4, far_rank=20, device=device, block_size=7)
    assert mined.indices[0].tolist() == [0, 1, 2, 3]
    assert mined.indices[2].tolist() == [2, 0, 1, 3]
    assert mined.indices[29].tolist() == [29, 0, 1, 2]
    np.testing.assert_array_equal(mined.far_radius, np.sqrt(np.float32(2)))


@pytest.mark.parametrize("block_size", [5, 37, 64, 500])
def test_block_size_changes_nothing(block_size: int, device: str) -> None:
    features = random_features(150, 37)
    features[100:120] = features[40:60]
    expected = mine_neighbors(features, n_neighbors=12, far_rank=70)
    mined = mine_neighbors(
        features, n_neighbors=12, far_rank=70, device=device, block_size=block_size
    )
    assert_same(mined, expected)


def test_permuting_the_images_permutes_the_result(device: str) -> None:
    features = random_features(150, 20)
    order = np.random.default_rng(1).permutation(150)
    mined = mine_neighbors(features, n_neighbors=12, far_rank=70, device=device)
    permuted = mine_neighbors(features[order], n_neighbors=12, far_rank=70, device=device)
    np.testing.assert_array_equal(order[permuted.indices], mined.indices[order])
    np.testing.assert_array_equal(permuted.distances, mined.distances[order])
    np.testing.assert_array_equal(permuted.far_radius, mined.far_radius[order])


def test_distances_ascend_up_to_the_far_radius() -> None:
    mined = mine_neighbors(digits()[:400], n_neighbors=50, far_rank=51)
    assert (np.diff(mined.distances, axis=1) >= 0).all()
    assert (mined.far_radius >= mined.distances[:, -1]).all()


def test_more_neighbors_extend_the_lists() -> None:
    features = digits()[:300]
    few = mine_neighbors(features, n_neighbors=5, far_rank=100)
    many = mine_neighbors(features, n_neighbors=30, far_rank=100)
    np.testing.assert_array_equal(many.indices[:, :5], few.indices)


@pytest.mark.parametrize("scale", [1e-25, 1e-40, 1e18])
def test_a_power_of_two_of_the_features_is_one_of_the_distances(scale: float, device: str) -> None:
    features = random_features(150, 20)
    scale = float(np.exp2(np.round(np.log2(scale))))
    scaled = (features * scale).astype(np.float32)
    mined = mine_neighbors(scaled, n_neighbors=12, far_rank=70, device=device)
    expected = mine_neighbors((scaled / scale).astype(np.float32), n_neighbors=12, far_rank=70)
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_array_equal(mined.far_radius, expected.far_radius * np.float32(scale))


# Refusals


@pytest.mark.parametrize(
    ("n_neighbors", "far_rank", "message"),
    [
        (0, 5, "n_neighbors must be at least 1, got 0"),
        (5, 5, "n_neighbors must be below far_rank=5, got 5"),
        (2, 10, "far_rank must be below n=10, got 10"),
        (-1, 5, "n_neighbors must be at least 1, got -1"),
        (1, 0, "n_neighbors must be below far_rank=0, got 1"),
        (11, None, "n_neighbors must be at most n=10, got 11"),
    ],
)
def test_refuses_ranks_out_of_order(n_neighbors: int, far_rank: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mine_neighbors(random_features(10, 3), n_neighbors=n_neighbors, far_rank=far_rank)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(10, dtype=np.float32), "got float32 of shape (10,)"),
        (np.zeros((10, 3)), "got float64 of shape (10, 3)"),
        (np.zeros((10, 0), dtype=np.float32), "at least 1 dim, got shape (10, 0)"),
        (np.ones((10, 3), dtype=np.float32), "not be constant, got 10 identical rows"),
        (np.float32([[-2e38], [2e38], [0], [1]]), "must fit float32, got a spread of 4e+38"),
    ],
)
def test_refuses_features_without_an_order(features: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mine_neighbors(features, n_neighbors=1, far_rank=2)


def test_refuses_features_that_are_not_finite() -> None:
    features = random_features(10, 3)
    features[4, 1] = np.nan
    features[7, 0] = np.inf
    with pytest.raises(ValueError, match="got 2 rows that are not, the first is row 4"):
        mine_neighbors(features, n_neighbors=1, far_rank=2)


def test_refuses_empty_blocks() -> None:
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        mine_neighbors(random_features(10, 3), n_neighbors=1, far_rank=2, block_size=0)


@needs_int8
def test_refuses_int8_where_an_exact_far_radius_is_asked_for() -> None:
    with pytest.raises(ValueError, match="got int8 and far_rank=5"):
        mine_neighbors(random_features(10, 3), n_neighbors=2, far_rank=5, precision="int8")


@needs_int8
def test_refuses_int8_for_more_dims_than_its_sums_hold() -> None:
    features = random_features(4, 2**16 + 1)
    with pytest.raises(ValueError, match="float32 above 65536 dims, got int8 and 65537"):
        mine_neighbors(features, n_neighbors=2, far_rank=None, precision="int8")
    mined = mine_neighbors(features, n_neighbors=2, far_rank=None)
    assert mined.stats.precision == "float32"


def test_refuses_unknown_engines_and_precisions() -> None:
    features = random_features(10, 3)
    with pytest.raises(ValueError, match=r"precision must be auto or one of .* got float16"):
        mine_neighbors(features, n_neighbors=2, far_rank=5, precision="float16")
    with pytest.raises(ValueError, match="got annoy"):
        mine_neighbors(features, n_neighbors=2, far_rank=5, engine="annoy")
    with pytest.raises(ValueError, match="at most n=10, got 11"):
        mine_neighbors(features, n_neighbors=11, far_rank=None)


def test_images_much_closer_to_each_other_than_to_the_rest_have_their_neighbors() -> None:
    generator = np.random.default_rng(0)
    near, far = generator.normal(size=(130, 4)) * 1e-9, generator.normal(size=(48, 4))
    features = np.concatenate([near, far, -far]).astype(np.float32)
    found = mine_neighbors(features, n_neighbors=50, far_rank=None)
    np.testing.assert_array_equal(found.indices, rank_images(features)[0][:, :50])
