"""Compiled loops of the map. Each image is written by one thread alone, in an order of its own."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

N_PARTS = 8  # of the images, each spread by one thread: a number that no machine decides
_REACH = 4  # nodes of a grid, along one axis, that a spline covers
# Of gains, as in the authors' code of t-SNE but for the upper limit, and of a step.
_GAIN, _LOSS = np.float32(0.2), np.float32(0.8)
_LEAST_GAIN, _MOST_GAIN = np.float32(0.01), np.float32(20.0)
_LONGEST = np.float32(5.0)


@njit(cache=True)
def join_both_ways(
    indices: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The images that each image lists, then those that list it, in ascending order.

    Args:
        indices: Shape ``(n, k)``.

    Returns:
        Where those of each image start ``(n + 1,)``, and the images ``(2 n k,)``.
    """
    n_images, n_neighbors = indices.shape
    starts = np.zeros(n_images + 1, dtype=np.int64)
    for row in range(n_images):
        starts[row + 1] += n_neighbors
        for place in range(n_neighbors):
            starts[indices[row, place] + 1] += 1
    for image in range(n_images):
        starts[image + 1] += starts[image]
    joined = np.empty(2 * indices.size, dtype=np.int32)
    ends = starts[:-1] + n_neighbors
    for row in range(n_images):
        for place in range(n_neighbors):
            image = indices[row, place]
            joined[starts[row] + place] = image
            joined[ends[image]] = row
            ends[image] += 1
    return starts, joined


@njit(parallel=True, cache=True)
def attract(
    positions: NDArray[np.float32],
    starts: NDArray[np.int64],
    neighbors: NDArray[np.int32],
    pulls: NDArray[np.float32],
) -> None:
    """Pull each image to those that it is joined to: ``sum_j (y_j - y_i) / (1 + d_ij^2)``.

    Args:
        positions: Shape ``(n, 2)``.
        starts: Shape ``(n + 1,)``, see :func:`join_both_ways`.
        neighbors: Shape ``(e,)``.
        pulls: Shape ``(n, 2)``, to be filled.
    """
    for image in prange(len(positions)):
        own_x, own_y = positions[image, 0], positions[image, 1]
        pull_x = pull_y = np.float32(0.0)
        for edge in range(starts[image], starts[image + 1]):
            other = neighbors[edge]
            x = positions[other, 0] - own_x
            y = positions[other, 1] - own_y
            pull = np.float32(1.0) / (np.float32(1.0) + x * x + y * y)
            pull_x += pull * x
            pull_y += pull * y
        pulls[image, 0], pulls[image, 1] = pull_x, pull_y


@njit(inline="always")
def _spline(offset):
    """Cubic B-spline at the four nodes about a place, ``offset`` past the second."""
    rest = 1.0 - offset
    square, cube = offset * offset, offset * offset * offset
    return (
        rest * rest * rest / 6.0,
        (3.0 * cube - 6.0 * square + 4.0) / 6.0,
        (-3.0 * cube + 3.0 * square + 3.0 * offset + 1.0) / 6.0,
        cube / 6.0,
    )


@njit(inline="always")
def _slope(offset):
    """The derivative of :func:`_spline`."""
    rest = 1.0 - offset
    square = offset * offset
    return (
        -0.5 * rest * rest,
        0.5 * (3.0 * square - 4.0 * offset),
        0.5 * (-3.0 * square + 2.0 * offset + 1.0),
        0.5 * square,
    )


