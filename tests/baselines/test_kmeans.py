import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs
from torch import Tensor

from unic.baselines.kmeans import (
    KMeansFit,
    _choose_seeds,
    _Field,
    _seed_centers,
    assign_clusters,
    fit_kmeans,
)
from unic.baselines.lloyd import describe, iterate_on_device
from unic.runtime.devices import has_int8


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
    assert ours.inertia <= 1.005 * theirs.inertia_  # restarts of either find other optima


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


def test_no_image_is_assigned_to_nothing(device: str) -> None:
    found = assign_clusters(digits()[:0], digits()[:3], device=device)
    assert found.shape == (0,)
    assert found.dtype == np.int64


def test_one_iteration_is_that_of_lloyd() -> None:
    # From n seeds, one in each of two distant pairs, the means are known.
    features = np.float32([[0], [1], [100], [103]])
    found = fit(features, 2, max_iter=1)
    assert sorted(found.centers[:, 0].tolist()) == [0.5, 101.5]
    assert found.inertia == pytest.approx(5.0)


# Semi-supervised k-means against plain loops


def labeled_blobs() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Twelve blobs; a third of the images of the first five is labeled."""
    points, truth = make_blobs(
        n_samples=600, centers=12, n_features=6, cluster_std=3.0, random_state=0
    )
    is_labeled = (truth < 5) & (np.arange(600) % 3 == 0)
    return points.astype(np.float32), np.where(is_labeled, truth, -1).astype(np.int64)


def reference_lloyd(
    features: NDArray[np.float32],
    known: NDArray[np.int64],
    centers: NDArray[np.float64],
    n_iterations: int,
) -> tuple[NDArray[np.float64], float]:
    """Lloyd's iterations in which labeled images stay in their cluster, image by image."""
    points = features.astype(np.float64)

    def assign() -> list[int]:
        return [
            int(label) if label >= 0 else int(np.square(point - centers).sum(axis=1).argmin())
            for point, label in zip(points, known, strict=True)
        ]

    for _ in range(n_iterations):
        clusters = np.array(assign())
        centers = np.stack([points[clusters == c].mean(axis=0) for c in range(len(centers))])
    clusters = np.array(assign())
    return centers, sum(
        float(np.square(p - centers[c]).sum()) for p, c in zip(points, clusters, strict=True)
    )


@pytest.mark.parametrize("n_iterations", [1, 3, 8])
def test_iterations_equal_plain_loops_where_labels_are_known(
    n_iterations: int, device: str
) -> None:
    features, known = labeled_blobs()
    points, labels = torch.from_numpy(features).to(device), torch.from_numpy(known).to(device)
    (start,) = _seed_centers(points, None, labels, 12, 1, torch.Generator().manual_seed(0))
    expected, inertia = reference_lloyd(features, known, start.cpu().double().numpy(), n_iterations)
    found = iterate_on_device(points, labels, start, max_iter=n_iterations, max_shift=0.0)
    np.testing.assert_allclose(found.centers, expected, atol=1e-4)
    assert found.inertia == pytest.approx(inertia, rel=1e-5)


def test_centers_start_at_the_means_of_classes_and_at_unlabeled_images() -> None:
    features, known = labeled_blobs()
    points, generator = torch.from_numpy(features), torch.Generator().manual_seed(0)
    starts = list(_seed_centers(points, None, torch.from_numpy(known), 12, 3, generator))
    unlabeled = {tuple(row) for row in features[known < 0].tolist()}
    for start in starts:
        for label in range(5):
            mean = features[known == label].mean(axis=0, dtype=np.float64)
            np.testing.assert_allclose(start[label], mean, atol=1e-5)
        assert {tuple(row) for row in start[5:].tolist()} <= unlabeled
        assert len({tuple(row) for row in start.tolist()}) == 12
    assert len({tuple(start.ravel().tolist()) for start in starts}) == 3


# Laws of semi-supervised k-means


def test_without_a_label_it_is_k_means() -> None:
    features = blobs()
    plain = fit(features, 20, n_restarts=2)
    unknown = np.full(len(features), -1)
    same = fit_kmeans(
        features,
        n_clusters=20,
        known_labels=unknown,
        n_restarts=2,
        generator=torch.Generator().manual_seed(0),
    )
    np.testing.assert_array_equal(same.centers, plain.centers)
    assert same[1:] == plain[1:]


