"""Compiled loops of k-means. Each row, and each part of the dims, is done by one thread alone."""

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from unic.neighbors.exact.vectors import SUMS, squared_distance

_PART_ROWS = 64  # of a thread at a time
_PART_DIMS = 64
_LARGEST = np.float32(127.0)  # of a digit, with either sign
# Of bounds in float32: several roundings.
LESS, MORE = np.float32(1 - 2.0**-20), np.float32(1 + 2.0**-20)


class Rows(NamedTuple):
    """Points or centers as they are multiplied, and how far their products may be off.

    ``int8`` has ``a' = s q`` with whole numbers ``q`` from -127 to 127 and a scale ``s`` of each
    row, ``float32`` has ``a' = a`` and ``s = 1``. Sought is ``x = |b|^2 / 2 - a . b`` of a point
    ``a`` and a center ``b``, computed is ``v = fl(|b|^2 / 2) - g``, where ``g`` stands for the
    product. Then ``|v - x| <= e`` with ``e = errors[a] norms[b] + norms[a] errors[b]``, also after
    ``e`` is added to or subtracted from ``v`` in float32.

    Proof. With residuals ``r = |a - a'|`` Cauchy-Schwarz gives ``|a . b - a' . b'| <= r_a |b| +
    |a'| r_b``, and ``|a'| <= |a| + r_a``, which ``norms`` are. Sums of products of digits have no
    error up to 2^16 dims; those of ``d`` rounded products in float32 are off by at most ``d u /
    (1 - d u) |a| |b|`` with ``u = 2^-24`` (Higham, Accuracy and Stability of Numerical Algorithms,
    Section 3.1), of which each of the two ``errors`` has half. Rounding ``g``, ``|b|^2 / 2``, the
    difference, ``e`` and what it is added to costs less than ``8 u |a| |b| + 3 u |b|^2 + 8 u e``:
    each of the errors gains ``4 u`` times its norm, ``4 u`` times the largest norm of either side,
    and a thousandth. ``norms`` are at least 2^-20 of the scale of the rows, so that what underflows
    is far below these margins.
    """

    matrix: NDArray[np.int8] | NDArray[np.float32]  # (b, d)
    scales: NDArray[np.float32]  # (b,)
    squares: NDArray[np.float64]  # (b,), of the lengths
    norms: NDArray[np.float32]  # (b,)
    errors: NDArray[np.float32]  # (b,)


