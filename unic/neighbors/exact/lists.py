"""What a pass keeps of each row: images that may be near, and those about the far rank.

A tile holds the products of centered features of some rows and some columns, and serves both: for
row ``i`` images are ordered by ``x_ij = |a_j|^2 / 2 - a_i . a_j``, for column ``j`` by ``x_ji``.
Either is half the squared distance, less a constant.
"""

import mmap
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import DTypeLike, NDArray

from unic.neighbors.exact.vectors import (
    DEPTH,
    GROUP,
    LANES,
    PANEL,
    PackedRows,
    bounded_masks,
    count_bits,
    doubtful_masks,
    fine_product,
    first_bit,
    multiply,
    near_masks,
    pack,
)

_PART = 42 * GROUP  # rows whose digits stay in the second cache while columns pass by
_FIRST_NEAR = 96  # entries of a list before it is cut back first
_ROOM = 64  # entries that a window has room for beyond those it is narrowed to
_STEP = 32  # entries by which lists and windows are widened
_FIRST_FAR = 256  # entries of a window before it is narrowed first
_FEWEST_NEW = 32  # entries that it gains at least
_NEAR_DEVIATIONS = 2.0  # see there
_STRETCH = 64  # columns between which those below a window are counted
_ROUNDING = np.float32(2.0**-22)  # over that of distances to special features
_ALL_BITS = np.int32(2**31 - 1)  # but for the sign
_DEVIATIONS = 4.0  # of the rank of the far radius among the images seen so far


class Side(NamedTuple):
    """What is known of ``b`` images beside products, see the operand."""

    scales: NDArray[np.float32]  # (b,)
    half_norms: NDArray[np.float32]  # (b,), from below
    tops: NDArray[np.float32]  # (b,), the same from above
    norms: NDArray[np.float32]  # (b,)
    errors: NDArray[np.float32]  # (b,)


class NearRank(NamedTuple):
    """How many images are listed as near."""

    n_neighbors: int  # tau_1 of the paper
    n_kept: int  # that lists are cut back to in the end, where bounds do not tell more
    n_images: int  # that are read in random order, with those that may be near


class FarRank(NamedTuple):
    """The place of the far radius in each row."""

    rank: int  # tau_2 of the paper
    n_images: int  # that are read in tiles
    n_doubtful: int  # images about it that estimates may put on the wrong side, as a rule
    is_bound: bool  # whether windows are of upper bounds of x
    weights: NDArray[np.int64]  # (s,), images of each special feature


class NearLists(NamedTuple):
    """Images that may be among the nearest of each of ``m`` rows."""

    values: NDArray[np.float32]  # (m, w), lower bounds of x
    columns: NDArray[np.int32]  # (m, w)
    counts: NDArray[np.int32]  # (m,)
    limits: NDArray[np.int32]  # (m,), how many a list holds before it is cut back
    cuts: NDArray[np.float32]  # (m,), no image left out has a lower bound under it
    reaches: NDArray[np.float32]  # (m,), how far x may exceed its lower bound


class FarWindows(NamedTuple):
    """Images about the far rank of each of ``m`` rows."""

    values: NDArray[np.float32]  # (m, w), estimates of x, or upper bounds
    columns: NDArray[np.int32]  # (m, w)
    counts: NDArray[np.int32]  # (m,)
    limits: NDArray[np.int32]  # (m,), how many a window holds before it is narrowed
    lows: NDArray[np.float32]  # (m,), those left out below are at most here
    highs: NDArray[np.float32]  # (m,), those left out above are at least here
    below: NDArray[np.int32]  # (m,), images left out below
    specials: NDArray[np.float32]  # (m, s), x of special features
    slacks: NDArray[np.float32]  # (m,), how near to those of interest others must be kept


_Kept = TypeVar("_Kept", NearLists, FarWindows)


