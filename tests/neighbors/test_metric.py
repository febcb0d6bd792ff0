import numpy as np
import pytest

from unic.neighbors.metric import to_euclidean


def test_cosine_ranks_as_the_cosine_does() -> None:
    features = np.random.default_rng(0).normal(size=(40, 7)).astype(np.float32)
    scaled = to_euclidean(features, "cosine").astype(np.float64)
    distances = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    wide = features.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    cosines = wide @ wide.T / np.outer(norms, norms)
    np.testing.assert_allclose(distances**2, 2 - 2 * cosines, atol=1e-6)


def test_euclidean_changes_nothing() -> None:
    features = np.ones((2, 3), dtype=np.float32)
    assert to_euclidean(features, "euclidean") is features


def test_zero_feature_stays_zero() -> None:
    scaled = to_euclidean(np.zeros((2, 3), dtype=np.float32), "cosine")
    assert not scaled.any()
    assert scaled.dtype == np.float32


def test_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="euclidean or cosine, got manhattan"):
        to_euclidean(np.zeros((2, 3), dtype=np.float32), "manhattan")


@pytest.mark.parametrize("factor", [1e-43, 1e-30, 1e-22, 1e19, 1e30])
def test_lengths_beyond_the_squares_of_float32_change_no_direction(factor: float) -> None:
    features = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    scaled = (features * factor).astype(np.float32)
    unit = to_euclidean(scaled, "cosine")
    exact = scaled.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, exact, atol=1e-6)
