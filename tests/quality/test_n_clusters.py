from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.baselines.blobs import rank
from unic.baselines.spectral import embed, join_neighbors
from unic.neighbors.metric import to_euclidean
from unic.quality import n_clusters as module
from unic.quality.n_clusters import (
    N_RUNS,
    Criteria,
    Estimate,
    decide,
    estimate_n_clusters,
    interpolate,
    make_grid,
    measure,
    measure_modularity,
    thin_grid,
)
from unic.recipe.partitions import spherical_kmeans

GRID = np.array([2, 3, 4, 5, 6])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(
    sizes: Sequence[int], std: float = 0.1, n_dims: int = 24
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Gaussians around random directions, in random order, and which of them an image is of."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(len(sizes), n_dims))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = centers[truth] + rng.normal(scale=std, size=(len(truth), n_dims))
    return points.astype(np.float32), truth


def estimate(
    features: NDArray[np.float32],
    bounds: tuple[int, int] | None = None,
    known_labels: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Estimate:
    return estimate_n_clusters(
        features, known_labels=known_labels, generator=seeded(seed), bounds=bounds
    )


def reference_rand(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """The adjusted Rand index, by all pairs of images."""
    pairs = np.array(list(combinations(range(len(one)), 2)))
    in_one = one[pairs[:, 0]] == one[pairs[:, 1]]
    in_other = other[pairs[:, 0]] == other[pairs[:, 1]]
    by_chance = in_one.sum() * in_other.sum() / len(pairs)
    most = (in_one.sum() + in_other.sum()) / 2
    return float(((in_one & in_other).sum() - by_chance) / (most - by_chance))


def reference_silhouette(points: NDArray[np.float64], clusters: NDArray[np.int64]) -> float:
    means = {c: points[clusters == c].mean(axis=0) for c in np.unique(clusters)}
    values = []
    for point, cluster in zip(points, clusters, strict=True):
        own = np.linalg.norm(point - means[cluster])
        other = min(np.linalg.norm(point - mean) for c, mean in means.items() if c != cluster)
        values.append((other - own) / max(own, other))
    return float(np.mean(values))


def reference_modularity(graph: NDArray[np.float64], clusters: NDArray[np.int64]) -> float:
    degrees, total = graph.sum(axis=1), graph.sum()
    modularity = 0.0
    for i in range(len(graph)):
        for j in range(len(graph)):
            if clusters[i] == clusters[j]:
                modularity += graph[i, j] / total - degrees[i] * degrees[j] / total**2
    return modularity


def test_criteria_are_those_of_plain_loops() -> None:
    features, truth = blobs([20, 15, 10], std=0.25)
    points = to_euclidean(features, "cosine")
    known = np.where(np.arange(len(truth)) % 3 == 0, truth, -1)
    found = measure(points, GRID, known_labels=known, generator=seeded())
    graph = join_neighbors(rank(points, 11))
    eigenvectors = embed(graph, int(GRID[-1]))
    generator = seeded()
    for row, number in enumerate(GRID.tolist()):
        units = to_euclidean(eigenvectors[:, :number].astype(np.float32), "cosine")
        parts, by_graph = (
            spherical_kmeans(each, n_clusters=number, n_runs=N_RUNS, generator=generator)
            for each in (points, units)
        )
        expected = (
            np.mean([reference_rand(one, other) for one in parts for other in by_graph]),
            np.mean([reference_silhouette(units.astype(float), each) for each in by_graph]),
            np.mean([reference_modularity(graph.toarray(), each) for each in by_graph]),
            np.mean(
                [
                    reference_rand(each[known >= 0], known[known >= 0])
                    for each in (*parts, *by_graph)
                ]
            ),
        )
        np.testing.assert_allclose([each[row] for each in found], expected, atol=1e-5)


def test_modularity_of_two_cliques() -> None:
    clusters = np.repeat([0, 1], 4)
    dense = (clusters[:, None] == clusters[None, :]) - np.eye(8)
    graph = join_neighbors(np.array([[i, *np.flatnonzero(dense[i])] for i in range(8)]))
    assert measure_modularity(graph, clusters, 2) == pytest.approx(0.5)
    assert measure_modularity(graph, np.zeros(8, dtype=np.int64), 3) == pytest.approx(0.0)


@pytest.mark.parametrize(("low", "high"), [(2, 300), (7, 7), (2, 3), (101, 120)])
def test_a_grid_rises_by_a_tenth_from_bound_to_bound(low: int, high: int) -> None:
    grid = make_grid(low, high)
    assert (grid[0], grid[-1]) == (low, high)
    steps = np.diff(grid)
    assert (steps >= 1).all()
    assert (steps <= np.maximum(1, 0.1 * grid[:-1] + 1)).all()
    assert set(grid) >= set(range(low, min(high, 11)))


def test_the_reference_is_measured_on_a_part_of_the_grid() -> None:
    grid = make_grid(2, 300)
    coarse = thin_grid(grid)
    assert set(range(2, 11)) | {300} <= set(coarse.tolist()) <= set(grid.tolist())
    assert len(coarse) < len(grid) / 2 + 9
    line = 3.0 - np.log(coarse)
    for each in interpolate(coarse, Criteria(line, line, line, line), grid):
        np.testing.assert_allclose(each, 3.0 - np.log(grid))


def decide_by(
    agreement: Sequence[float],
    silhouette: Sequence[float],
    modularity: Sequence[float],
    labels: Sequence[float] | None = None,
) -> Estimate:
    """On a reference of 0.1, which is taken off."""
    known, flat = np.full(5, np.nan), np.full(5, 0.1)
    given = Criteria(
        np.array(agreement) + flat,
        np.array(silhouette) + flat,
        np.array(modularity) + flat,
        known if labels is None else np.array(labels),
    )
    return decide(GRID, given, Criteria(flat, flat, flat, known))


def test_the_best_is_the_highest_mean_beyond_the_reference() -> None:
    found = decide_by([0.5, 0.1, 0.8, 0.7, 0.2], [0.3, 0.1, 0.6, 0.6, 0.2], [0, 0, 0.2, 0.1, 0])
    assert (found.n_clusters, found.low, found.high) == (4, 4, 5)
    assert found.candidates == (4, 2)
    np.testing.assert_allclose(found.curve.score, [0.4, 0.1, 0.7, 0.65, 0.2])
    assert np.isnan(found.curve.labels).all()


def test_the_interval_holds_the_best_of_every_criterion() -> None:
    found = decide_by([0, 0.1, 0.8, 0.1, 0], [0, 0.3, 0.2, 0.1, 0], [0, 0, 0, 0, 0.9])
    assert (found.n_clusters, found.low, found.high) == (4, 3, 6)


def test_labels_decide_with_the_others() -> None:
    found = decide_by(
        [0, 0.3, 0.4, 0, 0], [0, 0.3, 0.3, 0, 0], [0, 1, 0, 0, 0], [0, 0.9, 0.1, 0, 0]
    )
    assert found.n_clusters == 3
    assert found.curve.score[1] == pytest.approx(0.5)


def test_what_is_no_more_than_a_gaussian_is_one_cluster() -> None:
    found = decide_by([0, 0.05, 0, 0, 0], [0, 0, 0, 0.01, 0], [0, 0, 0, 0, 0])
    assert (found.n_clusters, found.low, found.high) == (1, 1, 5)
    assert found.candidates[:2] == (1, 3)


@pytest.mark.parametrize(
    ("sizes", "bounds"),
    [([40] * 3, (2, 8)), ([20] * 12, (8, 16)), ([60, 40, 20, 20, 15, 15], (3, 10))],
)
def test_blobs_are_counted(sizes: list[int], bounds: tuple[int, int]) -> None:
    """Within one: k-means may join two of them in every run of the true number."""
    found = estimate(blobs(sizes)[0], bounds)
    assert abs(found.n_clusters - len(sizes)) <= 1
    assert found.n_clusters == found.candidates[0]
    assert found.low <= len(sizes) <= found.high
    assert tuple(found.curve.n_clusters[[0, -1]]) == bounds
    assert all(each.shape == found.curve.score.shape for each in found.curve)


def test_a_gaussian_is_one_cluster() -> None:
    features = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    found = estimate(features, (2, 12))
    assert (found.n_clusters, found.low) == (1, 1)


def test_the_seed_decides_all() -> None:
    features = blobs([12] * 4, std=0.25)[0]
    one, same, other = (estimate(features, (2, 6), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.curve, same.curve)
    assert one[:4] == same[:4]
    assert (one.curve.score != other.curve.score).any()


def test_the_order_of_images_does_not_change_the_number() -> None:
    features = blobs([25] * 5)[0]
    order = np.random.default_rng(1).permutation(len(features))
    one, other = estimate(features, (3, 8)), estimate(features[order], (3, 8))
    assert one.n_clusters == other.n_clusters == 5


def test_of_many_images_a_sample_is_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SAMPLE", 60)
    features, truth = blobs([80] * 4)
    known = np.where(np.arange(len(truth)) == int(np.flatnonzero(truth == 3)[0]), truth, -1)
    found = estimate(features, known_labels=known)
    assert found.low <= 4 <= found.high
    assert found.curve.n_clusters[-1] == 20


def test_no_fewer_than_the_labeled_classes_are_sought() -> None:
    features, truth = blobs([15] * 6)
    known = np.where((truth < 4) & (np.arange(len(truth)) % 2 == 0), truth, -1)
    found = estimate(features, known_labels=known)
    assert found.curve.n_clusters[0] == 4
    assert abs(found.n_clusters - 6) <= 1
    assert not np.isnan(found.curve.labels).any()


def test_copies_of_images_do_no_harm() -> None:
    features = blobs([12] * 4)[0]
    found = estimate(np.concatenate([features] * 3), (2, 8))
    assert np.isfinite(found.curve.score).all()
    assert found.low <= 4 <= found.high


def test_a_class_of_five_images_is_within_the_interval() -> None:
    found = estimate(blobs([40, 40, 40, 5])[0], (2, 8))
    assert found.low <= 4
    assert found.high >= 3


@pytest.mark.parametrize("n_images", [4, 5, 10])
def test_few_images_are_enough(n_images: int) -> None:
    found = estimate(blobs([n_images // 2, n_images - n_images // 2])[0])
    assert 1 <= found.low <= found.n_clusters <= found.high < n_images
    assert np.isfinite(found.curve.score).all()


def test_images_that_are_all_labeled_apart_are_no_harm() -> None:
    found = estimate(blobs([2, 2])[0], known_labels=np.arange(4))
    assert found.curve.n_clusters.tolist() == [3]


@pytest.mark.parametrize("bounds", [(1, 5), (6, 5), (2, 40)])
def test_bounds_out_of_order_are_refused(bounds: tuple[int, int]) -> None:
    message = f"bounds must be 2 <= low <= high < n=40, got {bounds[0]} and {bounds[1]}"
    with pytest.raises(ValueError, match=message):
        estimate(blobs([20, 20])[0], bounds)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="of at least 4 images, got 3"):
        estimate(blobs([3])[0])


def test_features_and_labels_that_do_not_fit_are_refused() -> None:
    features = blobs([20, 20])[0]
    with pytest.raises(ValueError, match=r"known_labels must be an int64 array of shape \(40,\)"):
        estimate(features, known_labels=np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="features must differ in direction"):
        estimate(np.ones((40, 3), dtype=np.float32))
    features[7, 0] = np.nan
    with pytest.raises(ValueError, match="the first is row 7"):
        estimate(features)