def fit_known(
    features: NDArray[np.float32], known: NDArray[np.int64], n_clusters: int, **settings: int
) -> KMeansFit:
    generator = torch.Generator().manual_seed(0)
    return fit_kmeans(
        features, n_clusters=n_clusters, known_labels=known, generator=generator, **settings
    )


def test_centers_are_means_of_the_constrained_clusters() -> None:
    features, known = labeled_blobs()
    found = fit_known(features, known, 12, max_iter=1000)
    clusters = np.where(known >= 0, known, assign_clusters(features, found.centers))
    for cluster in range(12):
        mean = features[clusters == cluster].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found.centers[cluster], mean, atol=0.05)


def test_labels_far_from_their_cluster_pull_its_center() -> None:
    features = np.float32([[0], [1], [10], [11], [30], [31]])
    known = np.array([0, -1, 0, -1, -1, -1])
    found = fit_known(features, known, 3)
    # Cluster 0 holds 0 and 10 whatever is nearer; of the rest, pairs are best.
    clusters = np.where(known >= 0, known, assign_clusters(features, found.centers))
    assert clusters[[0, 2]].tolist() == [0, 0]
    best = min(
        sum(
            float(
                np.square(
                    features[np.array(split) == c] - features[np.array(split) == c].mean()
                ).sum()
            )
            for c in set(split)
        )
        for split in product(range(3), repeat=6)
        if split[0] == split[2] == 0
    )
    assert found.inertia == pytest.approx(best, rel=1e-5)


def test_class_numbers_name_their_clusters_also_with_gaps() -> None:
    features, known = labeled_blobs()
    names = np.array([3, 9, 0, 11, 7])
    renamed = np.where(known >= 0, names[known], -1)
    ours, theirs = fit_known(features, known, 12), fit_known(features, renamed, 12)
    np.testing.assert_allclose(theirs.centers[names], ours.centers[:5], atol=1e-5)
    assert theirs.inertia == pytest.approx(ours.inertia, rel=1e-6)


def test_all_labels_known_leave_class_means() -> None:
    features, known = labeled_blobs()
    some = known >= 0
    found = fit_known(features[some], known[some], 5)
    for label in range(5):
        mean = features[known == label].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(found.centers[label], mean, atol=1e-4)


