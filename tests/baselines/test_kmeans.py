import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs

from unic.baselines.kmeans import KMeansFit, _update_centers, assign_clusters, fit_kmeans


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


def digits() -> NDArray[np.float32]:
    return load_digits().data.astype(np.float32)


def blobs() -> NDArray[np.float32]:
    points, _ = make_blobs(
        n_samples=1500, centers=20, n_features=16, cluster_std=2.0, random_state=0
    )
    return points.astype(np.float32)


def fit(features: NDArray[np.float32], n_clusters: int, **settings: int | float | str) -> KMeansFit:
    generator = torch.Generator().manual_seed(0)
    return fit_kmeans(features, n_clusters=n_clusters, generator=generator, **settings)


def squared_distances(
    features: NDArray[np.float32], centers: NDArray[np.float32]
) -> NDArray[np.float64]:
    return np.square(features[:, None].astype(np.float64) - centers).sum(axis=2)


# Against scikit-learn and float64


@pytest.mark.parametrize(("features", "n_clusters"), [(digits(), 10), (blobs(), 20), (blobs(), 35)])
def test_reaches_the_inertia_of_scikit_learn(
    features: NDArray[np.float32], n_clusters: int, device: str
) -> None:
    ours = fit(features, n_clusters, device=device)
    theirs = KMeans(n_clusters, init="k-means++", n_init=10, random_state=0).fit(features)
    assert ours.inertia <= 1.001 * theirs.inertia_


def test_reports_the_inertia_of_its_centers(device: str) -> None:
    features = digits()[:500]
    found = fit(features, 10, n_restarts=2, device=device)
    expected = squared_distances(features, found.centers).min(axis=1).sum()
    assert found.inertia == pytest.approx(expected, rel=1e-5)


def test_assigns_to_the_nearest_center(device: str) -> None:
    features, centers = digits(), digits()[:17] + np.float32(0.25)
    labels = assign_clusters(features, centers, device=device)
    assert labels.dtype == np.int64
    distances = squared_distances(features, centers)
    chosen = distances[np.arange(len(features)), labels]
    np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-5)


def test_one_iteration_is_that_of_lloyd() -> None:
    # From n seeds, one in each of two distant pairs, the means are known.
    features = np.float32([[0], [1], [100], [103]])
    found = fit(features, 2, max_iter=1)
    assert sorted(found.centers[:, 0].tolist()) == [0.5, 101.5]
    assert found.inertia == pytest.approx(5.0)


# Laws


def test_each_center_is_the_mean_of_its_images() -> None:
    features = blobs()
    found = fit(features, 20, n_restarts=1, tol=0.0)
    labels = assign_clusters(features, found.centers)
    for cluster in range(20):
        mean = features[labels == cluster].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found.centers[cluster], mean, atol=1e-4)


def test_more_restarts_do_no_worse() -> None:
    features = digits()[:600]
    assert fit(features, 30, n_restarts=6).inertia <= fit(features, 30, n_restarts=1).inertia


def test_more_iterations_do_no_worse() -> None:
    features = digits()[:600]
    inertias = [fit(features, 12, n_restarts=1, max_iter=n).inertia for n in (1, 2, 5, 50)]
    assert inertias == sorted(inertias, reverse=True)


def test_the_same_seed_finds_the_same_centers() -> None:
    first, second = (fit(blobs(), 20, n_restarts=2) for _ in range(2))
    np.testing.assert_array_equal(first.centers, second.centers)
    assert first.inertia == second.inertia


def test_an_offset_moves_the_centers_only() -> None:
    # Without centering, float32 would lose the clusters at 1e4 times their size.
    features = np.round(blobs())
    near, far = fit(features, 20), fit(features + np.float32(2**16), 20)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-4)


def test_as_many_clusters_as_images_leave_nothing() -> None:
    features = digits()[:12]
    found = fit(features, 12)
    assert found.inertia == pytest.approx(0.0, abs=1e-3)
    assert len(set(assign_clusters(features, found.centers).tolist())) == 12


def test_fewer_distinct_images_than_clusters() -> None:
    features = np.repeat(digits()[:3], 10, axis=0)
    found = fit(features, 8, n_restarts=2)
    assert found.inertia == pytest.approx(0.0, abs=1e-3)
    assert np.isfinite(found.centers).all()


def test_an_empty_cluster_takes_the_farthest_image() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    centers = torch.tensor([[1.0], [-1000.0]])
    labels = torch.zeros(4, dtype=torch.int64)
    squared = (points - centers[labels]).square().sum(dim=1)
    moved = _update_centers(points, centers, labels, squared)
    assert moved[:, 0].tolist() == [1.0, 50.0]


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_clusters": 1}, "at least 2 and at most n=20, got 1"),
        ({"n_clusters": 21}, "at least 2 and at most n=20, got 21"),
        ({"n_clusters": 3, "n_restarts": 0}, "n_restarts must be at least 1, got 0"),
        ({"n_clusters": 3, "max_iter": 0}, "max_iter must be at least 1, got 0"),
    ],
)
def test_refuses_settings_out_of_range(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(digits()[:20], **settings)


def test_refuses_features_that_are_not_finite() -> None:
    features = digits()[:20].copy()
    features[6, 0] = np.nan
    with pytest.raises(ValueError, match="got 1 rows that are not, the first is row 6"):
        fit(features, 2)


def test_refuses_variance_beyond_float32() -> None:
    with pytest.raises(ValueError, match="variance that fits float32"):
        fit(digits()[:20] * np.float32(1e30), 2)


def test_refuses_centers_of_other_dims() -> None:
    with pytest.raises(ValueError, match=re.escape("same dims, got 64 and 5")):
        assign_clusters(digits(), np.zeros((3, 5), dtype=np.float32))
