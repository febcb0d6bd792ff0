"""Which listed images are the nearest and which is at the far rank, against a full sort."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.rank_reference import duplicated_features, random_features
from unic.neighbors.exact.lists import FarWindows, NearLists
from unic.neighbors.exact.settling import (
    SpecialRows,
    bound_far,
    merge_specials,
    settle_far,
    settle_near,
)

N_IMAGES, HALF_SCALE = 60, 0.5
POSITIONS = np.array([3, 59, 20, 41])


class Listed:
    """Features in a random order of the columns, and lists that hold all of them."""

    def __init__(self, make=random_features) -> None:
        self.features = make(N_IMAGES, 5)
        self.order = np.random.default_rng(1).permutation(N_IMAGES)
        exact = self.features.astype(np.float64)[self.order]
        self.half_norms = np.square(exact).sum(1) / 2
        self.x = self.half_norms - exact[POSITIONS] @ exact.T  # (b, n)
        squared = np.square(exact[POSITIONS][:, None] - exact).sum(2)  # (b, n), by column
        self.squared = np.empty_like(squared)
        self.squared[:, self.order] = squared  # by image
        self.own = self.order[POSITIONS]
        self.columns = np.tile(np.arange(N_IMAGES, dtype=np.int32), (len(POSITIONS), 1))

    def near(self, n_listed: int = N_IMAGES) -> NearLists:
        """The images of the least lower bounds."""
        values = np.nextafter(self.x.astype(np.float32), np.float32(-np.inf))
        order = np.argsort(values, axis=1, kind="stable")
        kept = order[:, :n_listed]
        cuts = np.full(len(POSITIONS), np.inf, dtype=np.float32)
        if n_listed < N_IMAGES:
            cuts = np.take_along_axis(values, order[:, n_listed, None], 1)[:, 0]
        return NearLists(
            np.take_along_axis(values, kept, 1),
            np.take_along_axis(self.columns, kept, 1),
            np.full(len(POSITIONS), n_listed, dtype=np.int32),
            np.full(len(POSITIONS), n_listed, dtype=np.int32),
            cuts,
            np.zeros(len(POSITIONS), dtype=np.float32),
        )

    def settle(self, near: NearLists, n_neighbors: int):
        indices = np.empty((len(POSITIONS), n_neighbors), dtype=np.int64)
        squared = np.empty((len(POSITIONS), n_neighbors))
        is_settled = settle_near(
            self.features,
            self.order,
            POSITIONS,
            self.half_norms,
            HALF_SCALE,
            near,
            indices,
            squared,
        )
        return indices, squared, is_settled

    def nearest(self, n_neighbors: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """By itself, distance, index."""
        images = np.arange(N_IMAGES)
        rows = [
            np.lexsort((images, squared, images != own))
            for own, squared in zip(self.own, self.squared, strict=True)
        ]
        indices = np.array(rows)[:, :n_neighbors]
        return indices, np.take_along_axis(self.squared, indices, 1)

    def window(self, first: int = 0, last: int = N_IMAGES, raised: float = 0.0) -> FarWindows:
        """The images from a rank to another, of estimates raised by a little."""
        values = (self.x + raised).astype(np.float32)
        order = np.argsort(values, axis=1, kind="stable")
        ranked = np.take_along_axis(values, order, 1)
        n_rows = len(POSITIONS)
        return FarWindows(
            np.ascontiguousarray(ranked[:, first:last]),
            np.ascontiguousarray(order[:, first:last].astype(np.int32)),
            np.full(n_rows, last - first, dtype=np.int32),
            np.full(n_rows, last - first, dtype=np.int32),
            ranked[:, first].copy() if first else np.full(n_rows, -np.inf, dtype=np.float32),
            ranked[:, last - 1].copy() if last < N_IMAGES else np.full(n_rows, np.inf, np.float32),
            np.full(n_rows, first, dtype=np.int32),
            np.empty((n_rows, 0), dtype=np.float32),
            np.zeros(n_rows, dtype=np.float32),
        )

    def settle_far(self, far: FarWindows, far_rank: int, specials: SpecialRows):
        half_norms = self.half_norms[POSITIONS]
        slacks = np.full(len(POSITIONS), 1e-4)
        return settle_far(
            self.features,
            self.order,
            POSITIONS,
            half_norms,
            HALF_SCALE,
            slacks,
            far,
            far_rank,
            specials,
        )


def special_rows(*weights: int, seed: int = 0) -> SpecialRows:
    """Features that so many images share, numbered from 1000 on, at random distances."""
    squared = np.random.default_rng(seed).uniform(0, 20, size=(len(POSITIONS), len(weights)))
    first = np.cumsum([0, *weights])
    members = 1000 + np.random.default_rng(1).permutation(sum(weights))
    for number in range(len(weights)):
        members[first[number] : first[number + 1]].sort()
    return SpecialRows(squared, members, first, np.array(weights, dtype=np.int64))


# The nearest


@pytest.mark.parametrize("n_neighbors", [1, 7, N_IMAGES])
@pytest.mark.parametrize("make", [random_features, duplicated_features])
def test_the_nearest_of_complete_lists_are_those_of_a_full_sort(make, n_neighbors: int) -> None:
    listed = Listed(make)
    indices, squared, is_settled = listed.settle(listed.near(), n_neighbors)
    expected_indices, expected_squared = listed.nearest(n_neighbors)
    assert is_settled.all()
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-12, atol=1e-12)


def test_rows_whose_cut_leaves_no_doubt_are_settled() -> None:
    listed = Listed()
    indices, _, is_settled = listed.settle(listed.near(20), 10)
    assert is_settled.all()
    np.testing.assert_array_equal(indices, listed.nearest(10)[0])


def test_rows_that_the_cut_leaves_in_doubt_are_not_settled() -> None:
    listed = Listed()
    near = listed.near(20)
    for row, squared in enumerate(listed.nearest(10)[1][:, -1]):
        last = squared * HALF_SCALE - listed.half_norms[POSITIONS[row]]
        near.cuts[row] = last - 1e-3 if row % 2 else last + 1e-3
    assert listed.settle(near, 10)[2].tolist() == [True, False, True, False]


def test_lists_of_too_few_are_not_settled() -> None:
    listed = Listed()
    near = listed.near(20)
    near.counts[2] = 9
    assert listed.settle(near, 10)[2].tolist() == [True, True, False, True]


@pytest.mark.parametrize("weights", [(3,), (40, 2, 17), (1, 1, 1, 1)])
@pytest.mark.parametrize("n_neighbors", [1, 8, 30])
def test_special_images_are_merged_as_by_a_sort(n_neighbors: int, weights: tuple[int, ...]) -> None:
    listed, specials = Listed(), special_rows(*weights)
    is_settled = np.array([True, True, False, True])
    near_indices, near_squared = map(np.ascontiguousarray, listed.nearest(n_neighbors))
    indices, squared = merge_specials(near_indices, near_squared, is_settled, specials, n_neighbors)
    for row in np.flatnonzero(is_settled):
        images = np.concatenate([near_indices[row], specials.members])
        distances = np.concatenate([near_squared[row], np.repeat(specials.squared[row], weights)])
        distances[0] = -1  # itself
        order = np.lexsort((images, distances))[:n_neighbors]
        assert indices[row].tolist() == images[order].tolist()
        assert squared[row].tolist() == distances[order].clip(min=0).tolist()


# The far rank


@pytest.mark.parametrize("weights", [(), (3,), (40, 2, 17)])
@pytest.mark.parametrize("far_rank", [1, 25, 59])
@pytest.mark.parametrize("make", [random_features, duplicated_features])
def test_the_far_rank_of_whole_windows_is_that_of_a_sort(
    make, far_rank: int, weights: tuple[int, ...]
) -> None:
    listed, specials = Listed(make), special_rows(*weights)
    found = listed.settle_far(listed.window(), far_rank, specials)
    every = np.concatenate([listed.squared, np.repeat(specials.squared, weights, axis=1)], axis=1)
    np.testing.assert_allclose(found, np.sort(every, axis=1)[:, far_rank], rtol=1e-12)


def test_windows_tell_the_ranks_within_them_and_no_others() -> None:
    listed, specials = Listed(), special_rows()
    far = listed.window(20, 40)
    for far_rank in range(N_IMAGES):
        found = listed.settle_far(far, far_rank, specials)
        if 20 < far_rank < 39:  # the slack is less than the distance to the next
            np.testing.assert_allclose(found, np.sort(listed.squared, axis=1)[:, far_rank])
        else:
            assert (found == -1).all()


@pytest.mark.parametrize("weights", [(), (40, 2, 17)])
@pytest.mark.parametrize("far_rank", [1, 25, 59])
def test_a_bound_of_the_far_rank_holds_and_is_that_of_the_upper_bounds(
    far_rank: int, weights: tuple[int, ...]
) -> None:
    listed, specials = Listed(), special_rows(*weights)
    raised = 0.01
    far = listed.window(raised=raised)
    half_norms = listed.half_norms[POSITIONS]
    found = bound_far(half_norms, HALF_SCALE, far, far_rank, specials)
    special = np.repeat(specials.squared, weights, axis=1)
    exact = np.sort(np.concatenate([listed.squared, special], axis=1), axis=1)[:, far_rank]
    upper = np.concatenate([listed.squared + raised / HALF_SCALE, special], axis=1)
    assert (found >= exact).all()
    np.testing.assert_allclose(found, np.sort(upper, axis=1)[:, far_rank], rtol=1e-5)


def test_a_window_bounds_no_rank_outside_it() -> None:
    listed, specials = Listed(), special_rows()
    far, half_norms = listed.window(20, 40), listed.half_norms[POSITIONS]
    for far_rank in (0, 19, 40, 59):
        assert (bound_far(half_norms, HALF_SCALE, far, far_rank, specials) == -1).all()
