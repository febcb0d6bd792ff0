from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.baselines.blobs import (
    is_same_partition,
    permute,
    run,
    three_blobs,
)
from unic.baselines.spherical_kmeans import (
    _iterate,
    _seed_centers,
    _update_centers,
    cluster,
    fit_spherical_kmeans,
    measure_objective,
)


def unit_points(n_points: int = 120, n_dims: int = 5) -> NDArray[np.float64]:
    points = np.random.default_rng(0).normal(size=(n_points, n_dims))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def reference_iterate(
    points: NDArray[np.float64], centers: NDArray[np.float64], n_iterations: int
) -> tuple[NDArray[np.float64], float]:
    """Assignment and normalized mean, point by point; no cluster may become empty."""
    for _ in range(n_iterations):
        nearest = [max(range(len(centers)), key=lambda c: p @ centers[c]) for p in points]
        for c in range(len(centers)):
            total = sum(p for p, own in zip(points, nearest, strict=True) if own == c)
            centers[c] = total / np.sqrt(sum(value**2 for value in total))
    return centers, sum(max(p @ center for center in centers) for p in points)


@pytest.mark.parametrize("n_iterations", [1, 2, 5])
def test_iterations_equal_plain_loops(n_iterations: int) -> None:
    points = unit_points()
    centers, n_done = _iterate(torch.from_numpy(points), torch.from_numpy(points[:6]), n_iterations)
    expected, objective = reference_iterate(points, points[:6].copy(), n_done)
    np.testing.assert_allclose(centers, expected, atol=1e-9)
    found = measure_objective(torch.from_numpy(points), centers)
    assert found == pytest.approx(objective, rel=1e-9)


def test_finds_the_best_of_all_partitions_of_few_points() -> None:
    points = unit_points(9, 3)
    best = max(
        sum(np.linalg.norm(points[np.array(owner) == c].sum(axis=0)) for c in range(3))
        for owner in product(range(3), repeat=9)
    )
    generator = torch.Generator().manual_seed(0)
    found = fit_spherical_kmeans(
        torch.from_numpy(points), n_clusters=3, n_restarts=30, generator=generator
    )
    assert found.objective == pytest.approx(best, rel=1e-6)


def test_iterations_never_lower_the_objective() -> None:
    points = torch.from_numpy(unit_points(400))
    objectives = [
        measure_objective(points, _iterate(points, points[:12], n)[0]) for n in range(1, 20)
    ]
    assert (np.diff(objectives) >= -1e-9).all()


def test_the_best_restart_is_kept() -> None:
    points = torch.from_numpy(unit_points(400)).float()

    def best(n: int) -> float:
        generator = torch.Generator().manual_seed(0)
        return fit_spherical_kmeans(
            points, n_clusters=12, n_restarts=n, generator=generator
        ).objective

    found = [best(n) for n in (1, 3, 10)]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_seeds_are_points_and_differ_while_there_are_such() -> None:
    points = torch.from_numpy(unit_points(4)).repeat(5, 1)
    for seed in range(10):
        seeds = _seed_centers(points, 4, torch.Generator().manual_seed(seed))
        assert len({tuple(row) for row in seeds.tolist()}) == 4
    assert len(_seed_centers(points, 7, torch.Generator().manual_seed(0))) == 7


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    centers = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    clusters = torch.tensor([0, 0, 0])
    found = _update_centers(points, centers, clusters, points @ centers[0])
    assert found[1].tolist() == [0.0, 1.0]


def test_a_center_whose_points_cancel_stays() -> None:
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    centers = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    found = _update_centers(points, centers, torch.tensor([0, 0, 1]), torch.zeros(3))
    assert found.tolist() == centers.tolist()


# Laws


def test_permuting_images_permutes_the_result() -> None:
    inputs, _ = three_blobs()
    order = np.random.default_rng(1).permutation(240)
    found, permuted = run(cluster, inputs), run(cluster, permute(inputs, order))
    assert is_same_partition(found["train"][0][order], permuted["train"][0])


def test_the_length_of_a_feature_does_not_matter() -> None:
    inputs, _ = three_blobs(std=4.0)
    factors = np.float32(2.0) ** np.random.default_rng(0).integers(-9, 9, size=(240, 1))
    scaled = {**inputs.features, "train": inputs.features["train"] * factors.astype(np.float32)}
    found, expected = run(cluster, inputs._replace(features=scaled)), run(cluster, inputs)
    assert found["test"][0].tolist() == expected["test"][0].tolist()


def test_images_of_zero_length_are_clustered_too() -> None:
    inputs, _ = three_blobs()
    inputs.features["train"][7] = 0.0
    assert run(cluster, inputs)["train"][0][7] in range(3)