@njit(parallel=True, cache=True, fastmath={"nnan", "nsz"})
def round_to_digits(rows, digits, scales, residuals):
    """Digits ``(b, d)``, scales ``(b,)`` and lengths of what is left out ``(b,)``, to be filled."""
    for part in prange(-(-len(rows) // _PART_ROWS)):
        sums = np.empty(SUMS)
        rounded = np.empty(rows.shape[1], dtype=np.float32)
        for row in range(part * _PART_ROWS, min((part + 1) * _PART_ROWS, len(rows))):
            values = rows[row]
            largest = np.float32(0.0)
            for dim in range(len(values)):
                largest = max(largest, abs(values[dim]))
            if largest < np.float32(1e-30):
                largest = np.float32(1.0)
            scale = largest / _LARGEST
            inverse = _LARGEST / largest
            for dim in range(len(values)):
                digit = np.rint(values[dim] * inverse)
                digits[row, dim] = np.int8(digit)
                rounded[dim] = digit * scale
            scales[row] = scale
            residuals[row] = np.sqrt(squared_distance(values, rounded, sums))


@njit(parallel=True, cache=True)
def move_members(points, sums, members, labels):
    """Take points from the sums of their former clusters to those of their new ones.

    Args:
        points: Shape ``(n, d)``, float32.
        sums: Shape ``(c, d)``, float64, to be changed.
        members: Shape ``(n,)``, int64, former clusters, -1 = none.
        labels: Shape ``(n,)``, int64, new clusters.
    """
    n_dims = points.shape[1]
    moved = np.flatnonzero(members != labels)
    for part in prange(-(-n_dims // _PART_DIMS)):
        first, last = part * _PART_DIMS, min((part + 1) * _PART_DIMS, n_dims)
        for row in moved:
            values = points[row, first:last]
            if members[row] >= 0:
                before = sums[members[row], first:last]
                for dim in range(last - first):
                    before[dim] -= values[dim]
            after = sums[labels[row], first:last]
            for dim in range(last - first):
                after[dim] += values[dim]


@njit(parallel=True, cache=True)
def find_failing(points, centers, free, labels, bounds, uppers, slots, ways, last, outdated):
    """Which of the free points ``(m,)`` may have a nearer center than their own.

    Args:
        points: Shape ``(n, d)``, float32.
        centers: Shape ``(c, d)``, float32.
        free: Shape ``(m,)``, int64, numbers of the points.
        labels: Shape ``(n,)``, int64.
        bounds: Shape ``(m, c)``, float32, of distances to the snapshot, from below; that to the
            own center is infinite.
        uppers: Shape ``(m,)``, float32, of the distance to the own center, to be changed.
        slots: Shape ``(m,)``, int64, the snapshot of each point.
        ways: Shape ``(w, c)``, float32, how far each center is from where it was.
        last: The snapshot before.
        outdated: The snapshot that goes, or -1.
    """
    is_failing = np.empty(len(free), dtype=np.bool_)
    for part in prange(-(-len(free) // _PART_ROWS)):
        sums = np.empty(SUMS)
        for place in range(part * _PART_ROWS, min((part + 1) * _PART_ROWS, len(free))):
            own = labels[free[place]]
            uppers[place] = (uppers[place] + ways[last, own]) * MORE
            is_failing[place] = slots[place] == outdated
            if is_failing[place]:
                continue
            moved = ways[slots[place]]
            if _count_below(bounds[place], moved, uppers[place]) > 0:
                squared = squared_distance(points[free[place]], centers[own], sums)
                uppers[place] = np.float32(np.sqrt(squared)) * MORE
                is_failing[place] = _count_below(bounds[place], moved, uppers[place]) > 0
    return is_failing


@njit(cache=True)
def _count_below(bounds, moved, upper):
    """How many centers may be as near as ``upper``."""
    count = np.int32(0)
    for center in range(len(bounds)):
        count += np.int32(bounds[center] <= (upper + moved[center]) * MORE)
    return count


@njit(parallel=True, cache=True, fastmath={"nnan", "nsz"})
def settle(
    points, centers, products, numbers, places, rows, columns, halves, labels, bounds, uppers
):
    """Find the nearest centers of some points, and renew their bounds; count the candidates.

    Args:
        points: Shape ``(n, d)``, float32.
        centers: Shape ``(c, d)``, float32.
        products: Shape ``(b, c)``, int32 or float32.
        numbers: Shape ``(b,)``, int64, of the points.
        places: Shape ``(b,)``, int64, rows of the bounds.
        rows: What is known of all points beside the products.
        columns: The same of the centers.
        halves: Shape ``(c,)``, float32, half the squared lengths of the centers.
        labels: Shape ``(n,)``, int64, to be changed.
        bounds: Shape ``(m, c)``, float32, to be changed, see :func:`find_failing`; or ``(0, c)``.
        uppers: Shape ``(m,)``, the same.
    """
    n_candidates = 0
    for part in prange(-(-len(numbers) // _PART_ROWS)):
        sums = np.empty(SUMS)
        lows = np.empty(len(centers), dtype=np.float32)
        for i in range(part * _PART_ROWS, min((part + 1) * _PART_ROWS, len(numbers))):
            number = numbers[i]
            scale, norm, error = rows.scales[number], rows.norms[number], rows.errors[number]
            row = products[i]
            least = np.float32(np.inf)
            for center in range(len(row)):
                product = np.float32(row[center]) * columns.scales[center] * scale
                value = halves[center] - product
                margin = error * columns.norms[center] + norm * columns.errors[center]
                lows[center] = value - margin
                least = min(least, value + margin)
            count = np.int32(0)
            for center in range(len(row)):
                count += np.int32(lows[center] <= least)
            if len(bounds) > 0:
                square = np.float32(rows.squares[number]) * LESS
                own_bounds = bounds[places[i]]
                for center in range(len(row)):
                    squared = max(square + np.float32(2.0) * lows[center], np.float32(0.0))
                    own_bounds[center] = np.sqrt(squared) * LESS
            nearest, nearest_squared = -1, np.inf
            for center in range(len(row)):
                if lows[center] <= least:
                    if count == 1:
                        nearest = center
                        break
                    squared = squared_distance(points[number], centers[center], sums)
                    if len(bounds) > 0:
                        bounds[places[i], center] = np.float32(np.sqrt(squared)) * LESS
                    if squared < nearest_squared:
                        nearest, nearest_squared = center, squared
            labels[number] = nearest
            n_candidates += count
            if len(bounds) > 0:
                if count == 1:
                    top = np.float32(rows.squares[number]) * MORE
                    nearest_squared = max(top + np.float32(2.0) * least, np.float32(0.0))
                uppers[places[i]] = np.float32(np.sqrt(nearest_squared)) * MORE
                bounds[places[i], nearest] = np.inf
    return n_candidates


@njit(parallel=True, cache=True)
def square_digits(digits, scales, lengths):
    """Squared lengths of rows of digits ``(n, d)`` into ``(n,)``."""
    for row in prange(len(digits)):
        total = np.int32(0)
        for dim in range(digits.shape[1]):
            digit = np.int32(digits[row, dim])
            total += digit * digit
        lengths[row] = np.float32(total) * (scales[row] * scales[row])


@njit(inline="always")
def _squared(product, scale, length, other_scale, other_length):
    scaled = np.float32(product) * (scale * other_scale)
    return max((length + other_length) - (scaled + scaled), np.float32(0.0))


@njit(parallel=True, cache=True, fastmath={"reassoc", "nnan", "nsz"})
def sum_lowered(products, scales, lengths, candidates, closest, sums):
    """The inertia that each candidate would leave.

    Args:
        products: Shape ``(s * t, n)``, int32 or float32, of the candidates and all points.
        scales: Shape ``(n,)``, float32, of the points.
        lengths: Shape ``(n,)``, float32, squared.
        candidates: Shape ``(s * t,)``, int64.
        closest: Shape ``(s, n)``, float32, squared distances so far.
        sums: Shape ``(s * t,)``, float64, to be filled.
    """
    n_candidates = len(candidates) // len(closest)
    for row in prange(len(candidates)):
        scale, length = scales[candidates[row]], lengths[candidates[row]]
        before, own = closest[row // n_candidates], products[row]
        total = 0.0
        for point in range(len(before)):
            squared = _squared(own[point], scales[point], lengths[point], scale, length)
            total += np.float64(min(squared, before[point]))
        sums[row] = total


@njit(parallel=True, cache=True, fastmath={"nnan", "nsz"})
def lower_closest(products, scales, lengths, candidates, closest, best):
    """Lower the squared distances by the best candidate ``(s,)`` of each run, as above."""
    n_candidates = len(candidates) // len(closest)
    for run in prange(len(closest)):
        row = run * n_candidates + best[run]
        scale, length = scales[candidates[row]], lengths[candidates[row]]
        before, own = closest[run], products[row]
        for point in range(len(before)):
            squared = _squared(own[point], scales[point], lengths[point], scale, length)
            before[point] = min(squared, before[point])
