"""Which of the images that a pass has listed are the nearest, and which is at the far rank."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from unic.neighbors.exact.lists import FarWindows, NearLists, order_statistic
from unic.neighbors.exact.vectors import LANES, SUMS, prefetch, squared_distance

_AHEAD = 2  # images asked for before they are measured


class SpecialRows(NamedTuple):
    """Distances of ``b`` rows to special features, see the specials."""

    squared: NDArray[np.float64]  # (b, s)
    members: NDArray[np.int64]  # (t,)
    first: NDArray[np.int64]  # (s + 1,)
    weights: NDArray[np.int64]  # (s,)


@njit(nogil=True, cache=True)
def settle_near(
    features: NDArray[np.float32],
    order: NDArray[np.int64],
    positions: NDArray[np.int64],
    half_norms: NDArray[np.float64],
    half_scale: float,
    near: NearLists,
    indices: NDArray[np.int64],
    squared: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Order the listed images of ``b`` rows by exact distance, and certify the nearest.

    Measured first are the ``k`` of the least lower bounds. The farthest of them is no nearer than
    the ``k``-th neighbor sought, so all others that might be nearer have a lower bound up to its
    ``x``; they are measured next. Images off the list have lower bounds of at least the cut: the
    row is settled where the ``k``-th distance stays under it.

    Args:
        features: Shape ``(n, d)``, C-contiguous.
        order: Shape ``(n,)``, images in the order of the columns.
        positions: Shape ``(b,)``, places of the rows in that order.
        half_norms: Shape ``(n,)``, half the squared norms in that order.
        half_scale: Half the square of the factor between the features and the products'.
        near: Lists of the ``b`` rows, and of others after them.
        indices: Shape ``(b, k)``, to be filled.
        squared: Shape ``(b, k)``, squared distances, to be filled.

    Returns:
        Shape ``(b,)``, whether each row is settled.
    """
    is_settled = np.zeros(len(positions), dtype=np.bool_)
    width, n_neighbors = near.values.shape[1], indices.shape[1]
    images, exact = np.empty(width + 1, dtype=np.int64), np.empty(width)
    for r in range(len(positions)):
        count = near.counts[r]
        if count < n_neighbors:
            continue
        own, half_norm = order[positions[r]], half_norms[positions[r]]
        values, columns = near.values[r, :count], near.columns[r, :count]
        likely = order_statistic(values, n_neighbors - 1)
        n_likely = 0
        for c in range(count):
            images[n_likely] = order[columns[c]]
            n_likely += values[c] <= likely
        _measure(features, own, images[:n_likely], exact[:n_likely])
        limit = exact[:n_likely].max() * half_scale - half_norm
        n_found = n_likely
        for c in range(count):
            images[n_found] = order[columns[c]]
            n_found += likely < values[c] <= limit
        if n_found < n_neighbors:
            continue
        _measure(features, own, images[n_likely:n_found], exact[n_likely:n_found])
        for place in range(n_found):
            if images[place] == own:
                exact[place] = -1.0  # before its duplicates
        _sort_pairs(exact, images, n_found)
        indices[r] = images[:n_neighbors]
        for rank in range(n_neighbors):
            squared[r, rank] = max(exact[rank], 0.0)
        last = squared[r, n_neighbors - 1] * half_scale - half_norm
        is_settled[r] = near.cuts[r] == np.inf or last < near.cuts[r]
    return is_settled


