from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unic.baselines import lloyd
from unic.baselines.lloyd import Run, describe, find_nearest, iterate, multiply
from unic.neighbors.exact.vectors import measure_pairs
from unic.runtime.devices import has_int8

PRECISIONS = [False, pytest.param(True, marks=pytest.mark.skipif(not has_int8(), reason="no VNNI"))]


@pytest.fixture(autouse=True)
def one_compiled_thread() -> Iterator[None]:
    """As small problems have, see `fit_kmeans`."""
    n_threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(n_threads)


def draw(n_points: int, n_dims: int, seed: int = 0) -> NDArray[np.float32]:
    """Overlapping clusters of a spectrum that decays, entries at most 1."""
    generator = np.random.default_rng(seed)
    spread = np.arange(1, n_dims + 1) ** -0.5  # (d,)
    centers = generator.standard_normal((20, n_dims)) * spread
    noise = generator.standard_normal((n_points, n_dims)) * spread
    points = centers[generator.integers(20, size=n_points)] + noise
    points -= points.mean(axis=0)
    return (points / np.abs(points).max()).astype(np.float32)


def make_ugly(kind: str) -> NDArray[np.float32]:
    points = draw(700, 33)
    if kind == "copies":
        points[:600] = points[np.arange(600) % 5]
    if kind == "outlier":
        points *= np.float32(1e-5)
        points[13] = 1.0
    if kind == "constant dims":
        points[:, 3:] = 0.25
    if kind == "whole numbers":
        points = np.round(points * 3) / np.float32(4)
    if kind == "spikes":  # what is left out is as long as what is kept
        points *= np.float32(0.003)
        points[np.arange(700), np.arange(700) % 33] = 1.0
    if kind == "tight":  # clusters much nearer to each other than to the mean
        points = np.float32(1e-4) * points + np.sign(draw(700, 33, seed=1)[:, :1])
    if kind == "tiny":
        points[:650] *= np.float32(1e-30)
    return points


UGLY = [
    *("copies", "outlier", "constant dims", "whole numbers", "spikes", "tight", "tiny"),
    "plain",
]


