import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tests.maps.made import blobs
from unic.maps.placing import find_principal, fit_box, order_by_place


def turn(degrees: float) -> NDArray[np.float64]:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


# Principal components


def test_components_are_those_of_a_full_decomposition() -> None:
    features = blobs(200)
    lengths = np.linalg.norm(features - np.median(features, axis=0), axis=1)
    assert lengths.max() < 3 * np.median(lengths)  # none is drawn in
    found = find_principal(features)
    left, values, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * values[:2] / (left[:, 0] * values[0]).std()
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, signs * expected, atol=1e-4)
    assert found[:, 0].std() == pytest.approx(1)


def test_signs_do_not_depend_on_the_decomposition() -> None:
    features = blobs(100) + 3
    found = find_principal(features)
    loadings = np.linalg.lstsq(found, features - features.mean(axis=0), rcond=None)[0]
    assert (loadings.sum(axis=1) > 0).all()


def test_an_outlier_does_not_decide_where_the_others_are() -> None:
    features = blobs(300)
    features[5] = 1e30
    found = find_principal(features)
    assert np.abs(found).max() < 10
    assert found.std(axis=0).min() > 0.3


def test_outliers_among_copies_are_drawn_in_too() -> None:
    features = blobs(300)
    features[:200], features[5] = features[0], 1e30
    assert find_principal(features)[200:].std(axis=0).min() > 0.1


@pytest.mark.parametrize(
    "features",
    [np.ones((9, 3)), np.zeros((9, 3)), np.ones((1, 1)), 1e-42 * np.arange(8.0).reshape(8, 1)],
)
def test_features_that_hardly_vary_have_finite_components(features: NDArray[np.float64]) -> None:
    found = find_principal(features.astype(np.float32))
    assert found.shape == (len(features), 2)
    assert np.isfinite(found).all()


def test_threads_of_products_change_no_byte() -> None:
    features = blobs(9_000)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"):
            found.append(find_principal(features).tobytes())
    assert found[0] == found[1]


# Order


def test_images_near_each_other_are_close_in_the_order() -> None:
    positions = np.random.default_rng(0).uniform(size=(4096, 2)).astype(np.float32)
    order = order_by_place(positions)
    assert sorted(order) == list(range(4096))
    steps = np.linalg.norm(np.diff(positions[order], axis=0), axis=1)
    assert steps.mean() < 2.5 / 64  # of a grid of 64 by 64


def test_quarters_come_one_after_the_other() -> None:
    positions = np.array([[1, 1], [0, 1], [1, 0], [0, 0], [0.1, 0]], dtype=np.float32)
    assert order_by_place(positions).tolist() == [3, 4, 2, 1, 0]


def test_images_in_one_place_stay_in_order() -> None:
    assert order_by_place(np.full((5, 2), 3, dtype=np.float32)).tolist() == [0, 1, 2, 3, 4]


# Box


def test_a_map_fills_its_box_with_its_aspect() -> None:
    positions = np.array([[10, 10], [30, 10], [30, 14], [10, 14]], dtype=np.float32)
    expected = [[-1, -0.2], [1, -0.2], [1, 0.2], [-1, 0.2]]
    np.testing.assert_allclose(fit_box(positions, positions.astype(float)), expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [0, 37, 90, 200])
@pytest.mark.parametrize("mirror", [1, -1])
def test_a_turned_or_mirrored_map_is_the_same_map(degrees: float, mirror: int) -> None:
    like = np.random.default_rng(1).normal(size=(50, 2)) * [3, 1]
    turned = (like * [mirror, 1]) @ turn(degrees) * 40 + [100, -7]
    boxed = fit_box(turned.astype(np.float32), like)
    np.testing.assert_allclose(boxed, fit_box(like.astype(np.float32), like), atol=1e-4)
    assert boxed.dtype == np.float32
    assert np.abs(boxed).max() == 1


def test_one_place_is_the_center() -> None:
    assert fit_box(np.full((3, 2), 9, dtype=np.float32), np.zeros((3, 2))).tolist() == [[0, 0]] * 3
