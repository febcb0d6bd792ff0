from collections.abc import Mapping, Sized

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from tests.baselines.blobs import is_same_partition, rank
from unic.baselines.spectral import join_neighbors
from unic.recipe.partitions import (
    MAX_ITER,
    Counts,
    _assign,
    _seed_centers,
    _update,
    choose_counts,
    find_partitions,
    spherical_kmeans,
    tied_mixture,
)

FEW = Counts(kmeans=2, graph=2, mixtures=2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unlabeled(points: Sized) -> Tensor:
    return torch.full((len(points),), -1)


def unit_points(n_images: int = 120, n_dims: int = 5) -> NDArray[np.float32]:
    points = np.random.default_rng(0).normal(size=(n_images, n_dims))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def unit_blobs(*sizes: int, std: float = 0.05) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    points = np.eye(len(sizes), 8)[truth] + rng.normal(scale=std, size=(len(truth), 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(np.float32), truth


def slanted_pair(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two long parallel clusters, one beside and a little further along than the other."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(300) % 2)
    points = rng.normal(size=(300, 4)) * [1.0, 0.1, 0.1, 0.1]
    points[:, :2] += np.outer(2 * truth - 1, [1.0, 0.5])
    return points.astype(np.float32), truth


def reference_kmeans(
    points: NDArray[np.float64], centers: NDArray[np.float64], n_iter: int
) -> NDArray[np.int64]:
    """Assignment and normalized mean, point by point; no cluster may become empty."""
    nearest: list[int] = []
    for _ in range(n_iter + 1):
        former = nearest
        nearest = [max(range(len(centers)), key=lambda c: p @ centers[c]) for p in points]
        if former == nearest:
            break
        for c in range(len(centers)):
            total = sum(p for p, own in zip(points, nearest, strict=True) if own == c)
            centers[c] = total / np.sqrt((total**2).sum())
    return np.array(nearest)


def reference_mixture(
    points: NDArray[np.float64], clusters: NDArray[np.int64], n_clusters: int, n_iter: int
) -> NDArray[np.int64]:
    """Expectation maximization by densities, with a covariance summed image by image."""
    n_images, n_dims = points.shape
    shares = np.eye(n_clusters)[clusters]
    for _ in range(n_iter):
        sizes = shares.sum(axis=0)
        means = [shares[:, c] @ points / sizes[c] for c in range(n_clusters)]
        covariance = np.zeros((n_dims, n_dims))
        for image, cluster in np.ndindex(n_images, n_clusters):
            offset = points[image] - means[cluster]
            covariance += shares[image, cluster] * np.outer(offset, offset) / n_images
        covariance += 1e-3 * np.trace(covariance) / n_dims * np.eye(n_dims)
        inverse = np.linalg.inv(covariance)
        for image in range(n_images):
            offsets = [points[image] - mean for mean in means]
            logs = [np.log(sizes[c]) - 0.5 * o @ inverse @ o for c, o in enumerate(offsets)]
            shares[image] = np.exp(np.array(logs) - max(logs))
            shares[image] /= shares[image].sum()
    return shares.argmax(axis=1)


@pytest.mark.parametrize("n_clusters", [1, 2, 6])
def test_kmeans_equals_plain_loops(n_clusters: int) -> None:
    points = unit_points()
    found = spherical_kmeans(points, n_clusters=n_clusters, n_runs=4, generator=seeded())
    seeds = (
        _seed_centers(torch.from_numpy(points), unlabeled(points), n_clusters, 4, seeded())
        .double()
        .numpy()
    )
    assert found.shape == (4, 120)
    assert found.dtype == np.int64
    for run, centers in zip(found, seeds, strict=True):
        expected = reference_kmeans(points.astype(np.float64), centers, MAX_ITER)
        np.testing.assert_array_equal(run, expected)


@pytest.mark.parametrize("n_iter", [1, 3])
def test_mixture_equals_plain_loops(n_iter: int) -> None:
    points = unit_points()
    start = spherical_kmeans(points, n_clusters=3, n_runs=1, generator=seeded(1))[0]
    found = tied_mixture(points, n_clusters=3, generator=seeded(1), n_iter=n_iter)
    expected = reference_mixture(points.astype(np.float64), start, 3, n_iter)
    assert found.dtype == np.int64
    assert not is_same_partition(expected, start)
    assert (found == expected).mean() >= 119 / 120  # one may lie where rounding decides


def test_assignment_equals_plain_loops() -> None:
    points, centers = torch.from_numpy(unit_points()), torch.from_numpy(unit_points(12))
    clusters, cosines = _assign(points, unlabeled(points), centers.view(3, 4, 5))
    for run, image in np.ndindex(3, 120):
        own = [float(points[image].double() @ c.double()) for c in centers.view(3, 4, 5)[run]]
        assert clusters[run, image] == np.argmax(own)
        assert float(cosines[run, image]) == pytest.approx(max(own), abs=1e-6)


def test_seeds_are_drawn_by_their_squared_distance() -> None:
    angles = np.array([0.0, 1.0, 2.5])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    seeds = _seed_centers(torch.from_numpy(points), unlabeled(points), 2, 30_000, seeded()).numpy()
    drawn = (seeds[:, :, None] == points).all(axis=3).argmax(axis=2)  # (s, 2)
    squared = np.square(points[:, None] - points).sum(axis=2)
    for first in range(3):
        share = (
            np.bincount(drawn[drawn[:, 0] == first, 1], minlength=3) / (drawn[:, 0] == first).sum()
        )
        np.testing.assert_allclose(share, squared[first] / squared[first].sum(), atol=0.02)


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    points = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    centers = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    clusters = torch.tensor([[0, 0, 0]])
    found = _update(points, centers, clusters, (points @ centers[0, 0])[None])
    assert found[0, 1].tolist() == [0.0, 1.0]
    assert clusters.tolist() == [[0, 0, 0]]


def test_a_center_whose_points_cancel_stays() -> None:
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    centers = torch.tensor([[[0.6, 0.8], [0.0, 1.0]]])
    found = _update(points, centers, torch.tensor([[0, 0, 1]]), torch.zeros(1, 3))
    assert found.tolist() == centers.tolist()


# Laws


def connect(points: NDArray[np.float32]) -> sp.csr_array:
    return join_neighbors(rank(points, 8))


def find(points: NDArray[np.float32], n_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    spaces: Mapping[str, NDArray[np.float32]] = dict.fromkeys(("main", "half", "plain"), points)
    graph = connect(points)
    return find_partitions(
        spaces,
        {"main": graph, "plain": graph},
        n_clusters=n_clusters,
        counts=FEW,
        known_labels=np.full(len(points), -1),
        generator=seeded(seed),
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_tells_long_clusters_apart_that_kmeans_cannot(seed: int) -> None:
    points, truth = slanted_pair(seed)
    units = normalize(torch.from_numpy(points), dim=1).numpy()
    runs = spherical_kmeans(units, n_clusters=2, n_runs=10, generator=seeded(seed))
    for clusters in runs:
        same = (clusters == truth).mean()
        assert max(same, 1 - same) < 0.95
    assert is_same_partition(tied_mixture(points, n_clusters=2, generator=seeded(seed)), truth)


@pytest.mark.parametrize("sizes", [(40, 40, 40), (150, 20, 12)])
def test_blobs_are_found_by_every_kind(sizes: tuple[int, ...]) -> None:
    points, truth = unit_blobs(*sizes)
    found = find(points, 3)
    assert found.shape == (3 * 2 + 2 * (1 + 3 * 2) + 2, sum(sizes))
    assert found.dtype == np.int64
    is_true = np.array([is_same_partition(each, truth) for each in found])
    kinds = np.repeat(np.arange(10), [6, 1, 2, 2, 2, 1, 2, 2, 2, 2])
    assert (np.bincount(kinds, weights=is_true) > 0).all()


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    points = unit_points()
    first = find(points, 5)
    torch.manual_seed(7)
    assert first.tobytes() == find(points, 5).tobytes()
    assert first.tobytes() != find(points, 5, seed=1).tobytes()


@pytest.mark.parametrize("n_clusters", [2, 9, 12])
def test_partitions_have_at_most_k_clusters_up_to_one_an_image(n_clusters: int) -> None:
    found = find(unit_points(12), n_clusters)
    assert found.min() == 0
    assert found.max() == n_clusters - 1


def test_kmeans_of_as_many_clusters_as_images_tells_all_apart() -> None:
    found = spherical_kmeans(unit_points(9), n_clusters=9, n_runs=5, generator=seeded())
    assert np.sort(found, axis=1).tolist() == [list(range(9))] * 5


def test_kmeans_of_more_clusters_than_places_keeps_duplicates_together() -> None:
    places = np.arange(60) % 3
    found = spherical_kmeans(
        np.eye(3, dtype=np.float32)[places], n_clusters=5, n_runs=5, generator=seeded()
    )
    assert all(is_same_partition(each, places) for each in found)


def test_a_constant_dim_of_zeros_changes_no_kmeans() -> None:
    points = unit_points()
    wider = np.insert(points, 2, 0.0, axis=1)
    found = spherical_kmeans(wider, n_clusters=4, n_runs=3, generator=seeded())
    expected = spherical_kmeans(points, n_clusters=4, n_runs=3, generator=seeded())
    np.testing.assert_array_equal(found, expected)


def test_iterations_raise_the_objective_over_that_of_the_seeds() -> None:
    points = torch.from_numpy(unit_points(400))
    seeds = _seed_centers(points, unlabeled(points), 8, 5, seeded())
    found = spherical_kmeans(points.numpy(), n_clusters=8, n_runs=5, generator=seeded())
    for run, centers in zip(found, seeds, strict=True):
        sums = np.stack([points.numpy()[run == c].sum(axis=0) for c in range(8)])
        objective = np.linalg.norm(sums, axis=1).sum()
        assert objective > float((points @ centers.T).max(dim=1).values.sum())


def test_only_the_first_64_columns_make_a_mixture() -> None:
    points = unit_points(200, 70)
    found = tied_mixture(points, n_clusters=3, generator=seeded())
    expected = tied_mixture(points[:, :64].copy(), n_clusters=3, generator=seeded())
    np.testing.assert_array_equal(found, expected)


def test_seeds_are_points_and_differ_while_there_are_such() -> None:
    points = torch.eye(4).repeat(5, 1)
    seeds = _seed_centers(points, unlabeled(points), 4, 20, seeded())
    assert seeds.sum(1).equal(torch.ones(20, 4))
    assert _seed_centers(points, unlabeled(points), 7, 2, seeded()).shape == (2, 7, 4)


def test_two_empty_clusters_take_two_points() -> None:
    points = torch.eye(3)
    centers = torch.eye(3)[None, [0, 0, 0]]
    found = _update(points, centers, torch.tensor([[0, 0, 0]]), torch.tensor([[1.0, 0.2, 0.1]]))
    assert found[0].argmax(1).tolist() == [0, 2, 1]


def test_more_clusters_have_fewer_starts() -> None:
    counts = [choose_counts(n_clusters) for n_clusters in (2, 10, 100, 1000, 100_000)]
    assert counts[0] == counts[1]._replace(kmeans=24, graph=8)
    for kind in zip(*counts, strict=True):
        assert list(kind) == sorted(kind, reverse=True)
    assert counts[-1] == Counts(kmeans=8, graph=4)


# Refusals


def test_refuses_spaces_without_a_plain_one() -> None:
    points = unit_points()
    with pytest.raises(KeyError, match="plain"):
        find_partitions(
            {"main": points},
            {},
            n_clusters=2,
            counts=FEW,
            known_labels=np.full(len(points), -1),
            generator=seeded(),
        )


@pytest.mark.parametrize("n_places", [2, 3, 5])
def test_a_mixture_of_copies_tells_their_places_apart(n_places: int) -> None:
    generator = torch.Generator().manual_seed(0)
    places = normalize(torch.randn(n_places, 16, generator=generator), dim=1).numpy()
    truth = np.repeat(np.arange(n_places), 20)
    found = tied_mixture(places[truth], n_clusters=n_places, generator=generator)
    assert len(np.unique(found)) >= 2
    for place in range(n_places):
        assert len(np.unique(found[truth == place])) == 1


def test_labeled_images_stay_in_the_cluster_of_their_label() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(60, 5)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    known = np.where(np.arange(60) < 20, np.arange(60) % 2, -1)
    runs = spherical_kmeans(
        points,
        n_clusters=4,
        n_runs=6,
        known_labels=known,
        generator=torch.Generator().manual_seed(0),
    )
    assert (runs[:, :20] == known[:20]).all()
    assert all(len(np.unique(run)) == 4 for run in runs)
