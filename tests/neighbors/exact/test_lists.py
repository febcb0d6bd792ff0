"""What a pass keeps of each row, against all that it saw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.rank_reference import (
    clustered_features,
    duplicated_features,
    needs_microkernel,
    random_features,
)
from unic.neighbors.exact.lists import (
    FarRank,
    FarWindows,
    NearLists,
    NearRank,
    Side,
    far_windows,
    near_lists,
    order_statistic,
    scan,
)
from unic.neighbors.exact.operand import BASE, Operand
from unic.neighbors.exact.threads import Room
from unic.neighbors.exact.tiles import FusedScreen, Lists, Screen, Seen, WrittenScreen

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


class Read:
    """All images of some rows, and what a scan of them in tiles should have found."""

    def __init__(self, n_rows: int, n_columns: int, has_fine: bool = False) -> None:
        generator = np.random.default_rng(2)
        self.rows, self.columns = make_side(n_rows, 0), make_side(n_columns, 1)
        self.high = generator.normal(size=(n_rows, n_columns)).astype(np.float32)
        self.low = self.high[:0, :0]
        if has_fine:
            self.high = generator.integers(-9, 10, size=self.high.shape).astype(np.int32)
            self.low = generator.integers(-99, 100, size=self.high.shape).astype(np.int32)
        self.weight = np.float32(1 / BASE)

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
                NearRank(n_neighbors, n_kept, n_columns),
                far_rank,
            )

    @property
    def products(self) -> NDArray[np.float32]:
        digits = self.high.astype(np.float32)
        if self.low.size:
            digits = digits + self.weight * self.low.astype(np.float32)
        return (self.rows.scales[:, None] * self.columns.scales) * digits

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
    seen = Read(6, 1000, has_fine)
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
    seen = Read(6, 1000)
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
    seen, turned = Read(40, 40), Read(40, 40)
    turned.rows, turned.columns = seen.columns, seen.rows
    turned.high = np.ascontiguousarray(seen.high.T)
    expected, expected_far, far_rank = empty(40, 40, n_kept=40, rank=20)
    turned.scan(expected, expected_far, far_rank, n_neighbors=5, n_kept=40, width=40)
    near, far, far_rank = empty(80, 40, n_kept=40, rank=20)
    ends = slice(40, 80)  # images of the columns
    sides = seen.high, seen.low, seen.weight, seen.rows, seen.columns
    scan(*sides, near, far, 0, 40, True, 0, 0, NearRank(5, 40, 40), far_rank)
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
    seen = Read(3, 1000)
    seen.high[:] = 0
    seen.columns.half_norms[:] = 1
    seen.columns.errors[:] = seen.rows.errors[:] = 0
    near, far, far_rank = empty(3, 1000, n_kept=24, rank=300)
    seen.scan(near, far, far_rank, n_neighbors=8, n_kept=24, width=1000)
    assert (near.counts == 0).all()
    assert (near.cuts == -np.inf).all()  # nothing can be told
    assert (far.counts == 0).all()


# Scans in registers


def empty_lists(n_images: int, far_rank: int | None, *, is_bound: bool) -> Lists:
    none = np.empty(0, dtype=np.int64)
    n_lists = -(-n_images // 64) * 64
    n_windows = 0 if far_rank is None else n_lists
    rank = FarRank(far_rank or 0, n_images, 4, is_bound, none)
    near = near_lists(24, np.zeros(n_lists, dtype=np.float32))
    specials, slacks = np.empty((n_windows, 0), dtype=np.float32), np.zeros(n_windows, np.float32)
    far = far_windows(specials, slacks, rank)
    return Lists(near, far, NearRank(8, 24, n_images), rank)


def read(screen: Screen, n_images: int, kept: Lists, width: int, *, is_shared: bool) -> None:
    """Read all tiles, or those on and above the diagonal for their columns too."""
    room = Room(width * width)
    starts = range(0, n_images, width)
    blocks = [slice(start, min(start + width, n_images)) for start in starts]
    for number, rows in enumerate(blocks):
        for other, columns in enumerate(blocks):
            if is_shared and other < number:
                continue
            is_for_columns = is_shared and other > number
            seen = Seen(columns.start, rows.start if is_for_columns else 0)
            place = (kept, rows.start, seen, room)
            settings = {"is_for_columns": is_for_columns, "wait": lambda: None}
            screen.tile(rows, columns, *place, **settings)


def assert_tells(
    kept: Lists, lower: NDArray[np.float64], values: NDArray[np.float64], *, is_far: bool
) -> None:
    """Lists hold all under their cuts, windows all between their ends, and count the rest."""
    n_images = len(lower)
    for row in range(n_images):
        count = kept.near.counts[row]
        columns = kept.near.columns[row, :count]
        assert len(set(columns.tolist())) == count
        np.testing.assert_array_equal(kept.near.values[row, :count], lower[row, columns])
        assert (np.delete(lower[row], columns) >= kept.near.cuts[row]).all()
        if is_far:
            count, low, high = (part[row] for part in (kept.far.counts, *kept.far[4:6]))
            columns = kept.far.columns[row, :count]
            assert len(set(columns.tolist())) == count
            np.testing.assert_array_equal(kept.far.values[row, :count], values[row, columns])
            others = np.delete(values[row], columns)
            assert kept.far.below[row] == (others < low).sum()
            assert ((others < low) | (others > high)).all()


@needs_microkernel
@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
@pytest.mark.parametrize(("n_images", "n_dims"), [(70, 3), (500, 64), (700, 130)])
@pytest.mark.parametrize("precision", ["int8", "int16"])
@pytest.mark.parametrize("far_rank", [None, 30])
@pytest.mark.parametrize("is_shared", [False, True])
def test_lists_what_a_scan_of_written_tiles_keeps(
    make, n_images: int, n_dims: int, precision: str, far_rank: int | None, is_shared: bool
) -> None:
    features = make(n_images, n_dims)
    features[3] *= 7
    features[4] = features.mean(axis=0)
    operand = Operand(features, np.random.default_rng(0).permutation(n_images), precision)
    is_bound = precision == "int8"
    every = FarRank(far_rank or 0, n_images, n_images, is_bound, np.empty(0, dtype=np.int64))
    near = near_lists(n_images, np.full(n_images, np.inf, dtype=np.float32))
    near.limits[:] = near.values.shape[1]
    n_windows = 0 if far_rank is None else n_images
    specials = np.empty((n_windows, 0), dtype=np.float32)
    far = far_windows(specials, np.zeros(n_windows, np.float32), every)
    far.limits[:] = far.values.shape[1]
    whole = Lists(near, far, NearRank(8, n_images, n_images), every)
    read(WrittenScreen(operand), n_images, whole, 128, is_shared=is_shared)
    lower, values = np.full((2, n_images, n_images), np.nan, dtype=np.float32)
    every_row = np.arange(n_images)[:, None]
    lower[every_row, near.columns[:, :n_images]] = near.values[:, :n_images]
    if far_rank is not None:
        values[every_row, far.columns[:, :n_images]] = far.values[:, :n_images]
    assert not np.isnan(lower).any()
    kept = empty_lists(n_images, far_rank, is_bound=is_bound)
    read(FusedScreen(operand), n_images, kept, 128, is_shared=is_shared)
    assert_tells(kept, lower, values, is_far=far_rank is not None)