@njit(nogil=True, cache=True)
def merge_specials(
    indices: NDArray[np.int64],
    squared: NDArray[np.float64],
    is_settled: NDArray[np.bool_],
    specials: SpecialRows,
    n_neighbors: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Put images of special features among the nearest ordinary ones.

    Args:
        indices: Shape ``(b, k')``, nearest first, the image of the row before all others.
        squared: Shape ``(b, k')``, squared distances. Fewer than ``n_neighbors`` are all that
            there are.
        is_settled: Shape ``(b,)``; other rows are passed over.
        specials: Of the ``b`` rows.
        n_neighbors: tau_1 of the paper.

    Returns:
        Indices ``(b, k)`` and squared distances ``(b, k)``.
    """
    n_rows, n_listed = indices.shape
    merged = np.empty((n_rows, n_neighbors), dtype=np.int64)
    merged_squared = np.empty((n_rows, n_neighbors))
    for r in np.flatnonzero(is_settled):
        limit = squared[r, n_listed - 1] if n_listed == n_neighbors else np.inf
        n_room = n_listed
        for number in range(len(specials.weights)):
            if specials.squared[r, number] <= limit:
                n_room += min(specials.weights[number], n_neighbors)
        images, exact = np.empty(n_room, dtype=np.int64), np.empty(n_room)
        images[:n_listed], exact[:n_listed] = indices[r], squared[r]
        exact[0] = -1.0  # the image itself
        count = n_listed
        for number in range(len(specials.weights)):
            if specials.squared[r, number] <= limit:
                first = specials.first[number]
                for place in range(min(specials.weights[number], n_neighbors)):
                    images[count] = specials.members[first + place]
                    exact[count] = specials.squared[r, number]
                    count += 1
        _sort_pairs(exact, images, count)
        merged[r] = images[:n_neighbors]
        merged_squared[r] = exact[:n_neighbors]
        merged_squared[r, 0] = 0.0
    return merged, merged_squared


@njit(nogil=True, cache=True)
def settle_far(
    features: NDArray[np.float32],
    order: NDArray[np.int64],
    positions: NDArray[np.int64],
    half_norms: NDArray[np.float64],
    half_scale: float,
    slacks: NDArray[np.float64],
    far: FarWindows,
    far_rank: int,
    specials: SpecialRows,
) -> NDArray[np.float64]:
    """Squared distance at the far rank of ``b`` rows, -1 where the window does not tell.

    An estimate is off by at most half the slack, and so is the order statistic of the estimates:
    the images further than the slack from it are on a known side, the others are measured. Special
    features are known exactly, and count as often as there are images of them.

    Args:
        features: Shape ``(n, d)``, C-contiguous.
        order: Shape ``(n,)``, images in the order of the columns.
        positions: Shape ``(b,)``, places of the rows in that order.
        half_norms: Shape ``(b,)``, half the squared norms of the rows.
        half_scale: As in :func:`settle_near`.
        slacks: Shape ``(b,)``, twice the bound of ``|estimated x - x|``.
        far: Windows of the ``b`` rows, and of others after them.
        far_rank: tau_2 of the paper.
        specials: Of the ``b`` rows.
    """
    squared = np.full(len(positions), -1.0)
    n_specials = len(specials.weights)
    width = far.values.shape[1] + n_specials
    images, exact = np.empty(width, dtype=np.int64), np.empty(width)
    for r in range(len(positions)):
        count, low, high = far.counts[r], far.lows[r], far.highs[r]
        values, columns = far.values[r, :count], far.columns[r, :count]
        place = far_rank - far.below[r]
        exact_x = specials.squared[r] * half_scale - half_norms[r]  # (s,)
        number, estimate = _order_statistic(values, exact_x, specials.weights, place)
        if number < 0:
            continue
        inner, outer = estimate - slacks[r], estimate + slacks[r]
        if (low > -np.inf and inner <= low) or (high < np.inf and outer >= high):
            continue
        n_found = 0
        for c in range(count):
            images[n_found] = order[columns[c]]
            n_found += inner <= values[c] <= outer
            place -= values[c] < inner
        _measure(features, order[positions[r]], images[:n_found], exact[:n_found])
        images[:n_found] = 1  # from here on how often each counts
        for special in range(n_specials):
            if exact_x[special] < inner:
                place -= specials.weights[special]
            elif exact_x[special] <= outer:
                images[n_found] = specials.weights[special]
                exact[n_found] = specials.squared[r, special]
                n_found += 1
        _sort_pairs(exact, images, n_found)
        for found in range(n_found):
            place -= images[found]
            if place < 0:
                squared[r] = exact[found]
                break
    return squared


@njit(nogil=True, cache=True)
def bound_far(
    half_norms: NDArray[np.float64],
    half_scale: float,
    far: FarWindows,
    far_rank: int,
    specials: SpecialRows,
) -> NDArray[np.float64]:
    """Bound from above the squared distance at the far rank of ``b`` rows, -1 as above.

    The order statistic of upper bounds is an upper bound of the order statistic: each image errs
    by what its own features lose, whatever others do.

    Args:
        half_norms: Shape ``(b,)``, half the squared norms of the rows.
        half_scale: As in :func:`settle_near`.
        far: Windows of upper bounds of the ``b`` rows, and of others after them.
        far_rank: tau_2 of the paper.
        specials: Of the ``b`` rows.
    """
    squared = np.full(len(half_norms), -1.0)
    for r in range(len(half_norms)):
        values, place = far.values[r, : far.counts[r]], far_rank - far.below[r]
        exact_x = specials.squared[r] * half_scale - half_norms[r]  # (s,)
        number, bound = _order_statistic(values, exact_x, specials.weights, place)
        if not far.lows[r] <= bound <= far.highs[r]:
            continue  # images left out would come before or after it
        if number >= len(values):
            squared[r] = specials.squared[r, number - len(values)]
        elif number >= 0:
            squared[r] = (bound + half_norms[r]) / half_scale
    return squared


@njit(cache=True)
def _order_statistic(values, specials, weights, place):
    """The value at a place among ``c`` values and weighted specials; which it is, -1 for none.

    Numbers from ``c`` on are those of specials. Without specials the number of the value is not
    looked for, and 0 is given.
    """
    if len(specials) == 0:
        if 0 <= place < len(values):
            return 0, np.float64(order_statistic(values, place))
        return -1, 0.0
    every = np.empty(len(values) + len(specials))
    every[: len(values)], every[len(values) :] = values, specials
    if place >= 0:
        for number in np.argsort(every):
            place -= weights[number - len(values)] if number >= len(values) else 1
            if place < 0:
                return number, every[number]
    return -1, 0.0


@njit(cache=True)
def _measure(features, own, images, squared):
    """Squared distances of some images to one."""
    n_dims = features.shape[1]
    flat, sums = features.reshape(features.size), np.empty(SUMS)
    for place in range(len(images)):
        if place + _AHEAD < len(images):
            start = images[place + _AHEAD] * n_dims
            for offset in range(0, n_dims, LANES):
                prefetch(flat, start + offset)
        squared[place] = squared_distance(features[own], features[images[place]], sums)


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
