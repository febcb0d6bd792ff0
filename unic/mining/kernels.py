"""Compiled loops over tiles of products: what may be near, what lies about the far rank.

A tile holds products ``g_ij = a_i . a_j`` of centered features. For one row ``i`` the images are
ordered by ``x_ij = |a_j|^2 / 2 - g_ij``, which is half the squared distance less a constant.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

_LANES = 16  # columns compared at once
OWN = np.float32(1e30)  # in place of the product of an image with itself: it comes first
_ROOM = 96  # entries that a list gains before it is cut back
_DOUBTFUL = 40  # images about the far radius that estimates may put on the wrong side of it
_BISECTIONS = 50  # they tell all but ties apart
_DEVIATIONS = 5.0  # of the rank of the far radius among the images seen so far


class NearLists(NamedTuple):
    """Images that may be among the nearest of each of ``m`` rows."""

    values: NDArray[np.float32]  # (m, w), lower bounds of x
    columns: NDArray[np.int32]  # (m, w)
    counts: NDArray[np.int32]  # (m,)
    cuts: NDArray[np.float32]  # (m,), no image left out has a lower bound under it


class FarWindows(NamedTuple):
    """Images about the far rank of each of ``m`` rows."""

    values: NDArray[np.float32]  # (m, w), estimates of x
    columns: NDArray[np.int32]  # (m, w)
    counts: NDArray[np.int32]  # (m,)
    lows: NDArray[np.float32]  # (m,), those left out below are at most here
    highs: NDArray[np.float32]  # (m,), those left out above are at least here
    below: NDArray[np.int32]  # (m,), images left out below


def near_lists(n_rows: int, n_kept: int) -> NearLists:
    """Empty lists that hold the ``n_kept`` least lower bounds, and some more for a while."""
    width = _round_up(n_kept + _ROOM)
    return NearLists(
        np.empty((n_rows, width), dtype=np.float32),
        np.empty((n_rows, width), dtype=np.int32),
        np.zeros(n_rows, dtype=np.int32),
        np.full(n_rows, np.inf, dtype=np.float32),
    )


def far_windows(n_rows: int, far_rank: int, n_images: int) -> FarWindows:
    """Empty windows wide enough for the drift of the far rank, see :func:`scan`."""
    width = _round_up(2 * (_margin(n_images // 2, n_images, far_rank) + _LANES) + _ROOM)
    return FarWindows(
        np.empty((n_rows, width), dtype=np.float32),
        np.empty((n_rows, width), dtype=np.int32),
        np.zeros(n_rows, dtype=np.int32),
        np.full(n_rows, -np.inf, dtype=np.float32),
        np.full(n_rows, np.inf, dtype=np.float32),
        np.zeros(n_rows, dtype=np.int32),
    )


def _round_up(width: int) -> int:
    return -(-width // _LANES) * _LANES


@njit(cache=True)
def _margin(n_seen, n_images, far_rank):
    """Ranks to keep on either side of the expected one, after ``n_seen`` images.

    Of images seen in random order, those inside the far radius number ``far_rank n_seen / n`` on
    average, hypergeometrically: kept are five standard deviations. A row that strays further is
    found out in the end and ranked anew.
    """
    inside, seen = far_rank / n_images, n_seen / n_images
    return (
        int(_DEVIATIONS * np.sqrt(n_images * inside * (1 - inside) * seen * (1 - seen))) + _DOUBTFUL
    )


@intrinsic
def prefetch(typingctx, array, offset):  # noqa: ARG001
    """Ask for the part of a flat array that holds an entry, to be read soon."""
    signature = types.void(array, types.int64)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.gep(data, [arguments[1]])
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address.type, number, number, number]),
            "llvm.prefetch.p0",
        )
        to_read, in_all_caches, data_cache = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(function, [address, to_read, in_all_caches, data_cache])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def _pack(typingctx, values, columns, first, low, high, to_values, to_columns, count):  # noqa: ARG001
    """Append those of 16 values that are from ``low`` to ``high``; count them and those below.

    ``to_values[count:]`` and ``to_columns[count:]`` need room for all 16. Compilers do not find
    the vector instruction for this by themselves, and a loop with a branch costs ten times more.
    """
    signature = types.UniTuple(types.int64, 2)(
        values,
        columns,
        types.int64,
        types.float32,
        types.float32,
        to_values,
        to_columns,
        types.int64,
    )

    def generate(context, builder, signature, arguments):
        floats = ir.VectorType(ir.FloatType(), _LANES)
        integers = ir.VectorType(ir.IntType(32), _LANES)
        mask_type = ir.VectorType(ir.IntType(1), _LANES)
        first, low, high, count = (arguments[i] for i in (2, 3, 4, 7))

        def pointer(position, offset, vector):
            array = context.make_array(signature.args[position])
            data = array(context, builder, arguments[position]).data
            return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

        def splat(scalar, vector):
            one = builder.insert_element(
                ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
            )
            zeros = ir.Constant(integers, [0] * _LANES)
            return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)

        def pack(vector, mask, suffix):
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector.type, [vector.type, mask_type, vector.type]),
                f"llvm.experimental.vector.compress.v{_LANES}{suffix}",
            )
            return builder.call(function, [vector, mask, ir.Constant(vector.type, ir.Undefined)])

        def number(mask):
            bits = builder.bitcast(mask, ir.IntType(_LANES))
            return builder.zext(builder.ctpop(bits), ir.IntType(64))

        loaded = builder.load(pointer(0, first, floats), align=4)
        is_below = builder.fcmp_ordered("<", loaded, splat(low, floats))
        is_inside = builder.and_(
            builder.fcmp_ordered(">=", loaded, splat(low, floats)),
            builder.fcmp_ordered("<=", loaded, splat(high, floats)),
        )
        loaded_columns = builder.load(pointer(1, first, integers), align=4)
        builder.store(pack(loaded, is_inside, "f32"), pointer(5, count, floats), align=4)
        builder.store(pack(loaded_columns, is_inside, "i32"), pointer(6, count, integers), align=4)
        numbers = [number(is_inside), number(is_below)]
        return context.make_tuple(builder, signature.return_type, numbers)

    return signature, generate


@njit(cache=True)
def _threshold(values, fewest, most):
    """Find a bound under which between ``fewest`` and ``most`` of the values lie, by bisection.

    Where ties leave none, the one found last has fewer than ``fewest`` under it.
    """
    low, high = OWN, -OWN
    for c in range(len(values)):
        if values[c] > -OWN / 2:
            low = min(low, values[c])
            high = max(high, values[c])
    for _ in range(_BISECTIONS):
        middle = low + (high - low) * np.float32(0.5)
        n_under = 0
        for c in range(len(values)):
            n_under += values[c] < middle
        if n_under < fewest:
            low = middle
        elif n_under > most:
            high = middle
        else:
            return middle
    return low


@njit(cache=True)
def _order_statistic(values, place):
    """The value at a place of the order, counted from 0."""
    bound = _threshold(values, place + 1, place + 1)
    n_under = 0
    under, above = -OWN, OWN
    for c in range(len(values)):
        if values[c] < bound:
            n_under += 1
            under = max(under, values[c])
        else:
            above = min(above, values[c])
    return under if n_under > place else above


@njit(cache=True)
def _cut_back(values, columns, count, low, high):
    """Keep the values from ``low`` to ``high``; give their number and that of those below."""
    padded = -(-count // _LANES) * _LANES
    values[count:padded] = np.nan
    kept, below = 0, 0
    for first in range(0, padded, _LANES):
        n_inside, n_below = _pack(values, columns, first, low, high, values, columns, kept)
        kept += n_inside
        below += n_below
    return kept, below


@njit(cache=True)
def _scan_near(bounds, bound_columns, n_kept, values, columns, count, cut):
    """List the bounds up to the cut; give the new length and cut."""
    for first in range(0, len(bounds), 2 * _LANES):
        group = bounds[first : first + 2 * _LANES]
        n_hits = 0
        for c in range(len(group)):
            n_hits += group[c] <= cut
        if n_hits > 0:
            if count + 2 * _LANES > len(values):
                cut = _threshold(values[:count], n_kept, n_kept + _LANES)
                count, _ = _cut_back(values, columns, count, np.float32(-np.inf), cut)
                if count < n_kept or count + 2 * _LANES > len(values):
                    return 0, np.float32(-np.inf)  # too many ties: leave the row to others
            for lane in (first, first + _LANES):
                added, _ = _pack(bounds, bound_columns, lane, -np.inf, cut, values, columns, count)
                count += added
    return count, cut


@njit(cache=True)
def _scan_far(
    estimates,
    estimate_columns,
    n_before,
    far_rank,
    n_images,
    values,
    columns,
    count,
    low,
    high,
    below,
):
    """List the estimates within the window; give the new length, bounds and number below."""
    for first in range(0, len(estimates), _LANES):
        if count + _LANES > len(values):
            n_seen = n_before + first
            place = far_rank * n_seen // n_images - below
            margin = _margin(n_seen, n_images, far_rank)
            if place - margin > 0:
                low = _threshold(values[:count], max(place - margin - _LANES, 0), place - margin)
            if place + margin < count:
                high = _threshold(values[:count], place + margin, place + margin + _LANES)
            count, n_below = _cut_back(values, columns, count, low, high)
            below += n_below
            if count + _LANES > len(values):
                return 0, np.float32(np.inf), np.float32(-np.inf), below  # ties, as above
        n_inside, n_below = _pack(
            estimates, estimate_columns, first, low, high, values, columns, count
        )
        count += n_inside
        below += n_below
    return count, low, high, below


@njit(nogil=True, cache=True)
def scan(
    products: NDArray[np.float32],
    half_norms: NDArray[np.float32],
    norms: NDArray[np.float32],
    errors: NDArray[np.float32],
    rounding: np.float32,
    near: NearLists,
    far: FarWindows,
    first_row: int,
    first_column: int,
    n_before: int,
    n_kept: int,
    n_images: int,
    far_rank: int,
) -> None:
    """Read a tile once for its rows: list what may be near and what lies about the far rank.

    The columns come in random order, so that the share of them inside the far radius is known
    closely all along: a window of about ``5 sqrt(far_rank)`` images about the expected rank holds
    the one sought (Munro and Paterson, 1980); those left out are counted, on either side.

    Args:
        products: Shape ``(b, c)``, of rows and columns; ``OWN`` for an image with itself.
        half_norms: Shape ``(c,)``, half the squared norms of the columns.
        norms: Shape ``(c,)``, norms of the columns.
        errors: Shape ``(b,)``; ``|computed x - x|`` is at most this times the column's norm, ...
        rounding: ... and this times the product.
        near: Lists of ``m >= b`` rows.
        far: Windows of as many rows, or of none to skip them.
        first_row: Row of ``near`` and ``far`` that the tile starts at.
        first_column: Where the tile's columns start.
        n_before: Columns that the rows have seen in tiles before.
        n_kept: Length that the near lists are cut back to.
        n_images: Columns in all.
        far_rank: tau_2 of the paper.
    """
    near_values, near_columns, near_counts, near_cuts = near
    far_values, far_columns, far_counts, far_lows, far_highs, far_below = far
    n_lanes = -(-products.shape[1] // (2 * _LANES)) * 2 * _LANES
    columns = np.arange(first_column, first_column + n_lanes).astype(np.int32)
    for r in range(len(products)):
        row = first_row + r
        error = errors[r]
        product = products[r]
        estimates = np.empty(n_lanes, dtype=np.float32)
        bounds = np.empty(n_lanes, dtype=np.float32)
        estimates[len(product) :] = np.nan  # compares as neither below nor inside
        bounds[len(product) :] = np.nan
        for c in range(len(product)):
            estimates[c] = half_norms[c] - product[c]
            bounds[c] = estimates[c] - error * norms[c] - rounding * abs(product[c])
        near_counts[row], near_cuts[row] = _scan_near(
            bounds,
            columns,
            n_kept,
            near_values[row],
            near_columns[row],
            near_counts[row],
            near_cuts[row],
        )
        if len(far_counts) > 0:
            far_counts[row], far_lows[row], far_highs[row], far_below[row] = _scan_far(
                estimates,
                columns,
                n_before,
                far_rank,
                n_images,
                far_values[row],
                far_columns[row],
                far_counts[row],
                far_lows[row],
                far_highs[row],
                far_below[row],
            )


@njit(cache=True)
def squared_distance(left, right, room):
    """The float64 sum of squared differences, added in an order that ``d`` alone decides."""
    size = len(left)
    for dim in range(size):
        difference = np.float64(left[dim]) - np.float64(right[dim])
        room[dim] = difference * difference
    while size > 1:
        half = size // 2
        for dim in range(half):
            room[dim] += room[half + dim]
        if size % 2:
            room[half] = room[size - 1]
        size = half + size % 2
    return room[0]


@njit(cache=True)
def _sort_pairs(squared, images, count):
    """Order by distance, ties by index, in place."""
    gap = 1
    while gap < count:
        gap = 3 * gap + 1
    while gap > 1:
        gap //= 3
        for right in range(gap, count):
            distance, image, place = squared[right], images[right], right
            while place >= gap and (
                squared[place - gap] > distance
                or (squared[place - gap] == distance and images[place - gap] > image)
            ):
                squared[place], images[place] = squared[place - gap], images[place - gap]
                place -= gap
            squared[place], images[place] = distance, image


@njit(cache=True)
def _settle_near_row(
    features, order, position, half_norm, half_scale, values, columns, cut, indices, squared
):
    count, n_neighbors = len(values), len(indices)
    if count < n_neighbors:
        return False
    room = np.empty(features.shape[1])
    exact, images = np.empty(count), np.empty(count, dtype=np.int64)
    own = order[position]
    likely = _order_statistic(values, n_neighbors - 1)
    limit = np.float64(likely)
    found, farthest = 0, 0.0
    for step in range(2):
        for c in range(count):
            if (step == 0 and values[c] <= likely) or (step == 1 and likely < values[c] <= limit):
                images[found] = order[columns[c]]
                exact[found] = squared_distance(features[own], features[images[found]], room)
                farthest = max(farthest, exact[found])
                if images[found] == own:
                    exact[found] = -1.0  # before its duplicates
                found += 1
        if step == 0:
            limit = farthest * half_scale - half_norm
    _sort_pairs(exact, images, found)
    indices[:] = images[:n_neighbors]
    for rank in range(n_neighbors):
        squared[rank] = max(exact[rank], 0.0)
    return cut == np.inf or squared[n_neighbors - 1] * half_scale - half_norm < cut


@njit(nogil=True, cache=True)
def settle_near(
    features: NDArray[np.float32],
    order: NDArray[np.int64],
    positions: NDArray[np.int64],
    half_norms: NDArray[np.float64],
    half_scale: float,
    near: NearLists,
    first_row: int,
    indices: NDArray[np.int64],
    squared: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Order the listed images of ``b`` rows by exact distance, and certify the nearest.

    Measured first are the ``k`` of the least lower bounds. The farthest of them is no nearer than
    the ``k``-th neighbor sought, so all others that might be nearer have a lower bound up to its
    ``x``; they are measured next. Images off the list have lower bounds of at least the cut: the
    row is settled where the ``k``-th distance stays under it.

    Args:
        features: Shape ``(n, d)``.
        order: Shape ``(n,)``, images in the order of the columns.
        positions: Shape ``(b,)``, places of the rows in that order.
        half_norms: Shape ``(n,)``, half the squared norms in that order.
        half_scale: Half the square of the factor between the features and the products'.
        near: Lists of at least ``first_row + b`` rows.
        first_row: Row of the lists to start at.
        indices: Shape ``(b, k)``, to be filled.
        squared: Shape ``(b, k)``, squared distances, to be filled.

    Returns:
        Shape ``(b,)``, whether each row is settled.
    """
    near_values, near_columns, near_counts, near_cuts = near
    is_settled = np.zeros(len(positions), dtype=np.bool_)
    for r in range(len(positions)):
        count = near_counts[first_row + r]
        is_settled[r] = _settle_near_row(
            features,
            order,
            positions[r],
            half_norms[positions[r]],
            half_scale,
            near_values[first_row + r, :count],
            near_columns[first_row + r, :count],
            near_cuts[first_row + r],
            indices[r],
            squared[r],
        )
    return is_settled


