"""Compiled loops against plain sums."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.maps.made import blobs, rank_all
from unic.maps import loops
from unic.maps.graph import join_both_ways, list_neighbors


def place(n_images: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(n_images, 2)).astype(np.float32)


def test_pulls_are_sums_over_all_that_an_image_is_joined_to() -> None:
    positions = place(50)
    graph = join_both_ways(list_neighbors(rank_all(blobs(50), 6), n_neighbors=5))
    pulls = np.empty_like(positions)
    loops.attract(positions, graph.starts, graph.neighbors, pulls)
    for image in range(50):
        joined = graph.neighbors[graph.starts[image] : graph.starts[image + 1]]
        ways = positions[joined] - positions[image]
        expected = (ways / (1 + np.square(ways).sum(axis=1, keepdims=True))).sum(axis=0)
        np.testing.assert_allclose(pulls[image], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(pulls.sum(axis=0)).max() < 1e-3  # each pull has its equal


def test_pairs_give_the_sum_of_pushes_and_its_slope() -> None:
    positions = place(40)
    values, slopes = np.empty(40), np.empty_like(positions)
    loops.measure_pairs(positions, values, slopes)

    def field(at: NDArray[np.float64]) -> float:
        return float((1 / (1 + np.square(positions - at).sum(axis=1))).sum())

    for image, (x, y) in enumerate(positions.astype(np.float64)):
        assert values[image] == pytest.approx(field(np.array([x, y])))
        rise = [
            (field(np.array([x + h, y + v])) - field(np.array([x - h, y - v]))) / 2e-5
            for h, v in ((1e-5, 0), (0, 1e-5))
        ]
        np.testing.assert_allclose(slopes[image], rise, rtol=1e-4, atol=1e-4)


def test_images_are_spread_whole_and_read_where_they_are() -> None:
    positions = place(30)
    origin = np.array([-6.0, -6.0])
    density = loops.spread(positions, origin, 0.5, 26)
    assert density.sum() == pytest.approx(30)
    nodes = origin[0] + 0.5 * np.arange(26)
    center = [density.sum(axis=0) @ nodes / 30, density.sum(axis=1) @ nodes / 30]
    np.testing.assert_allclose(center, positions.mean(axis=0), atol=1e-6)
    # Splines give back a plane and its slope.
    plane = 2.0 + 3.0 * nodes[None, :] - 0.5 * nodes[:, None]
    values, slopes = np.empty(30), np.empty_like(positions)
    loops.gather(positions, plane, origin, 0.5, values, slopes)
    np.testing.assert_allclose(values, 2.0 + positions @ [3.0, -0.5], atol=1e-5)
    np.testing.assert_allclose(slopes, np.tile([3.0, -0.5], (30, 1)), atol=1e-5)


def step(force: float, speed: float, degree: int = 4) -> tuple[float, float, float]:
    """Position, speed and gain along one axis after a step from 0, of one image in two."""
    starts = np.array([0, degree, degree + 4])
    positions, speeds = np.zeros((2, 2), np.float32), np.full((2, 2), speed, np.float32)
    gains, pulls = np.ones((2, 2), np.float32), np.full((2, 2), force, np.float32)
    one = np.float32(1)
    loops.move(
        *(positions, speeds, gains, pulls, np.zeros_like(pulls), starts, one, one),
        np.float32(0.5),
    )
    return positions[0, 0], speeds[0, 0], gains[0, 0]


def test_gains_grow_while_an_image_goes_on_and_fall_where_it_turns() -> None:
    assert step(1.0, 2.0) == pytest.approx((2.2, 2.2, 1.2))
    assert step(-1.0, 2.0) == pytest.approx((0.2, 0.2, 0.8))


def test_no_step_is_long_and_those_of_hubs_are_shorter() -> None:
    position, speed, _ = step(1e6, 0.0)
    assert (position, speed) == pytest.approx((5 / np.sqrt(2), 5 / np.sqrt(2)))
    assert step(1.0, 0.0, degree=36)[0] == pytest.approx(1.2 * 20 / 36)


@pytest.mark.parametrize("n_images", [5, 300])
def test_ranks_in_the_map_are_those_of_a_full_sort(n_images: int) -> None:
    positions = place(n_images)
    positions[n_images // 2 :] = positions[: n_images - n_images // 2]  # copies
    anchors = np.arange(0, n_images, 2)
    squared = np.square(positions[anchors, None].astype(float) - positions).sum(axis=2)
    squared[np.arange(len(anchors)), anchors] = np.inf
    order = squared.argsort(axis=1, kind="stable")
    near = loops.nearest_in_map(positions, anchors, 4)
    assert near.tolist() == order[:, :4].tolist()
    others = order[:, [0, 1, 3]].astype(np.int64)
    limits = np.take_along_axis(squared, others, axis=1)
    expected = (squared[:, :, None] < limits[:, None]).sum(axis=1)
    assert loops.nearer_in_map(positions, anchors, others).tolist() == expected.tolist()


def test_counts_of_blocks_add_up() -> None:
    distances = np.random.default_rng(3).normal(size=(6, 80))
    limits = distances[:, [3, 40, 79]]
    counts = np.zeros((6, 3), dtype=np.int64)
    for start in (0, 30):
        block = np.ascontiguousarray(distances[:, start : start + (30 if start == 0 else 50)])
        loops.count_below(block, limits, counts)
    assert counts.tolist() == (distances[:, :, None] < limits[:, None]).sum(axis=1).tolist()