@njit(parallel=True, cache=True)
def spread(
    positions: NDArray[np.float32], origin: NDArray[np.float64], step: float, n_nodes: int
) -> NDArray[np.float64]:
    """Spread the images over the nodes of a grid, by cubic B-splines.

    Args:
        positions: Shape ``(n, 2)``.
        origin: Shape ``(2,)``, of the first node.
        step: Between nodes.
        n_nodes: g, of each axis; all images must be between the second node and the last but two.

    Returns:
        Shape ``(g, g)``; sums to n.
    """
    n_images = len(positions)
    parts = np.zeros((N_PARTS, n_nodes, n_nodes))
    for part in prange(N_PARTS):
        grid = parts[part]
        for image in range(part * n_images // N_PARTS, (part + 1) * n_images // N_PARTS):
            x = (positions[image, 0] - origin[0]) / step
            y = (positions[image, 1] - origin[1]) / step
            column, row = int(x), int(y)
            along = _spline(x - column)
            across = _spline(y - row)
            for r in range(_REACH):
                for c in range(_REACH):
                    grid[row - 1 + r, column - 1 + c] += across[r] * along[c]
    total = np.empty((n_nodes, n_nodes))
    for row in prange(n_nodes):
        for column in range(n_nodes):
            value = 0.0
            for part in range(N_PARTS):
                value += parts[part, row, column]
            total[row, column] = value
    return total


@njit(parallel=True, cache=True)
def gather(
    positions: NDArray[np.float32],
    field: NDArray[np.float64],
    origin: NDArray[np.float64],
    step: float,
    values: NDArray[np.float64],
    slopes: NDArray[np.float32],
) -> None:
    """Read a field and its slope where the images are, see :func:`spread`.

    Args:
        positions: Shape ``(n, 2)``.
        field: Shape ``(g, g)``, coefficients of splines.
        origin: Shape ``(2,)``.
        step: Between nodes.
        values: Shape ``(n,)``, to be filled.
        slopes: Shape ``(n, 2)``, to be filled.
    """
    for image in prange(len(positions)):
        x = (positions[image, 0] - origin[0]) / step
        y = (positions[image, 1] - origin[1]) / step
        column, row = int(x), int(y)
        along, across = _spline(x - column), _spline(y - row)
        along_slope, across_slope = _slope(x - column), _slope(y - row)
        value = slope_x = slope_y = 0.0
        for r in range(_REACH):
            total = turned = 0.0
            for c in range(_REACH):
                entry = field[row - 1 + r, column - 1 + c]
                total += along[c] * entry
                turned += along_slope[c] * entry
            value += across[r] * total
            slope_x += across[r] * turned
            slope_y += across_slope[r] * total
        values[image] = value
        slopes[image, 0] = slope_x / step
        slopes[image, 1] = slope_y / step


@njit(parallel=True, cache=True)
def measure_pairs(
    positions: NDArray[np.float32], values: NDArray[np.float64], slopes: NDArray[np.float32]
) -> None:
    """What :func:`gather` reads, from all pairs: ``sum_j 1 / (1 + d_ij^2)`` and its slope.

    Args:
        positions: Shape ``(n, 2)``.
        values: Shape ``(n,)``, to be filled.
        slopes: Shape ``(n, 2)``, to be filled.
    """
    for image in prange(len(positions)):
        value = slope_x = slope_y = 0.0
        for other in range(len(positions)):
            x = np.float64(positions[image, 0]) - np.float64(positions[other, 0])
            y = np.float64(positions[image, 1]) - np.float64(positions[other, 1])
            push = 1.0 / (1.0 + x * x + y * y)
            value += push
            slope_x -= 2.0 * push * push * x
            slope_y -= 2.0 * push * push * y
        values[image] = value
        slopes[image, 0], slopes[image, 1] = slope_x, slope_y


@njit(parallel=True, cache=True)
def move(
    positions: NDArray[np.float32],
    speeds: NDArray[np.float32],
    gains: NDArray[np.float32],
    pulls: NDArray[np.float32],
    slopes: NDArray[np.float32],
    starts: NDArray[np.int64],
    attraction: np.float32,
    repulsion: np.float32,
    momentum: np.float32,
) -> None:
    """Move all images by one step of gradient descent with momentum and gains.

    The step of an image that many others list is shorter: it would leap to and fro among them.

    Args:
        positions: Shape ``(n, 2)``, to be changed.
        speeds: Shape ``(n, 2)``, to be changed.
        gains: Shape ``(n, 2)``, to be changed (Jacobs, 1988).
        pulls: Shape ``(n, 2)``, of :func:`attract`.
        slopes: Shape ``(n, 2)``, of the field, which falls where images are pushed to.
        starts: Shape ``(n + 1,)``, see :func:`join_both_ways`.
        attraction: Factor of the pulls.
        repulsion: Factor of the slopes.
        momentum: Share of its speed that an image keeps.
    """
    n_images = len(positions)
    typical = np.float32(starts[n_images] / n_images)
    for image in prange(n_images):
        degree = np.float32(starts[image + 1] - starts[image])
        share = min(np.float32(1.0), typical / degree)
        length = np.float32(0.0)
        for axis in range(2):
            force = attraction * pulls[image, axis] - repulsion * slopes[image, axis]
            speed = speeds[image, axis]
            if force * speed >= 0:
                gains[image, axis] = min(gains[image, axis] + _GAIN, _MOST_GAIN)
            else:
                gains[image, axis] = max(gains[image, axis] * _LOSS, _LEAST_GAIN)
            speed = momentum * speed + gains[image, axis] * share * force
            speeds[image, axis] = speed
            length += speed * speed
        length = np.sqrt(length)
        shrink = np.float32(1.0) if length <= _LONGEST else _LONGEST / length
        for axis in range(2):
            speeds[image, axis] *= shrink
            positions[image, axis] += speeds[image, axis]


@njit(parallel=True, cache=True)
def nearest_in_map(
    positions: NDArray[np.float32], anchors: NDArray[np.int64], n_neighbors: int
) -> NDArray[np.int64]:
    """The images nearest to some in the map ``(m, k)``, nearest first, equals by their number.

    Args:
        positions: Shape ``(n, 2)``.
        anchors: Shape ``(m,)``, which are not among their own neighbors.
        n_neighbors: k, below n.
    """
    found = np.empty((len(anchors), n_neighbors), dtype=np.int64)
    for row in prange(len(anchors)):
        nearest = np.full(n_neighbors, np.inf)
        for other in range(len(positions)):
            distance = _squared(positions, anchors[row], other)
            if distance >= nearest[-1] or other == anchors[row]:
                continue
            place = n_neighbors - 1
            while place > 0 and nearest[place - 1] > distance:
                nearest[place] = nearest[place - 1]
                found[row, place] = found[row, place - 1]
                place -= 1
            nearest[place] = distance
            found[row, place] = other
    return found


@njit(parallel=True, cache=True)
def nearer_in_map(
    positions: NDArray[np.float32], anchors: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many images are nearer to an anchor in the map than some others, ``(m, k)``.

    Args:
        positions: Shape ``(n, 2)``.
        anchors: Shape ``(m,)``, which do not count as near themselves.
        others: Shape ``(m, k)``, of each anchor.
    """
    counts = np.zeros(others.shape, dtype=np.int64)
    for row in prange(len(anchors)):
        limits = np.empty(others.shape[1])
        for place in range(others.shape[1]):
            limits[place] = _squared(positions, anchors[row], others[row, place])
        widest = limits.max()
        for other in range(len(positions)):
            distance = _squared(positions, anchors[row], other)
            if distance < widest and other != anchors[row]:
                for place in range(others.shape[1]):
                    counts[row, place] += distance < limits[place]
    return counts


@njit(parallel=True, cache=True)
def count_below(
    distances: NDArray[np.float64], limits: NDArray[np.float64], counts: NDArray[np.int64]
) -> None:
    """Add how many distances of each row are below each of its limits.

    Args:
        distances: Shape ``(m, b)``.
        limits: Shape ``(m, k)``.
        counts: Shape ``(m, k)``, to be added to.
    """
    for row in prange(len(distances)):
        widest = limits[row].max()
        for distance in distances[row]:
            if distance < widest:
                for place in range(limits.shape[1]):
                    counts[row, place] += distance < limits[row, place]


@njit(inline="always")
def _squared(positions, left, right):
    x = np.float64(positions[left, 0]) - np.float64(positions[right, 0])
    y = np.float64(positions[left, 1]) - np.float64(positions[right, 1])
    return x * x + y * y