@njit(cache=True)
def _settle_far_row(features, order, position, slack, values, columns, low, high, place):
    count = len(values)
    if place < 0 or place >= count:
        return -1.0
    estimate = np.float64(_order_statistic(values, place))
    inner, outer = estimate - slack, estimate + slack
    if (low > -np.inf and inner <= low) or (high < np.inf and outer >= high):
        return -1.0
    room = np.empty(features.shape[1])
    exact, images = np.empty(count), np.empty(count, dtype=np.int64)
    found = 0
    for c in range(count):
        if values[c] < inner:
            place -= 1
        elif values[c] <= outer:
            images[found] = order[columns[c]]
            exact[found] = squared_distance(
                features[order[position]], features[images[found]], room
            )
            found += 1
    _sort_pairs(exact, images, found)
    return exact[place]


@njit(nogil=True, cache=True)
def settle_far(
    features: NDArray[np.float32],
    order: NDArray[np.int64],
    positions: NDArray[np.int64],
    slacks: NDArray[np.float64],
    far: FarWindows,
    first_row: int,
    far_rank: int,
) -> NDArray[np.float64]:
    """Squared distance at the far rank of ``b`` rows, -1 where the window does not tell.

    An estimate is off by at most half the slack, and so is the order statistic of the estimates:
    the images further than the slack from it are on a known side, the others are measured.

    Args:
        features: Shape ``(n, d)``.
        order: Shape ``(n,)``, images in the order of the columns.
        positions: Shape ``(b,)``, places of the rows in that order.
        slacks: Shape ``(b,)``, twice the bound of ``|estimated x - x|``.
        far: Windows of at least ``first_row + b`` rows.
        first_row: Row of the windows to start at.
        far_rank: tau_2 of the paper.
    """
    far_values, far_columns, far_counts, far_lows, far_highs, far_below = far
    squared = np.empty(len(positions))
    for r in range(len(positions)):
        row = first_row + r
        squared[r] = _settle_far_row(
            features,
            order,
            positions[r],
            slacks[r],
            far_values[row, : far_counts[row]],
            far_columns[row, : far_counts[row]],
            far_lows[row],
            far_highs[row],
            far_rank - far_below[row],
        )
    return squared
