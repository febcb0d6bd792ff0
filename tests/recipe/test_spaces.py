import numpy as np
import pytest
from numpy.typing import NDArray

from unic.recipe.spaces import Directions, find_class_whitening, find_directions, whiten


def spread_features(
    n_images: int = 60, n_dims: int = 7, dtype: type = np.float32
) -> NDArray[np.float32]:
    """Around a mean that is not 0, of another spread in every dim."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n_images, n_dims)) * np.linspace(0.4, 2.0, n_dims)
    return (noise + rng.normal(size=n_dims)).astype(dtype)


def reference_coordinates(
    features: NDArray[np.float32], new: NDArray[np.float32], whitening: float, n_directions: int
) -> NDArray[np.float64]:
    """By the singular vectors of the centered features, image by image."""
    units = np.stack([row / np.sqrt((row**2).sum()) for row in features.astype(np.float64)])
    mean = units.mean(axis=0)
    _, singular, directions = np.linalg.svd(units - mean, full_matrices=False)
    found = []
    for row in new.astype(np.float64):
        centered = row / np.sqrt((row**2).sum()) - mean
        coordinates = []
        for value, direction in list(zip(singular, directions, strict=True))[:n_directions]:
            sign = np.sign(direction[np.abs(direction).argmax()])
            variance = value**2 / len(features)
            coordinates.append(sign * (direction @ centered) * variance**-whitening)
        found.append(np.array(coordinates) / np.linalg.norm(coordinates))
    return np.stack(found)


@pytest.mark.parametrize("n_directions", [3, 7])
@pytest.mark.parametrize("whitening", [0.0, 0.125, 0.25, 0.5])
def test_coordinates_equal_those_of_singular_vectors(whitening: float, n_directions: int) -> None:
    features = spread_features()
    new = spread_features(80)[60:]
    found = find_directions(features, n_directions).transform(new, whitening=whitening)
    expected = reference_coordinates(features, new, whitening, n_directions)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def labeled_points() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points of three classes, the third without labels, and labels of half of the others."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    noise = rng.normal(size=(120, 4)) * [3.0, 1.0, 0.1, 1.0]
    points = (4.0 * np.eye(3, 4)[truth] + noise).astype(np.float32)
    return points, np.where((truth < 2) & (np.arange(120) < 60), truth, -1)


def test_class_whitening_is_the_inverse_root_of_the_shrunk_covariance() -> None:
    points, known = labeled_points()
    covariance = np.zeros((4, 4))
    for label in range(2):
        of_class = points[known == label].astype(np.float64)
        for point in of_class - of_class.mean(axis=0):
            covariance += np.outer(point, point)
    n_labeled = (known >= 0).sum()
    share = n_labeled / (n_labeled + 4)
    spread = points.astype(np.float64).std(axis=0)
    shrunk = 0.5 * share * (4 * covariance / np.trace(covariance) + np.eye(4))
    shrunk += (1 - share) * np.diag(4 * spread / spread.sum())
    found = find_class_whitening(points, known).astype(np.float64)
    whitened = found.T @ shrunk @ found
    np.testing.assert_allclose(whitened / whitened[0, 0], np.eye(4), atol=1e-5)


# Laws


def test_what_varies_within_classes_counts_for_less() -> None:
    points, known = labeled_points()
    lengths = np.linalg.norm(find_class_whitening(points, known), axis=1)
    assert lengths[0] < 0.7 * lengths[2]


def test_class_whitening_ignores_names_of_classes() -> None:
    points, known = labeled_points()
    expected = find_class_whitening(points, known)
    renamed = np.where(known >= 0, 5 - known, -1)
    np.testing.assert_allclose(find_class_whitening(points, renamed), expected, rtol=1e-4)


def test_single_images_of_their_classes_tell_nothing_but_how_all_images_spread() -> None:
    points, _ = labeled_points()
    known = np.where(np.arange(120) < 3, np.arange(120), -1)
    found = find_class_whitening(points, known).astype(np.float64)
    spread = points.std(axis=0, dtype=np.float64)
    expected = 1 / (3 / 7 + 4 / 7 * 4 * spread / spread.sum())
    squares = found @ found.T
    np.testing.assert_allclose(squares, np.diag(expected / expected.max()), atol=1e-6)


def test_zeros_have_no_length_to_scale() -> None:
    one = np.ones(2, dtype=np.float32)
    directions = Directions(0 * one, np.eye(2, dtype=np.float32), one)
    found = whiten(np.float32([[3, 4], [0, 0]]), directions.scales(0.25))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_directions_are_orthonormal_and_variances_fall() -> None:
    directions = find_directions(spread_features())
    vectors = directions.vectors.astype(np.float64)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(7), atol=1e-6)
    assert (np.diff(directions.variances) < 0).all()
    assert directions.variances[-1] > 0
    largest = np.abs(vectors).argmax(axis=0)
    assert (vectors[largest, np.arange(7)] > 0).all()


def test_full_whitening_makes_all_spreads_equal_before_the_last_scaling() -> None:
    features = spread_features(500)
    directions = find_directions(features)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    coordinates = (units - directions.mean) @ directions.vectors / np.sqrt(directions.variances)
    np.testing.assert_allclose(coordinates.T @ coordinates / 500, np.eye(7), atol=1e-3)
    rows = coordinates / np.linalg.norm(coordinates, axis=1, keepdims=True)
    np.testing.assert_allclose(directions.transform(features, whitening=0.5), rows, atol=1e-4)


def test_without_whitening_cosines_are_those_of_the_centered_features() -> None:
    features = spread_features()
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    centered = units - units.mean(axis=0)
    centered /= np.linalg.norm(centered, axis=1, keepdims=True)
    found = find_directions(features).transform(features, whitening=0.0)
    np.testing.assert_allclose(found @ found.T, centered @ centered.T, atol=1e-5)


@pytest.mark.parametrize("whitening", [0.0, 0.25, 0.5])
def test_rows_have_unit_length(whitening: float) -> None:
    features = spread_features()
    found = find_directions(features).transform(features, whitening=whitening)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)


def test_the_length_of_a_feature_does_not_matter() -> None:
    features = spread_features()
    factors = np.float32(2.0) ** np.arange(-30, 30, dtype=np.float32)[:, None]
    found, expected = find_directions(features * factors), find_directions(features)
    for left, right in zip(found, expected, strict=True):
        assert left.tobytes() == right.tobytes()
    left = expected.transform(features * factors, whitening=0.25)
    assert left.tobytes() == expected.transform(features, whitening=0.25).tobytes()


def test_the_order_of_images_does_not_matter() -> None:
    features = spread_features()
    order = np.random.default_rng(1).permutation(60)
    found = find_directions(features[order]).transform(features, whitening=0.25)
    expected = find_directions(features).transform(features, whitening=0.25)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_duplicates_of_all_images_change_nothing() -> None:
    features = spread_features()
    found = find_directions(np.repeat(features, 3, axis=0)).transform(features, whitening=0.25)
    expected = find_directions(features).transform(features, whitening=0.25)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_dim_of_zeros_has_no_direction() -> None:
    features = spread_features()
    wider = np.insert(features, 3, 0.0, axis=1)
    found = find_directions(wider)
    assert found.vectors.shape == (8, 7)
    assert np.abs(found.vectors[3]).max() < 1e-6
    expected = find_directions(features).transform(features, whitening=0.5)
    np.testing.assert_allclose(found.transform(wider, whitening=0.5), expected, atol=1e-3)


def test_copied_dims_add_no_direction() -> None:
    features = spread_features()
    assert find_directions(np.hstack([features, features])).vectors.shape == (14, 7)


def test_few_images_span_fewer_directions_than_there_are_dims() -> None:
    directions = find_directions(spread_features(4))
    assert directions.vectors.shape == (7, 3)
    assert directions.transform(spread_features(4), whitening=0.5).shape == (4, 3)


def test_no_more_directions_than_asked_for_and_the_most_spread_ones() -> None:
    features = spread_features()
    few, all_ = find_directions(features, 2), find_directions(features)
    np.testing.assert_array_equal(few.vectors, all_.vectors[:, :2])
    np.testing.assert_array_equal(few.variances, all_.variances[:2])


# Refusals


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (spread_features(dtype=np.float64), r"must be a float32 array .* got float64"),
        (spread_features()[0], r"must be a float32 array of shape \(n, d\), got .* \(7,\)"),
        (np.full((5, 3), np.inf, dtype=np.float32), r"finite, got 5 rows .* the first is row 0"),
        (np.ones((5, 0), dtype=np.float32), r"at least 1 dim, got shape \(5, 0\)"),
        (np.ones((5, 3), dtype=np.float32), r"must differ in direction, got all of one"),
        (np.zeros((5, 3), dtype=np.float32), r"must differ in direction, got all of one"),
        (
            np.outer(np.arange(1, 9), [0.3, -2.0, 1.0]).astype(np.float32),
            r"must differ in direction, got all of one",
        ),
        (spread_features(1), r"must differ in direction, got all of one"),
    ],
)
def test_refuses_to_find_directions_of(features: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_directions(features)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (spread_features(dtype=np.float64), r"must be a float32 array .* got float64"),
        (spread_features()[:, :-1], r"features must have 7 dims, got 6"),
        (np.full((5, 7), np.nan, dtype=np.float32), r"finite, got 5 rows .* the first is row 0"),
    ],
)
def test_refuses_to_transform(features: NDArray[np.float32], message: str) -> None:
    directions = find_directions(spread_features())
    with pytest.raises(ValueError, match=message):
        directions.transform(features, whitening=0.25)
