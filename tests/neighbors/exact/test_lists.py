"""What a pass keeps of each row, against all that it saw."""

import re
from pathlib import Path

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
    widen_lists,
    widen_windows,
)
from unic.neighbors.exact.operand import BASE, Operand
from unic.neighbors.exact.threads import Room
from unic.neighbors.exact.tiles import FusedScreen, Lists, Ranks, Screen, Served, WrittenScreen

NONE = np.empty(0, dtype=np.int64)
STATUS = Path("/proc/self/status")


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
                *NOTHING,
                0,
                start,
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


def make_lists(n_rows: int, *, n_windows: int) -> Lists:
    """Empty lists and windows of rows whose errors are 0."""
    nothing = np.zeros(n_rows, dtype=np.float32)
    specials = np.empty((n_windows, 0), dtype=np.float32)
    return Lists(near_lists(nothing), far_windows(specials, nothing[:n_windows]))


NOTHING = make_lists(0, n_windows=0)


def empty(n_rows: int, n_columns: int, *, n_kept: int, rank: int, is_bound: bool = False):
    far_rank = FarRank(rank, n_columns, 0, is_bound, NONE)
    near, far = make_lists(n_rows, n_windows=n_rows)
    widest = n_columns // 2  # seen, when the rank is the least certain
    near = widen_lists(near, n_columns, NearRank(1, n_kept, n_columns))
    return near, widen_windows(far, widest, far_rank), far_rank


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


def assert_counts(far: FarWindows, every: NDArray[np.float32]) -> None:
    """Windows hold all images between their ends, and count those below; or they are given up."""
    for row in np.flatnonzero(far.lows <= far.highs):
        values, count, low = every[row], far.counts[row], far.lows[row]
        columns = far.columns[row, :count]
        assert len(set(columns.tolist())) == count
        np.testing.assert_array_equal(far.values[row, :count], values[columns])
        others = np.delete(values, columns)
        assert far.below[row] == (others < low).sum()
        assert ((others < low) | (others > far.highs[row])).all()


@pytest.mark.parametrize("is_bound", [False, True])
@pytest.mark.parametrize("slack", [0.0, 0.02])
@pytest.mark.parametrize("width", [64, 1000])
def test_images_off_a_far_window_are_counted_on_their_side(
    width: int, slack: float, is_bound: bool
) -> None:
    seen = Read(6, 1000)
    near, far, far_rank = empty(6, 1000, n_kept=24, rank=300, is_bound=is_bound)
    far = far._replace(slacks=np.full(6, slack, dtype=np.float32))
    seen.scan(near, far, far_rank, n_neighbors=8, n_kept=24, width=width)
    assert far.values.shape[1] < 500  # most are left out
    assert_counts(far, seen.upper(is_bound=is_bound))
    for row, values in enumerate(seen.upper(is_bound=is_bound)):
        place, ranked = 300 - far.below[row], np.sort(values)[300]
        assert far.lows[row] + slack < ranked < far.highs[row] - slack
        assert np.sort(far.values[row, : far.counts[row]])[place] == ranked