class _Scratch(NamedTuple):
    """Room for one row of a tile of ``c`` columns, padded to whole vectors where packed."""

    products: NDArray[np.float32]  # (c,)
    spreads: NDArray[np.float32]  # (c,), bounds of the error
    estimates: NDArray[np.float32]  # (c,)
    listed: NDArray[np.float32]  # (c',), NaN where of no interest
    hits: NDArray[np.float32]  # (c' + 16,), the others
    places: NDArray[np.int32]  # (c' + 16,)


def near_lists(reaches: NDArray[np.float32]) -> NearLists:
    """Empty lists, to be widened before they are filled.

    Args:
        reaches: Shape ``(m,)``, how far ``x`` may exceed its lower bound in each row.
    """
    n_rows = len(reaches)
    return NearLists(
        np.empty((n_rows, 0), dtype=np.float32),
        np.empty((n_rows, 0), dtype=np.int32),
        np.zeros(n_rows, dtype=np.int32),
        np.full(n_rows, _FIRST_NEAR, dtype=np.int32),
        np.full(n_rows, np.inf, dtype=np.float32),
        reaches,
    )


def far_windows(specials: NDArray[np.float32], slacks: NDArray[np.float32]) -> FarWindows:
    """Empty windows, to be widened before they are filled.

    Args:
        specials: Shape ``(m, s)``, ``x`` of special features in each of the ``m`` rows.
        slacks: Shape ``(m,)``, how near to the far rank others must be kept; 0 for bounds.
    """
    n_rows = len(specials)
    return FarWindows(
        np.empty((n_rows, 0), dtype=np.float32),
        np.empty((n_rows, 0), dtype=np.int32),
        np.zeros(n_rows, dtype=np.int32),
        np.full(n_rows, _FIRST_FAR, dtype=np.int32),
        np.full(n_rows, -np.inf, dtype=np.float32),
        np.full(n_rows, np.inf, dtype=np.float32),
        np.zeros(n_rows, dtype=np.int32),
        specials,
        slacks,
    )


def widen_lists(near: NearLists, n_seen: int, near_rank: NearRank) -> NearLists:
    """Lists with room for what they hold once they have seen ``n_seen`` images."""
    n_wanted = _n_wanted(n_seen, near_rank)
    return _widen(near, max(_limit(n_wanted) + LANES, _FIRST_NEAR))