def squared_distances(
    points: NDArray[np.float32], centers: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Shape ``(n, c)``, as they are defined."""
    return np.stack(
        [
            measure_pairs(points, np.arange(len(points)), centers, np.full(len(points), center))
            for center in range(len(centers))
        ],
        axis=1,
    )


def reference(
    points: NDArray[np.float32],
    known: NDArray[np.int64],
    centers: NDArray[np.float32],
    max_iter: int,
    max_shift: float = 0.0,
) -> tuple[NDArray[np.int64], float, int, NDArray[np.float32]]:
    """Lloyd's iterations from all distances; labels, inertia, iterations and centers."""

    def assign() -> NDArray[np.int64]:
        return np.where(known >= 0, known, squared_distances(points, centers).argmin(axis=1))

    labels = assign()
    n_iter, has_settled = 0, False
    while n_iter < max_iter and not has_settled:
        n_iter += 1
        own = squared_distances(points, centers)[np.arange(len(points)), labels]
        own[known >= 0] = -1.0
        counts = np.bincount(labels, minlength=len(centers))
        members = labels.copy()
        farthest = np.argsort(-own, kind="stable")
        for place, empty in enumerate(np.flatnonzero(counts == 0)):
            members[farthest[place]] = empty
        moved = centers.copy()
        for center in np.unique(members):
            moved[center] = points[members == center].mean(axis=0, dtype=np.float64)
        shift = np.square(moved.astype(np.float64) - centers).sum()
        centers, previous = moved, labels
        labels = assign()
        has_settled = bool(shift <= max_shift or (labels == previous).all())
    inertia = squared_distances(points, centers)[np.arange(len(points)), labels].sum()
    return labels, float(inertia), n_iter, centers


def run(
    points: NDArray[np.float32],
    centers: NDArray[np.float32],
    *,
    is_int8: bool,
    known: NDArray[np.int64] | None = None,
    max_iter: int = 100,
) -> Run:
    if known is None:
        known = np.full(len(points), -1)
    rows = describe(points, is_int8=is_int8)
    return iterate(points, rows, known, centers, max_iter=max_iter, max_shift=0.0)


# Against all distances


@pytest.mark.parametrize("is_int8", PRECISIONS)
@pytest.mark.parametrize(("n_points", "n_dims", "n_clusters"), [(700, 33, 40), (2500, 7, 3)])
@pytest.mark.parametrize("max_iter", [1, 2, 40])
def test_iterations_equal_those_from_all_distances(
    n_points: int, n_dims: int, n_clusters: int, max_iter: int, *, is_int8: bool
) -> None:
    points = draw(n_points, n_dims)
    start = points[:n_clusters]
    found = run(points, start, is_int8=is_int8, max_iter=max_iter)
    known = np.full(n_points, -1)
    _, inertia, n_iter, centers = reference(points, known, start, max_iter)
    assert found.n_iter == n_iter
    np.testing.assert_allclose(found.centers, centers, atol=2e-7)
    assert found.inertia == pytest.approx(inertia, rel=1e-6)


@pytest.mark.parametrize("is_int8", PRECISIONS)
@pytest.mark.parametrize("kind", UGLY)
def test_iterations_equal_those_from_all_distances_on_ugly_points(
    kind: str, *, is_int8: bool
) -> None:
    points = make_ugly(kind)
    start = points[::20]
    known = np.full(len(points), -1)
    known[5:40] = np.arange(35) % 6
    found = run(points, start, is_int8=is_int8, known=known, max_iter=8)
    _, inertia, _, centers = reference(points, known, start, 8)
    np.testing.assert_allclose(found.centers, centers, atol=2e-7)
    assert found.inertia == pytest.approx(inertia, rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("kind", UGLY)
def test_finds_the_nearest_of_all_and_the_lower_of_equals(kind: str) -> None:
    points = make_ugly(kind)
    centers = np.concatenate([points[::20], points[::35], points[:3]])
    expected = squared_distances(points, centers).argmin(axis=1)
    np.testing.assert_array_equal(find_nearest(points, centers), expected)


@pytest.mark.parametrize("is_int8", PRECISIONS)
@pytest.mark.parametrize("kind", UGLY)
def test_labels_are_exact_while_centers_wander(kind: str, *, is_int8: bool) -> None:
    # Longer than snapshots are kept, by steps of all sizes, one center still and one leaping.
    points = make_ugly(kind)
    generator = np.random.default_rng(0)
    centers = points[::30].copy()
    rows = describe(points, is_int8=is_int8, largest=4.0)
    known = np.full(len(points), -1)
    known[3] = 2
    assigned = lloyd._Assignment(points, rows, known, len(centers), keeps_bounds=True)
    typical = points.std()
    for step in range(3 * lloyd._N_SNAPSHOTS):
        assigned.renew(centers)
        expected = squared_distances(points, centers).argmin(axis=1)
        expected[3] = 2
        np.testing.assert_array_equal(assigned.labels, expected)
        size = typical * 10.0 ** -(step % 7)
        moved = centers + size * generator.standard_normal(centers.shape) / 4
        moved[0], moved[1] = centers[0], points[generator.integers(len(points))]
        centers = moved.astype(np.float32)


@pytest.mark.parametrize("is_int8", PRECISIONS)
@pytest.mark.parametrize("kind", UGLY)
def test_errors_of_products_are_within_their_bounds(kind: str, *, is_int8: bool) -> None:
    points = make_ugly(kind)
    centers = points[::9] * np.float32(0.7)
    rows = describe(points, is_int8=is_int8)
    columns = describe(centers, is_int8=is_int8, largest=float(rows.norms.max()))
    products = multiply(torch.from_numpy(rows.matrix), torch.from_numpy(columns.matrix)).numpy()
    scaled = products.astype(np.float32) * columns.scales * rows.scales[:, None]
    halves = (columns.squares / 2).astype(np.float32)
    values = (halves - scaled).astype(np.float64)  # (n, c)
    exact, others = points.astype(np.float64), centers.astype(np.float64)
    wanted = np.square(others).sum(axis=1) / 2 - exact @ others.T
    margins = rows.errors[:, None] * columns.norms + rows.norms[:, None] * columns.errors
    assert (np.abs(values - wanted) <= margins).all()


# Laws


@pytest.mark.parametrize("is_int8", PRECISIONS)
def test_neither_bounds_nor_precision_change_a_bit(
    monkeypatch: pytest.MonkeyPatch, *, is_int8: bool
) -> None:
    points = draw(1500, 48)
    expected = run(points, points[:60], is_int8=False)
    monkeypatch.setattr(lloyd, "_BOUND_ENTRIES", 0)
    monkeypatch.setattr(lloyd, "_BLOCK_ENTRIES", 1)
    found = run(points, points[:60], is_int8=is_int8)
    np.testing.assert_array_equal(found.centers, expected.centers)
    assert found[:2] == expected[:2]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba has one thread")
@pytest.mark.parametrize("is_int8", PRECISIONS)
def test_threads_change_no_bit(*, is_int8: bool) -> None:
    points, found = draw(1500, 130), []
    for n_threads in (1, 2):
        numba.set_num_threads(n_threads)
        torch.set_num_threads(n_threads)
        found.append(run(points, points[:60], is_int8=is_int8))
    np.testing.assert_array_equal(found[0].centers, found[1].centers)
    assert found[0][:2] == found[1][:2]


def test_an_empty_cluster_takes_the_farthest_point() -> None:
    points = np.float32([[0], [1], [2], [50]]) / 64
    centers = np.float32([[1], [-1000]]) / 64
    found = run(points, centers, is_int8=False, max_iter=1)
    assert (64 * found.centers[:, 0]).tolist() == [1.0, 50.0]


def test_an_empty_cluster_takes_the_farthest_point_on_devices() -> None:
    points = torch.tensor([[0.0], [1.0], [2.0], [50.0]])
    centers = torch.tensor([[1.0], [-1000.0]])
    labels = torch.zeros(4, dtype=torch.int64)
    squared = (points - centers[labels]).square().sum(dim=1)
    moved = lloyd._update_centers(points, centers, labels, squared)
    assert moved[:, 0].tolist() == [1.0, 50.0]


def test_no_empty_cluster_takes_a_labeled_point() -> None:
    points = np.float32([[0], [1], [2], [20], [50]]) / 64
    centers = np.float32([[1], [-1000]]) / 64
    known = np.array([-1, -1, -1, -1, 0])
    found = run(points, centers, is_int8=False, known=known, max_iter=1)
    assert (64 * found.centers[:, 0]).tolist() == [13.25, 20.0]


def test_points_that_are_all_labeled_stay() -> None:
    points = draw(60, 5)
    known = np.arange(60) % 4
    found = run(points, points[:4], is_int8=False, known=known)
    means = np.stack([points[known == c].mean(axis=0, dtype=np.float64) for c in range(4)])
    np.testing.assert_allclose(found.centers, means, atol=1e-7)


@pytest.mark.skipif(not has_int8(), reason="no VNNI")
def test_digits_that_tell_few_centers_apart_give_way_to_float32() -> None:
    points = make_ugly("tight")
    rows = describe(points, is_int8=True)
    assigned = lloyd._Assignment(points, rows, np.full(700, -1), 70, keeps_bounds=True)
    assigned.renew(points[::10])
    assert assigned._rows.matrix.dtype == np.float32


@pytest.mark.skipif(not has_int8(), reason="no VNNI")
@pytest.mark.parametrize("n_rows", [1, 16, 17, 40])
def test_products_of_digits_are_whole_numbers(n_rows: int) -> None:
    generator = np.random.default_rng(0)
    left = generator.choice([-127, 127], (n_rows, 1000)).astype(np.int8)
    right = generator.choice([-127, 127], (5, 1000)).astype(np.int8)
    left[0], right[0] = 127, -127
    found = multiply(torch.from_numpy(left), torch.from_numpy(right)).numpy()
    np.testing.assert_array_equal(found, left.astype(np.int64) @ right.T.astype(np.int64))
