"""What a pass keeps of each row, against all that it saw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from unic.neighbors.exact.lists import (
    FarRank,
    FarWindows,
    NearLists,
    Side,
    far_windows,
    near_lists,
    order_statistic,
    scan,
)

NONE = np.empty(0, dtype=np.int64)


# Order statistics


@settings(max_examples=100, deadline=None)
@given(
    arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.integers(-4, 4).map(float)
        | st.floats(allow_nan=False, allow_infinity=False, width=32),
    )
)
def test_order_statistics_are_those_of_a_sort(values: NDArray[np.float32]) -> None:
    found = [order_statistic(values, place) for place in range(len(values))]
    np.testing.assert_array_equal(found, np.sort(values))


def test_order_statistics_tell_the_smallest_values_apart() -> None:
    values = np.array([0, 1e-30, 2e-30, 1], dtype=np.float32)
    assert [order_statistic(values, place) for place in range(4)] == values.tolist()


# Scans


def make_side(n_images: int, seed: int) -> Side:
    generator = np.random.default_rng(seed)
    half_norms = generator.uniform(0, 1, n_images).astype(np.float32)
    return Side(
        generator.uniform(0.5, 1, n_images).astype(np.float32),
        half_norms,
        half_norms * np.float32(1.0001),
        np.sqrt(2 * half_norms),
        generator.uniform(0, 1e-3, n_images).astype(np.float32),
    )


def part(side: Side, rows: slice) -> Side:
    return Side(*(values[rows] for values in side))


class Seen:
    """All images of some rows, and what a scan of them in tiles should have found."""

    def __init__(self, n_rows: int, n_columns: int, has_fine: bool = False) -> None:
        generator = np.random.default_rng(2)
        self.rows, self.columns = make_side(n_rows, 0), make_side(n_columns, 1)
        self.high = generator.normal(size=(n_rows, n_columns)).astype(np.float32)
        self.low = self.high[:0, :0]
        if has_fine:
            self.high = generator.integers(-9, 10, size=self.high.shape).astype(np.int32)
            self.low = generator.integers(-99, 100, size=self.high.shape).astype(np.int32)
        self.weight = np.float32(1 / 254)

    def scan(
        self,
        near: NearLists,
        far: FarWindows,
        far_rank: FarRank,
        *,
        n_neighbors: int,
        n_kept: int,
        width: int,
    ) -> None:
        n_columns = self.high.shape[1]
        for start in range(0, n_columns, width):
            chunk = slice(start, min(start + width, n_columns))
            scan(
                np.ascontiguousarray(self.high[:, chunk]),
                np.ascontiguousarray(self.low[:, chunk]),
                self.weight,
                self.rows,
                part(self.columns, chunk),
                near,
                far,
                0,
                start,
                False,
                start,
                0,
                n_neighbors,
                n_kept,
                far_rank,
            )

    @property
    def products(self) -> NDArray[np.float32]:
        digits = self.high.astype(np.float32)
        if self.low.size:
            digits = digits + self.weight * self.low.astype(np.float32)
        return self.rows.scales[:, None] * (self.columns.scales * digits)

    @property
    def spreads(self) -> NDArray[np.float32]:
        rows, columns = self.rows, self.columns
        return rows.errors[:, None] * columns.norms + rows.norms[:, None] * columns.errors

    @property
    def lower(self) -> NDArray[np.float32]:
        """Lower bounds of x."""
        return self.columns.half_norms - self.products - self.spreads

    def upper(self, *, is_bound: bool) -> NDArray[np.float32]:
        """Estimates of x, or upper bounds."""
        if is_bound:
            return self.columns.tops - self.products + self.spreads
        return self.columns.half_norms - self.products


def empty(n_rows: int, n_columns: int, *, n_kept: int, rank: int, is_bound: bool = False):
    far_rank = FarRank(rank, n_columns, 0, is_bound, NONE)
    near = near_lists(n_kept, np.zeros(n_rows, dtype=np.float32))
    specials = np.empty((n_rows, 0), dtype=np.float32)
    return near, far_windows(specials, np.zeros(n_rows, dtype=np.float32), far_rank), far_rank


@pytest.mark.parametrize("width", [64, 1000])
@pytest.mark.parametrize("has_fine", [False, True])
def test_no_image_off_a_near_list_is_under_its_cut(has_fine: bool, width: int) -> None:
    seen = Seen(6, 1000, has_fine)
    near, far, far_rank = empty(6, 1000, n_kept=24, rank=300)
    seen.scan(near, far, far_rank, n_neighbors=8, n_kept=24, width=width)
    for row, lower in enumerate(seen.lower):
        count = near.counts[row]
        columns = near.columns[row, :count]
        assert len(set(columns.tolist())) == count
        np.testing.assert_array_equal(near.values[row, :count], lower[columns])
        others = np.delete(lower, columns)
        assert (others >= near.cuts[row]).all()
        assert set(np.argsort(lower)[:8].tolist()) <= set(columns.tolist())


@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("width", [64, 1000])
def test_images_off_a_far_window_are_counted_on_their_side(width: int, is_bound: bool) -> None:
    seen = Seen(6, 1000)
    near, far, far_rank = empty(6, 1000, n_kept=24, rank=300, is_bound=is_bound)
    seen.scan(near, far, far_rank, n_neighbors=8, n_kept=24, width=width)
    assert far.values.shape[1] < 500  # most are left out
    for row, values in enumerate(seen.upper(is_bound=is_bound)):
        count, low, high = far.counts[row], far.lows[row], far.highs[row]
        columns = far.columns[row, :count]
        assert len(set(columns.tolist())) == count
        np.testing.assert_array_equal(far.values[row, :count], values[columns])
        others = np.delete(values, columns)
        assert far.below[row] == (others < low).sum()
        assert ((others < low) | (others > high)).all()
        place = 300 - far.below[row]
        assert np.sort(far.values[row, :count])[place] == np.sort(values)[300]


def test_a_tile_serves_its_columns_as_its_transpose_serves_its_rows() -> None:
    seen, turned = Seen(40, 40), Seen(40, 40)
    seen.rows.scales[:] = seen.columns.scales[:] = 1  # else rounded in another order
    turned.rows, turned.columns = seen.columns, seen.rows
    turned.high = np.ascontiguousarray(seen.high.T)
    expected, expected_far, far_rank = empty(40, 40, n_kept=40, rank=20)
    turned.scan(expected, expected_far, far_rank, n_neighbors=5, n_kept=40, width=40)
    near, far, far_rank = empty(80, 40, n_kept=40, rank=20)
    ends = slice(40, 80)  # images of the columns
    sides = seen.high, seen.low, seen.weight, seen.rows, seen.columns
    scan(*sides, near, far, 0, 40, True, 0, 0, 5, 40, far_rank)
    np.testing.assert_array_equal(near.counts[ends], expected.counts)
    np.testing.assert_array_equal(far.counts[ends], expected_far.counts)
    np.testing.assert_array_equal(far.below[ends], expected_far.below)
    for column in range(40):
        for found, wanted in ((near, expected), (far, expected_far)):
            count = wanted.counts[column]
            for name in ("values", "columns"):
                ours, theirs = getattr(found, name)[40 + column], getattr(wanted, name)[column]
                np.testing.assert_array_equal(ours[:count], theirs[:count])


def test_a_row_of_ties_is_left_to_others() -> None:
    seen = Seen(3, 1000)
    seen.high[:] = 0
    seen.columns.half_norms[:] = 1
    seen.columns.errors[:] = seen.rows.errors[:] = 0
    near, far, far_rank = empty(3, 1000, n_kept=24, rank=300)
    seen.scan(near, far, far_rank, n_neighbors=8, n_kept=24, width=1000)
    assert (near.counts == 0).all()
    assert (near.cuts == -np.inf).all()  # nothing can be told
    assert (far.counts == 0).all()