def widen_windows(far: FarWindows, n_seen: int, far_rank: FarRank) -> FarWindows:
    """Windows with room for the drift of the far rank until they have seen ``n_seen`` images."""
    n_doubtful = -(-far_rank.n_doubtful * n_seen // far_rank.n_images)
    width = 2 * (_margin(n_seen, far_rank) + n_doubtful + LANES) + _ROOM
    return _widen(far, max(width, _FIRST_FAR))


def _widen(kept: _Kept, width: int) -> _Kept:
    n_rows, n_held = kept.values.shape
    if width <= n_held:
        return kept
    shape = (n_rows, -(-width // _STEP) * _STEP)
    values, columns = _map_memory(shape, np.float32), _map_memory(shape, np.int32)
    values[:, :n_held], columns[:, :n_held] = kept.values, kept.columns
    return kept._replace(values=values, columns=columns)


def _map_memory(shape: tuple[int, int], dtype: DTypeLike) -> NDArray[Any]:
    """An array in pages of its own, which go back to the system as soon as it is let go.

    An allocator would keep them for others of the same size, and be left in pieces by lists that
    grow by and by.
    """
    size = max(shape[0] * shape[1] * np.dtype(dtype).itemsize, 1)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    return np.ndarray(shape, dtype, buffer=mmap.mmap(-1, size, flags=flags))


@njit(nogil=True, cache=True)
def scan(
    high: NDArray[np.int32],
    low: NDArray[np.int32],
    low_weight: np.float32,
    rows: Side,
    columns: Side,
    near: NearLists,
    far: FarWindows,
    other_near: NearLists,
    other_far: FarWindows,
    first_row: int,
    first_column: int,
    n_row_seen: int,
    n_column_seen: int,
    near_rank: NearRank,
    far_rank: FarRank,
) -> None:
    """Read a tile once: list what may be near and what lies about the far rank.

    Images come in random order, so that the share of them inside the far radius is known closely
    all along: a window of about ``4 sqrt(far_rank)`` images about the expected rank holds the one
    sought (Munro and Paterson, 1980); those left out are counted, on either side.

    Args:
        high: Shape ``(b, c)``, int32 or float32, products of rows and columns.
        low: Same shape and dtype, their finer digits; or ``(0, 0)``.
        low_weight: What the finer digits are worth.
        rows: The ``b`` images of the rows.
        columns: The ``c`` images of the columns.
        near: Lists of the ``b`` rows.
        far: Windows of the same, or of none to skip them.
        other_near: Lists of the ``c`` columns, or of none if the tile is for the rows alone.
        other_far: Windows of the same, or of none.
        first_row: Image that the rows start at, if the columns have lists.
        first_column: Image that the columns start at.
        n_row_seen: Images that the rows have seen in tiles before.
        n_column_seen: Images that the columns have seen in tiles before.
        near_rank: What the lists look for.
        far_rank: What the windows look for.
    """
    n_columns = high.shape[1]
    n_padded = -(-n_columns // LANES) * LANES
    scratch = _Scratch(
        np.empty(n_columns, dtype=np.float32),
        np.empty(n_columns, dtype=np.float32),
        np.empty(n_columns, dtype=np.float32),
        np.full(n_padded, np.nan, dtype=np.float32),
        np.empty(n_padded + LANES, dtype=np.float32),
        np.empty(n_padded + LANES, dtype=np.int32),
    )
    has_far, is_for_columns = len(far.counts) > 0, len(other_near.counts) > 0
    for r in range(len(high)):
        image = first_row + r
        fine = low[r if len(low) > 0 else 0 : r + 1 if len(low) > 0 else 0]
        _multiply(high[r], fine, low_weight, rows, r, columns, scratch)
        for c in range(n_columns):
            scratch.estimates[c] = columns.half_norms[c] - scratch.products[c]
        _list_near(near, r, first_column, n_row_seen, near_rank, scratch)
        if has_far:
            if far_rank.is_bound:
                for c in range(n_columns):
                    top = columns.tops[c] - scratch.products[c]
                    scratch.estimates[c] = top + scratch.spreads[c]
            _list_far(far, r, first_column, n_row_seen, far_rank, scratch)
        if is_for_columns:
            for c in range(n_columns):
                scratch.estimates[c] = rows.half_norms[r] - scratch.products[c]
            n_seen = n_column_seen + r
            _list_near_of_columns(other_near, image, n_seen, near_rank, scratch)
        if is_for_columns and has_far:
            if far_rank.is_bound:
                for c in range(n_columns):
                    top = rows.tops[r] - scratch.products[c]
                    scratch.estimates[c] = top + scratch.spreads[c]
            _list_far_of_columns(other_far, image, n_seen, far_rank, scratch)


@njit(nogil=True, cache=True)
def scan_in_registers(
    packed: PackedRows,
    panels: NDArray[np.uint8],
    fine_digits: NDArray[np.int8],
    low_weight: np.float32,
    rows: Side,
    columns: Side,
    wide_rows: Side,
    wide_columns: Side,
    near: NearLists,
    far: FarWindows,
    other_near: NearLists,
    other_far: FarWindows,
    first_row: int,
    first_column: int,
    n_columns: int,
    n_row_seen: int,
    n_column_seen: int,
    near_rank: NearRank,
    far_rank: FarRank,
) -> None:
    """Multiply a tile and list what :func:`scan` would list.

    With fine digits, the coarse products tell of most pairs that neither is near the other nor
    about its far rank; the fine ones of the others are multiplied one by one.

    Loops over hits are written out here, four times: numba counts references at each call.

    Args:
        packed: The ``b`` rows.
        panels: All columns, packed.
        fine_digits: Shape ``(n, 2 d)``, coarse and fine digits of all images; or ``(0, ...)``.
        low_weight: What the finer digits are worth.
        rows: The ``b`` images of the rows.
        columns: All images, with NaN for those that fill the last panel.
        wide_rows: As ``rows``, with the errors of coarse products where there are fine ones.
        wide_columns: As ``columns``, in the same way.
        near: As in that scan.
        far: As there.
        other_near: As there, with as many lists as fill the last panel of the columns.
        other_far: As there, with as many.
        first_row: As there.
        first_column: As there, the first of a panel.
        n_columns: Columns of the tile.
        n_row_seen: As there.
        n_column_seen: As there.
        near_rank: As there.
        far_rank: As there.
    """
    products = np.empty(GROUP * PANEL, dtype=np.int32)
    bounds, uppers = np.empty((2, 2 * PANEL), dtype=np.float32)
    nothing, no_counts = np.full(PANEL, np.nan, dtype=np.float32), np.zeros(PANEL, dtype=np.int32)
    digits, starts, fine_starts, places = packed
    values, listed, counts, limits, cuts, _ = near
    far_values, far_listed, far_counts, far_limits, lows, highs, below, _, _ = far
    other_values, other_listed, other_counts, other_limits, other_cuts, _ = other_near
    is_for_columns = len(other_counts) > 0
    other_cuts = other_cuts if is_for_columns else nothing
    other_far_values, other_far_listed, other_far_counts, other_far_limits = other_far[:4]
    other_lows = other_far.lows if is_for_columns else nothing
    other_highs = other_far.highs if is_for_columns else nothing
    other_below = other_far.below if is_for_columns else no_counts
    scales, half_norms, _, norms, errors = columns
    row_scales, row_half_norms, _, row_norms, row_errors = rows
    has_far, has_fine = len(far.counts) > 0, len(fine_digits) > 0
    n_dims = fine_digits.shape[1] // 2
    flat = fine_digits.reshape(fine_digits.size)
    size = len(digits) // len(starts)
    n_steps = size // DEPTH
    one, none = np.uint64(1), np.uint64(0)
    for part in range(0, len(places), _PART):
        for column in range(first_column, first_column + n_columns, PANEL):
            n_before = n_row_seen + column - first_column
            own = column - first_column if is_for_columns else 0
            for group in range(part, min(part + _PART, len(places)), GROUP):
                multiply(
                    digits, group * size, panels, column * size, n_steps, starts, group, products
                )
                for r in range(group, min(group + GROUP, len(places))):
                    first = (r - group) * PANEL
                    near_row, near_columns = near_masks(
                        products,
                        first,
                        wide_rows,
                        r,
                        wide_columns,
                        column,
                        cuts,
                        r,
                        other_cuts,
                        own,
                        bounds,
                    )
                    under, far_row, far_columns = none, none, none
                    if has_far and has_fine:
                        under, far_row, far_columns = doubtful_masks(
                            products,
                            first,
                            wide_rows,
                            r,
                            wide_columns,
                            column,
                            lows,
                            highs,
                            r,
                            other_lows,
                            other_highs,
                            other_below,
                            own,
                            uppers,
                        )
                        below[r] += count_bits(under)
                    elif has_far:
                        under, far_row, far_columns = bounded_masks(
                            products,
                            first,
                            rows,
                            r,
                            columns,
                            column,
                            lows,
                            highs,
                            r,
                            other_lows,
                            other_highs,
                            other_below,
                            own,
                            uppers,
                        )
                        below[r] += count_bits(under)
                    if has_fine:
                        hits = near_row | near_columns | far_row | far_columns
                        while hits:
                            place = first_bit(hits)
                            hits &= hits - one
                            c = column + place
                            start = places[r] * 2 * n_dims
                            low = fine_product(flat, start, c * 2 * n_dims, n_dims, fine_starts[r])
                            number = np.float32(products[first + place]) + low_weight * np.float32(
                                low
                            )
                            product = (row_scales[r] * scales[c]) * number
                            spread = row_errors[r] * norms[c] + row_norms[r] * errors[c]
                            uppers[place] = half_norms[c] - product
                            uppers[PANEL + place] = row_half_norms[r] - product
                            bounds[place] = uppers[place] - spread
                            bounds[PANEL + place] = uppers[PANEL + place] - spread
                    while near_row:
                        place = first_bit(near_row)
                        near_row &= near_row - one
                        if bounds[place] > cuts[r]:
                            continue
                        if counts[r] >= limits[r]:
                            _cut_near(near, r, n_before + place, near_rank)
                        if bounds[place] <= cuts[r]:
                            count = counts[r]
                            values[r, count], listed[r, count] = bounds[place], column + place
                            counts[r] = count + 1
                    while near_columns:
                        place = first_bit(near_columns)
                        near_columns &= near_columns - one
                        other = own + place
                        if bounds[PANEL + place] > other_cuts[other]:
                            continue
                        if other_counts[other] >= other_limits[other]:
                            _cut_near(other_near, other, n_column_seen + r, near_rank)
                        if bounds[PANEL + place] <= other_cuts[other]:
                            count = other_counts[other]
                            other_values[other, count] = bounds[PANEL + place]
                            other_listed[other, count] = first_row + r
                            other_counts[other] = count + 1
                    while far_row:
                        place = first_bit(far_row)
                        far_row &= far_row - one
                        value = uppers[place]
                        if far_counts[r] >= far_limits[r] and lows[r] <= value <= highs[r]:
                            n_after = count_bits(under >> np.uint64(place))
                            below[r] -= n_after
                            _narrow(far, r, n_before + place, far_rank)
                            below[r] += n_after
                        if value < lows[r]:
                            below[r] += 1
                        elif value <= highs[r]:
                            count = far_counts[r]
                            far_values[r, count], far_listed[r, count] = value, column + place
                            far_counts[r] = count + 1
                    while far_columns:
                        place = first_bit(far_columns)
                        far_columns &= far_columns - one
                        other, value = own + place, uppers[PANEL + place]
                        is_full = other_far_counts[other] >= other_far_limits[other]
                        if is_full and other_lows[other] <= value <= other_highs[other]:
                            _narrow(other_far, other, n_column_seen + r + 1, far_rank)
                        if value < other_lows[other]:
                            other_below[other] += 1
                        elif value <= other_highs[other]:
                            count = other_far_counts[other]
                            other_far_values[other, count] = value
                            other_far_listed[other, count] = first_row + r
                            other_far_counts[other] = count + 1


@njit(cache=True)
def order_statistic(values: NDArray[np.float32], place: int) -> float:
    """The value at a place of the order.

    Args:
        values: Shape ``(c,)``, float32.
        place: Counted from 0, below ``c``.
    """
    bound, _ = _thresholds(values, place + 1, place + 1, values[:0], values[:0])
    n_under = 0
    under, above = np.float32(-np.inf), np.float32(np.inf)
    for c in range(len(values)):
        if values[c] < bound:
            n_under += 1
            under = max(under, values[c])
        else:
            above = min(above, values[c])
    return under if n_under > place else above


@njit(cache=True)
def _multiply(high, fine, weight, rows, r, columns, scratch):
    """Products of one row with all columns, and how far off they may be, the same both ways."""
    products, spreads = scratch.products, scratch.spreads
    scale, norm, error = rows.scales[r], rows.norms[r], rows.errors[r]
    if len(fine) > 0:
        for c in range(len(high)):
            digits = np.float32(high[c]) + weight * np.float32(fine[0, c])
            products[c] = (scale * columns.scales[c]) * digits
    else:
        for c in range(len(high)):
            products[c] = (scale * columns.scales[c]) * np.float32(high[c])
    for c in range(len(high)):
        spreads[c] = error * columns.norms[c] + norm * columns.errors[c]


@njit(cache=True)
def _list_near(near, row, first_column, n_seen, near_rank, scratch):
    """List what may be near a row."""
    _, spreads, estimates, listed, hits, places = scratch
    values, columns, counts, limits, cuts, _ = near
    cut = cuts[row]
    for c in range(len(estimates)):
        bound = estimates[c] - spreads[c]
        listed[c] = bound if bound <= cut else np.nan
    for hit in range(pack(listed, hits, places)):
        if counts[row] >= limits[row]:
            _cut_near(near, row, n_seen + places[hit], near_rank)
        if hits[hit] <= cuts[row]:
            count = counts[row]
            values[row, count], columns[row, count] = hits[hit], first_column + places[hit]
            counts[row] = count + 1


@njit(cache=True)
def _list_near_of_columns(near, image, n_seen, near_rank, scratch):
    """List a row with the columns that it may be near to."""
    _, spreads, estimates, listed, hits, places = scratch
    values, columns, counts, limits, cuts, _ = near
    for c in range(len(estimates)):
        bound = estimates[c] - spreads[c]
        listed[c] = bound if bound <= cuts[c] else np.nan
    for hit in range(pack(listed, hits, places)):
        column = places[hit]
        if counts[column] >= limits[column]:
            _cut_near(near, column, n_seen, near_rank)
        if hits[hit] <= cuts[column]:
            count = counts[column]
            values[column, count], columns[column, count] = hits[hit], image
            counts[column] = count + 1


@njit(cache=True)
def _list_far(far, row, first_column, n_seen, far_rank, scratch):
    """Put what lies about the far rank of a row into its window, and count what is below."""
    _, _, estimates, listed, hits, places = scratch
    values, columns, counts, limits, lows, highs, below, _, _ = far
    n_below = _mark(estimates, lows[row], highs[row], listed)
    n_hits, count = pack(listed, hits, places), counts[row]
    if count + n_hits <= limits[row]:
        for hit in range(n_hits):
            values[row, count + hit] = hits[hit]
            columns[row, count + hit] = first_column + places[hit]
        counts[row] = count + n_hits
        below[row] += n_below
        return
    for start in range(0, len(estimates), _STRETCH):  # what is below is known at each narrowing
        part, first_start = listed[start : start + _STRETCH], first_column + start
        stretch = estimates[start : start + _STRETCH]
        below[row] += _mark(stretch, lows[row], highs[row], part)
        for hit in range(pack(part, hits, places)):
            if counts[row] >= limits[row]:
                _narrow(far, row, n_seen + start + len(stretch), far_rank)
            if hits[hit] < lows[row]:
                below[row] += 1
            elif hits[hit] <= highs[row]:
                count = counts[row]
                values[row, count], columns[row, count] = hits[hit], first_start + places[hit]
                counts[row] = count + 1


@njit(cache=True)
def _list_far_of_columns(far, image, n_seen, far_rank, scratch):
    """Put a row into the windows of the columns at whose far rank it may be."""
    _, _, estimates, listed, hits, places = scratch
    values, columns, counts, limits, lows, highs, below, _, _ = far
    for c in range(len(estimates)):
        below[c] += estimates[c] < lows[c]
        listed[c] = estimates[c] if lows[c] <= estimates[c] <= highs[c] else np.nan
    for hit in range(pack(listed, hits, places)):
        column = places[hit]
        if counts[column] >= limits[column]:
            _narrow(far, column, n_seen, far_rank)
        if hits[hit] < lows[column]:
            below[column] += 1
        elif hits[hit] <= highs[column]:
            count = counts[column]
            values[column, count], columns[column, count] = hits[hit], image
            counts[column] = count + 1


@njit(cache=True)
def _mark(estimates, low, high, listed):
    """Copy the estimates from ``low`` to ``high``, NaN for others; count those below."""
    n_below = 0
    for c in range(len(estimates)):
        n_below += estimates[c] < low
        listed[c] = estimates[c] if low <= estimates[c] <= high else np.nan
    return n_below


@njit(cache=True)
def _cut_near(near, row, n_seen, near_rank):
    """Leave out what cannot be a neighbor, and as much more as is unlikely to be one.

    The ``k``-th least ``x`` is at most the ``k``-th least lower bound and the reach. Images come
    in random order: of those seen so far, few more than the share seen are among the ``n_kept``
    of the least lower bounds in the end. A row that strays further is found out, as it settles.
    """
    n_neighbors = near_rank.n_neighbors
    count, width = near.counts[row], near.values.shape[1]
    values, columns = near.values[row, :count], near.columns[row, :count]
    none = values[:0]
    n_wanted = _n_wanted(n_seen, near_rank)
    limit = min(width, _limit(n_wanted))
    if limit > count:
        near.limits[row] = limit
        return
    n_most = n_wanted + max(n_wanted // 4, LANES)
    n_under, cut = count, np.float32(np.inf)
    if n_neighbors < n_most and n_neighbors <= count:
        _, last = _thresholds(values, n_neighbors, n_neighbors + 4, none, none)
        cut, n_under = last + near.reaches[row], 0
        for place in range(count):
            n_under += values[place] <= cut
    if n_under > n_most:
        _, cut = _thresholds(values, n_wanted, n_most, none, none)
    kept, _ = _cut_back(values, columns, np.float32(-np.inf), cut)
    if kept < count:
        near.counts[row], near.cuts[row] = kept, cut
        near.limits[row] = min(width, max(limit, kept + LANES))
    elif count < width:
        near.limits[row] = min(width, count + LANES)
    else:  # too many ties: leave the row to others
        near.counts[row], near.cuts[row] = 0, -np.inf


@njit(cache=True)
def _n_wanted(n_seen, near_rank):
    """Entries that a list is cut back to after ``n_seen`` images, see :func:`_cut_near`."""
    _, n_kept, n_images = near_rank
    expected = n_kept * min(1.0, n_seen / n_images)
    return min(n_kept, int(expected + _NEAR_DEVIATIONS * np.sqrt(expected)) + 8)


@njit(cache=True)
def _limit(n_wanted):
    """Entries that a list holds before it is cut back to some of them."""
    return n_wanted + max(n_wanted // 2, _FEWEST_NEW)


@njit(cache=True)
def _narrow(far, row, n_seen, far_rank):
    """Leave out what is too far from the expected rank, and count it where it is below.

    The rank is between two images of the window; kept are the images between them, and those that
    estimates may put on the wrong side of either, or of a special feature there.
    """
    count, width = far.counts[row], far.values.shape[1]
    values, columns = far.values[row, :count], far.columns[row, :count]
    low, high = far.lows[row], far.highs[row]
    place = far_rank.rank * n_seen // far_rank.n_images - far.below[row]
    margin = _margin(n_seen, far_rank)
    specials, weights = _weigh_specials(far, row, n_seen, far_rank)
    if place - margin > 0:
        fewest = max(place - margin - LANES, 0)
        bound, _ = _thresholds(values, fewest, place - margin, specials, weights)
        low = max(low, bound - (far.slacks[row] + abs(bound) * _ROUNDING))
    if place + margin < count + weights.sum():
        most = place + margin + LANES
        _, bound = _thresholds(values, place + margin, most, specials, weights)
        high = min(high, bound + (far.slacks[row] + abs(bound) * _ROUNDING))
    kept, n_below = _cut_back(values, columns, low, high)
    far.limits[row] = min(width, kept + max(kept, _FEWEST_NEW))
    if kept == width:  # too many ties, as above
        kept, low, high = 0, np.float32(np.inf), np.float32(-np.inf)
    far.below[row] += n_below
    far.counts[row], far.lows[row], far.highs[row] = kept, low, high


@njit(cache=True)
def _weigh_specials(far, row, n_seen, far_rank):
    """Special features under the largest value of a window, and the images that each stands for.

    All of a special feature's images are known from the start, those read in tiles up to now
    are a share of all: each weighs as much as that share of its images.
    """
    values = far.values[row, : far.counts[row]]
    if len(far_rank.weights) == 0:
        return values[:0], values[:0]
    share = n_seen / far_rank.n_images
    specials = np.empty(len(far_rank.weights) + 1, dtype=np.float32)
    weights = np.empty(len(far_rank.weights) + 1, dtype=np.float32)
    least, largest, count = values.min(), values.max(), 1
    specials[0], weights[0] = -np.inf, 0.0  # all under the window count as one
    for number in range(len(far_rank.weights)):
        special = far.specials[row, number]
        weight = np.float32(share * far_rank.weights[number])
        if special < least:
            weights[0] += weight
        elif special < largest:
            specials[count], weights[count] = special, weight
            count += 1
    return specials[:count], weights[:count]


@njit(cache=True)
def _thresholds(values, fewest, most, specials, weights):
    """Find a bound under which between ``fewest`` and ``most`` of the values lie, by bisection.

    Specials count as many times as their weights say. The bound is given twice. Where ties leave
    none, the first has fewer under it, the second more.
    """
    low, high = _ends(values)
    while True:
        middle = np.float32(0.5 * (np.float64(low) + np.float64(high)))
        if not low < middle < high:
            break  # nothing lies between the two, however small a part of the range they are
        n_under = _count_under(values, middle, specials, weights)
        if n_under < fewest:
            low = middle
        elif n_under > most:
            high = middle
        else:
            return middle, middle
    if _count_under(values, high, specials, weights) <= most:
        return high, high
    return low, high


@njit(cache=True)
def _ends(values):
    """The least and the greatest of some values, whose bits compilers compare by vectors."""
    bits = values.view(np.int32)
    low, high = _ALL_BITS, np.int32(-_ALL_BITS)
    for place in range(len(values)):
        number = _in_order(bits[place])
        low, high = np.int32(min(low, number)), np.int32(max(high, number))
    low, high = np.int32(_in_order(low)), np.int32(_in_order(high))
    return low.view(np.float32), high.view(np.float32)


@njit(cache=True)
def _in_order(bits):
    """Bits of floats as whole numbers of the same order, and back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & _ALL_BITS))


@njit(cache=True)
def _count_under(values, bound, specials, weights):
    n_under = 0
    for c in range(len(values)):
        n_under += values[c] < bound
    n_weighted = np.float64(n_under)
    for number in range(len(specials)):
        if specials[number] < bound:
            n_weighted += weights[number]
    return n_weighted


@njit(cache=True)
def _cut_back(values, columns, low, high):
    """Keep the values from ``low`` to ``high``; give their number and that of those below."""
    kept, below = 0, 0
    for place in range(len(values)):
        value = values[place]
        values[kept], columns[kept] = value, columns[place]
        kept += low <= value <= high
        below += value < low
    return kept, below


@njit(cache=True)
def _margin(n_seen, far_rank):
    """Ranks to keep on either side of the expected one, after ``n_seen`` images.

    Of images seen in random order, those inside the far radius number ``far_rank n_seen / n`` on
    average, hypergeometrically: kept are four standard deviations. A row that strays further is
    found out in the end and ranked anew.
    """
    inside, seen = far_rank.rank / far_rank.n_images, n_seen / far_rank.n_images
    if len(far_rank.weights) > 0:
        inside = min(inside, 0.5)  # of those in tiles; nobody knows it, this deviates most
    deviation = np.sqrt(far_rank.n_images * inside * (1 - inside) * seen * (1 - seen))
    return int(_DEVIATIONS * deviation) + 8