@pytest.mark.parametrize(
    ("known", "n_clusters", "message"),
    [
        ([0, 1, -1], 2, r"int64 array of shape \(4,\), got int64 of shape \(3,\)"),
        ([0, 1, 2, -1], 2, "at least -1 and below n_clusters=2, got -1 to 2"),
        ([0, -2, -1, -1], 2, "at least -1 and below n_clusters=2, got -2 to 0"),
        ([0, 0, 0, -1], 3, "got 1 images for 2 clusters"),
    ],
)
def test_refuses_labels_that_do_not_fit(known: list[int], n_clusters: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_known(digits()[:4], np.array(known), n_clusters)


WAYS = [
    "torch",
    "float32",
    pytest.param("int8", marks=pytest.mark.skipif(not has_int8(), reason="no VNNI")),
]


def draw_whole(n_points: int, n_dims: int) -> NDArray[np.float32]:
    """Multiples of a 127th, at most 1, reached in each row: digits of a byte leave nothing out."""
    generator = np.random.default_rng(0)
    points = generator.integers(-20, 21, (n_points, n_dims))
    points[np.arange(n_points), generator.integers(n_dims, size=n_points)] = 127
    return (points / 127).astype(np.float32)


def choose(
    points: NDArray[np.float32],
    way: str,
    *,
    n_seeds: int,
    n_runs: int = 1,
    is_labeled: NDArray[np.bool_] | None = None,
    given: NDArray[np.float32] | None = None,
    device: str = "cpu",
) -> NDArray[np.int64]:
    rows = None if way == "torch" else describe(points, is_int8=way == "int8")
    none = np.zeros(len(points), dtype=np.bool_)
    found = _choose_seeds(
        torch.from_numpy(points).to(device),
        rows,
        torch.from_numpy(none if is_labeled is None else is_labeled).to(device),
        torch.from_numpy(points[:0] if given is None else given).to(device),
        n_seeds,
        n_runs,
        torch.Generator().manual_seed(0),
    )
    return found.cpu().numpy()


def reference_seeds(
    points: NDArray[np.float32],
    is_labeled: NDArray[np.bool_],
    given: NDArray[np.float32],
    n_seeds: int,
    n_runs: int,
) -> NDArray[np.int64]:
    """Greedy k-means++ in float64, a candidate at a time, from the same draws."""
    generator = torch.Generator().manual_seed(0)
    exact = points.astype(np.float64)

    def lower(closest: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.minimum(closest, np.square(exact - center).sum(axis=1) * ~is_labeled)

    n_candidates = 2 + int(math.log(len(given) + n_seeds))
    closest = np.full((n_runs, len(points)), np.inf)
    for center in given.astype(np.float64):
        closest = np.stack([lower(each, center) for each in closest])
    seeds: list[list[int]] = [[] for _ in range(n_runs)]
    for number in range(n_seeds):
        draws: Tensor
        if number == 0 and not len(given):
            drawn = torch.randint(len(points), (n_runs, 1), generator=generator).tolist()
        else:
            draws = torch.rand(n_runs, n_candidates, generator=generator, dtype=torch.float64)
            drawn = [
                np.searchsorted(np.cumsum(sums), share * sums.sum(), side="right").tolist()
                for sums, share in zip(closest, draws.numpy(), strict=True)
            ]
        for run, candidates in enumerate(drawn):
            lowered = [lower(closest[run], exact[candidate]) for candidate in candidates]
            best = int(np.argmin([each.sum() for each in lowered]))
            closest[run] = lowered[best]
            seeds[run].append(candidates[best])
    return np.array(seeds)


# Greedy k-means++ against a candidate at a time


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n_seeds", "n_runs"), [(1, 1), (2, 3), (30, 1), (30, 4)])
def test_seeds_are_those_of_greedy_k_means(way: str, n_seeds: int, n_runs: int) -> None:
    points = draw_whole(400, 19)
    none = np.zeros(400, dtype=np.bool_)
    expected = reference_seeds(points, none, points[:0], n_seeds, n_runs)
    np.testing.assert_array_equal(choose(points, way, n_seeds=n_seeds, n_runs=n_runs), expected)


@pytest.mark.parametrize("way", WAYS)
def test_seeds_are_added_to_given_centers_among_unlabeled_points(way: str) -> None:
    points = draw_whole(400, 19)
    is_labeled = np.arange(400) % 3 == 0
    given = points[is_labeled][:7] * np.float32(0.5)
    expected = reference_seeds(points, is_labeled, given, 12, 2)
    found = choose(points, way, n_seeds=12, n_runs=2, is_labeled=is_labeled, given=given)
    np.testing.assert_array_equal(found, expected)
    assert not is_labeled[found].any()


# Laws of seeding


def test_devices_agree(device: str) -> None:
    points = draw_whole(300, 19)
    expected = choose(points, "torch", n_seeds=10, n_runs=2)
    found = choose(points, "torch", n_seeds=10, n_runs=2, device=device)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("way", WAYS)
def test_each_of_few_distinct_points_is_found(way: str) -> None:
    points = draw_whole(6, 40)[np.arange(300) % 6]
    found = choose(points, way, n_seeds=9, n_runs=3)
    assert {frozenset(run) for run in (found % 6).tolist()} == {frozenset(range(6))}


@pytest.mark.parametrize("way", WAYS)
def test_clusters_finer_than_digits_are_found(way: str) -> None:
    # Within two clumps, entries are less than half of what a digit is worth.
    points = np.repeat(draw_whole(20, 40), 15, axis=0) * np.float32(3e-3)
    points += 1e-5 * np.random.default_rng(0).standard_normal(points.shape)
    points[:, 0] = np.where(np.arange(300) < 150, -1, 1)
    found = choose(points.astype(np.float32), way, n_seeds=20, n_runs=2)
    assert min(len(set(run)) for run in (found // 15).tolist()) == 20


@pytest.mark.skipif(not has_int8(), reason="no VNNI")
def test_inertia_is_measured_in_float32_once_digits_are_too_coarse() -> None:
    points = draw_whole(300, 19)[np.arange(300) % 100]
    points += np.float32(1e-3) * np.random.default_rng(0).standard_normal((300, 19), np.float32)
    tensor, none = torch.from_numpy(points), torch.zeros(300, dtype=torch.bool)
    field = _Field(tensor, describe(points, is_int8=True), none, tensor[:0], 1)
    for number in range(100):
        field.add(torch.tensor([[number]]))
    assert field._rows is not None
    assert field._rows.matrix.dtype == np.float32
    expected = torch.cdist(tensor.double(), tensor[:100].double()).square().amin(dim=1)
    torch.testing.assert_close(field.closest[0].double(), expected, atol=1e-6, rtol=1e-4)


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