@pytest.mark.parametrize("slack", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("trend", [-3.0, -1.0, 1.0, 3.0])
def test_they_are_where_images_come_in_no_random_order(trend: float, slack: float) -> None:
    seen = Read(6, 1000)
    seen.high += np.linspace(0, trend, 1000, dtype=np.float32)
    near, far, far_rank = empty(6, 1000, n_kept=24, rank=300)
    far = far._replace(slacks=np.full(6, slack, dtype=np.float32))
    seen.scan(near, far, far_rank, n_neighbors=8, n_kept=24, width=64)
    assert_counts(far, seen.upper(is_bound=False))


def test_a_tile_serves_its_columns_as_its_transpose_serves_its_rows() -> None:
    seen, turned = Read(40, 40), Read(40, 40)
    turned.rows, turned.columns = seen.columns, seen.rows
    turned.high = np.ascontiguousarray(seen.high.T)
    expected, expected_far, far_rank = empty(40, 40, n_kept=40, rank=20)
    turned.scan(expected, expected_far, far_rank, n_neighbors=5, n_kept=40, width=40)
    near, far, far_rank = empty(40, 40, n_kept=40, rank=20)
    of_rows, windows, _ = empty(40, 40, n_kept=40, rank=20)
    sides = seen.high, seen.low, seen.weight, seen.rows, seen.columns
    kept = of_rows, windows, near, far
    scan(*sides, *kept, 0, 40, 0, 0, NearRank(5, 40, 40), far_rank)
    np.testing.assert_array_equal(near.counts, expected.counts)
    np.testing.assert_array_equal(far.counts, expected_far.counts)
    np.testing.assert_array_equal(far.below, expected_far.below)
    for column in range(40):
        for found, wanted in ((near, expected), (far, expected_far)):
            count = wanted.counts[column]
            for name in ("values", "columns"):
                ours, theirs = getattr(found, name)[column], getattr(wanted, name)[column]
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


def test_lists_keep_what_they_hold_as_they_are_widened() -> None:
    ranks = Ranks(NearRank(8, 100, 1000), FarRank(300, 1000, 20, False, NONE))
    kept, widths = make_lists(5, n_windows=5).widen(64, ranks), []
    for entries in (kept.near.values, kept.far.columns):
        entries[:] = np.arange(entries.size).reshape(entries.shape)
    for n_seen in (128, 500, 1000):
        wider = kept.widen(n_seen, ranks)
        for old, new in zip((*kept.near, *kept.far), (*wider.near, *wider.far), strict=True):
            place = tuple(slice(size) for size in old.shape)
            np.testing.assert_array_equal(new[place], old)
            assert new.flags.c_contiguous
        widths.append((wider.near.values.shape[1], wider.far.values.shape[1]))
        kept = wider
    assert widths == sorted(widths)
    assert widths[-1][0] >= 100
    assert kept.widen(64, ranks).near.values is kept.near.values  # they are never made narrower


@pytest.mark.skipif(not STATUS.exists(), reason="the system tells nothing about memory")
def test_lists_that_are_let_go_give_their_memory_back() -> None:
    ranks = Ranks(NearRank(8, 100, 1000), FarRank(300, 1000, 20, False, NONE))
    blocks = [make_lists(768, n_windows=768).widen(1000, ranks) for _ in range(32)]
    size = sum(entries.nbytes for entries in (*blocks[0].near[:2], *blocks[0].far[:2]))
    before = held()
    del blocks[::2]
    assert before - held() > 15 * size


def held() -> int:
    """Bytes of memory of this process that are no file's."""
    found = re.search(r"RssAnon:\s+(\d+) kB", STATUS.read_text())
    assert found is not None
    return int(found[1]) * 1024


# Scans in registers


class Pass:
    """Lists of all images, in blocks, and what they look for."""

    def __init__(self, n_images: int, width: int, ranks: Ranks, *, has_far: bool) -> None:
        self.starts = range(0, n_images, width)
        self.n_images, self.width, self.ranks = n_images, width, ranks
        n_lists = [-(-min(width, n_images - start) // 64) * 64 for start in self.starts]
        self.kept = [make_lists(n, n_windows=n * has_far) for n in n_lists]

    def read(self, screen: Screen, *, is_shared: bool) -> None:
        """Read all tiles, or those on and above the diagonal for their columns too."""
        room = Room(self.width**2)
        ends = [min(start + self.width, self.n_images) for start in self.starts]
        blocks = [slice(*ends) for ends in zip(self.starts, ends, strict=True)]
        for number, rows in enumerate(blocks):
            for other, columns in enumerate(blocks):
                if is_shared and other < number:
                    continue

                def take(number=number, other=other, rows=rows, columns=columns) -> Served:
                    self.kept[number] = self.kept[number].widen(columns.stop, self.ranks)
                    if not is_shared or other == number:
                        return Served(self.kept[number], NOTHING, columns.start, 0)
                    self.kept[other] = self.kept[other].widen(rows.stop, self.ranks)
                    return Served(self.kept[number], self.kept[other], columns.start, rows.start)

                screen.tile(rows, columns, self.ranks, room, take)

    def of_row(self, row: int) -> tuple[Lists, int]:
        """Lists of a row, and its place in them."""
        return self.kept[row // self.width], row % self.width


def assert_tells(
    found: Pass, lower: NDArray[np.float64], values: NDArray[np.float64], *, is_far: bool
) -> None:
    """Lists hold all under their cuts, windows all between their ends, and count the rest."""
    for image in range(len(lower)):
        (near, far), row = found.of_row(image)
        count = near.counts[row]
        columns = near.columns[row, :count]
        assert len(set(columns.tolist())) == count
        np.testing.assert_array_equal(near.values[row, :count], lower[image, columns])
        assert (np.delete(lower[image], columns) >= near.cuts[row]).all()
        if is_far:
            count, low, high = far.counts[row], far.lows[row], far.highs[row]
            columns = far.columns[row, :count]
            assert len(set(columns.tolist())) == count
            np.testing.assert_array_equal(far.values[row, :count], values[image, columns])
            others = np.delete(values[image], columns)
            assert far.below[row] == (others < low).sum()
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
    is_bound, has_far = precision == "int8", far_rank is not None
    every = FarRank(far_rank or 0, n_images, n_images, is_bound, NONE)
    whole = Pass(n_images, n_images, Ranks(NearRank(8, n_images, n_images), every), has_far=has_far)
    near, far = whole.kept[0].widen(n_images, whole.ranks)
    whole.kept[0] = Lists(
        near._replace(limits=np.full_like(near.limits, n_images), reaches=near.reaches + np.inf),
        far._replace(limits=np.full_like(far.limits, n_images)),
    )
    whole.read(WrittenScreen(operand), is_shared=is_shared)
    lower, values = np.full((2, n_images, n_images), np.nan, dtype=np.float32)
    every_row = np.arange(n_images)[:, None]
    (near, far), _ = whole.of_row(0)
    lower[every_row, near.columns[:n_images, :n_images]] = near.values[:n_images, :n_images]
    if has_far:
        values[every_row, far.columns[:n_images, :n_images]] = far.values[:n_images, :n_images]
    assert not np.isnan(lower).any()
    ranks = Ranks(NearRank(8, 24, n_images), every._replace(n_doubtful=4))
    found = Pass(n_images, 128, ranks, has_far=has_far)
    found.read(FusedScreen(operand), is_shared=is_shared)
    assert_tells(found, lower, values, is_far=has_far)
