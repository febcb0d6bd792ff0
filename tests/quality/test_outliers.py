import numpy as np
import pytest
from numpy.typing import NDArray

from unic.neighbors.mining import mine_neighbors
from unic.quality.outliers import (
    OutlierReference,
    find_outliers,
    measure_reference,
    score_outliers,
)


def points(n_images: int, n_dims: int = 6, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n_images, n_dims)).astype(np.float32)


def mine(features: NDArray[np.float32], n_neighbors: int = 10) -> NDArray[np.float32]:
    return mine_neighbors(features, n_neighbors=n_neighbors + 1, far_rank=None).distances


def with_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances to one neighbor that are these scores."""
    return np.column_stack([np.zeros(len(scores)), scores])


def test_scores_are_mean_distances_by_their_median() -> None:
    features = points(100)
    distances = np.sort(np.linalg.norm(features[:, None] - features[None], axis=2), axis=1)
    means = distances[:, 1:11].mean(axis=1)
    np.testing.assert_allclose(
        find_outliers(mine(features)).score, means / np.median(means), rtol=1e-5
    )


@pytest.mark.parametrize("shape", [-0.5, 0.0, 0.5])
def test_the_tail_of_a_pareto_distribution_is_found(shape: float) -> None:
    survival = 1 - (np.arange(200_000) + 0.5) / 200_000
    excess = -np.log(survival) if shape == 0 else (survival**-shape - 1) / shape
    distances = with_scores(10.0 + excess)
    reference = measure_reference(distances)
    assert reference.shape == pytest.approx(shape, abs=1e-3)
    found = find_outliers(distances)
    is_tail = survival < 0.25
    np.testing.assert_allclose(found.p_value[is_tail], survival[is_tail], rtol=0.02, atol=1e-5)
    assert (found.p_value[~is_tail] > 0.2499).all()


@pytest.mark.parametrize("n_images", [16, 100, 1000])
def test_a_far_image_is_an_outlier_and_few_others_are(n_images: int) -> None:
    features = np.concatenate([points(n_images), np.full((1, 6), 30, dtype=np.float32)])
    found = find_outliers(mine(features))
    assert found.is_outlier[-1]
    assert found.score.argmax() == n_images
    assert found.is_outlier[:-1].mean() < 0.1


def test_outliers_do_not_hide_each_other() -> None:
    far = 50 * np.eye(20, dtype=np.float32)
    features = np.concatenate([points(500, 20), far])
    assert find_outliers(mine(features)).is_outlier[500:].all()


def test_new_images_are_scored_as_the_training_images_are() -> None:
    distances = mine(points(200))
    found, again = (
        find_outliers(distances),
        score_outliers(distances[50:, 1:], measure_reference(distances)),
    )
    for value, part in zip(found, again, strict=True):
        assert (value[50:] == part).all()


def test_permuted_images_have_permuted_scores() -> None:
    distances = mine(points(200))
    order = np.random.default_rng(0).permutation(200)
    for value, permuted in zip(
        find_outliers(distances), find_outliers(distances[order]), strict=True
    ):
        np.testing.assert_allclose(value[order], permuted, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-6, 7.0, 1e6])
def test_scaled_features_have_the_same_scores(scale: float) -> None:
    distances = mine(points(200)).astype(np.float64)
    plain, scaled = find_outliers(distances), find_outliers(scale * distances)
    np.testing.assert_allclose(plain.score, scaled.score, rtol=1e-9)
    assert (plain.is_outlier == scaled.is_outlier).all()


@pytest.mark.parametrize("n_images", [1, 2, 3, 15])
def test_of_few_images_none_is_an_outlier(n_images: int) -> None:
    found = find_outliers(with_scores(10.0 ** np.arange(n_images)))
    assert not found.is_outlier.any()
    assert (found.p_value == 0.25).all()


def test_nothing_is_said_where_all_images_are_the_same() -> None:
    distances = np.zeros((30, 4), dtype=np.float32)
    found = find_outliers(distances)
    assert (found.score == 0).all()
    assert not found.is_outlier.any()
    new = score_outliers(np.ones((1, 3)), measure_reference(distances))
    assert not new.is_outlier.any()


def test_many_duplicates_leave_scores_finite() -> None:
    features = np.concatenate([np.repeat(points(1), 60, axis=0), points(40, seed=1)])
    found = find_outliers(mine(features))
    assert np.isfinite(found.score).all()
    assert not found.is_outlier[:60].any()


def test_what_is_wrong_is_refused() -> None:
    reference = OutlierReference(20, 2, 1.0, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"2 neighbors as in the reference, got 3"):
        score_outliers(np.ones((1, 3)), reference)
    with pytest.raises(ValueError, match=r"2 columns, got shape \(3, 1\)"):
        measure_reference(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"got float64 of shape \(3,\)"):
        find_outliers(np.zeros(3))
    with pytest.raises(ValueError, match="at least 0"):
        score_outliers(np.array([[-1.0, 1.0]]), reference)
    with pytest.raises(ValueError, match="others in row 0"):
        score_outliers(np.array([[2.0, 1.0]]), reference)
