"""Lloyd's iterations on a CPU: products screen, bounds save products, distances in float64 decide.

The result is that of plain iterations in which each point goes to the center of the least float64
sum of squared differences (:func:`unic.neighbors.exact.vectors.squared_distance`), ties to the
lower index, whatever the precision of the products and the number of threads.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.baselines.kmeans_loops import (
    MORE,
    Rows,
    find_failing,
    move_members,
    round_to_digits,
    settle,
)
from unic.neighbors.exact.vectors import measure_pairs
from unic.runtime.devices import MAX_INT8_DIMS, has_int8

_BLOCK_ENTRIES = 2**19  # of a block of products: 2 MB, which stay in the cache
_DEVICE_ENTRIES = 2**25  # of a block of distances on a device: 128 MB in float32
_BOUND_ENTRIES = 2**28  # of the table of bounds: 1 GB
_N_SNAPSHOTS = 16  # of earlier centers, from which the bounds of a point may date
_LEAST_PRODUCTS = 2**12  # clusters times dims, from which on int8 products pay
_INT8_ROWS = 17  # fewer take longer
_PART_ROWS = 64  # of a thread at a time
_ROUNDING = 2.0**-24  # relative error of rounding to float32
_LEAST_NORM = 2.0**-20  # of rows whose largest entry is about 1


class Run(NamedTuple):
    """The end of a run of Lloyd's iterations."""

    inertia: float
    n_iter: int
    centers: NDArray[np.float32]  # (c, d)


def pays_int8(n_clusters: int, n_dims: int) -> bool:
    """Whether int8 products are exact here, and faster than those of float32."""
    return has_int8() and n_clusters * n_dims >= _LEAST_PRODUCTS and n_dims <= MAX_INT8_DIMS


def describe(rows: NDArray[np.float32], *, is_int8: bool, largest: float = 0.0) -> Rows:
    """Round rows for products, and bound their errors.

    Args:
        rows: Shape ``(b, d)``, entries at most about 1.
        is_int8: Whether they are rounded to digits of a byte, else left as they are.
        largest: Of the lengths of those that they are multiplied with, if greater than theirs.
    """
    scales, residuals = np.ones(len(rows), dtype=np.float32), np.zeros(len(rows))  # (b,) each
    matrix: NDArray[np.int8] | NDArray[np.float32] = rows
    if is_int8:
        matrix = np.empty(rows.shape, dtype=np.int8)
        round_to_digits(rows, matrix, scales, residuals)
    origin, first = np.zeros((1, rows.shape[1]), dtype=np.float32), np.zeros(len(rows), np.int64)
    squares = measure_pairs(rows, np.arange(len(rows)), origin, first)  # (b,)
    norms = np.maximum(np.sqrt(squares) + residuals, _LEAST_NORM)  # (b,)
    largest = max(largest, float(norms.max(initial=0.0)))
    n_products = 0.0 if is_int8 else rows.shape[1] / 2
    errors = residuals + _ROUNDING * ((n_products * 1.01 + 4) * norms + 4 * largest)
    return Rows(
        matrix,
        scales,
        squares,
        np.nextafter(norms.astype(np.float32), np.float32(np.inf)),
        (1.001 * errors).astype(np.float32),
    )


def find_nearest(points: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Nearest center of each point, ties to the lower index: shape ``(n,)``.

    Args:
        points: Shape ``(n, d)``, entries at most about 1.
        centers: Shape ``(c, d)``, the same.
    """
    longest = float(describe(centers, is_int8=False).norms.max())
    assigned = _Assignment(
        points,
        describe(points, is_int8=False, largest=longest),
        np.full(len(points), -1, dtype=np.int64),
        len(centers),
        keeps_bounds=False,
    )
    assigned.renew(centers)
    return assigned.labels


def iterate(
    points: NDArray[np.float32],
    rows: Rows,
    known_labels: NDArray[np.int64],
    centers: NDArray[np.float32],
    *,
    max_iter: int,
    max_shift: float,
) -> Run:
    """Run Lloyd's iterations from given centers.

    Sums of clusters are kept in float64 and change by the points that move between clusters.

    Args:
        points: Shape ``(n, d)``, entries at most about 1.
        rows: The points as they are multiplied.
        known_labels: Shape ``(n,)``, -1 = unknown.
        centers: Shape ``(c, d)``.
        max_iter: Iterations at most.
        max_shift: The run ends when the centers move by at most this, squared and summed.
    """
    assigned = _Assignment(points, rows, known_labels, len(centers), keeps_bounds=True)
    assigned.renew(centers)
    members = np.full(len(points), -1, dtype=np.int64)  # (n,), as the sums have them
    sums = np.zeros(centers.shape)  # (c, d)
    every = np.arange(len(centers))  # (c,)
    n_iter, has_settled = 0, False
    while n_iter < max_iter and not has_settled:
        n_iter += 1
        labels = _fill_empty(points, centers, assigned.labels, known_labels)  # (n,)
        move_members(points, sums, members, labels)
        members = labels
        counts = np.bincount(members, minlength=len(centers))[:, None]  # (c, 1)
        sums[counts[:, 0] == 0] = 0.0
        # A cluster of one point may just have lost it to an empty one: its center stays.
        means = (sums / np.maximum(counts, 1)).astype(np.float32)
        moved = np.where(counts > 0, means, centers)  # (c, d)
        shift = _measure_to_own(moved, centers, every).sum()
        previous, centers = assigned.labels.copy(), moved
        assigned.renew(centers)
        has_settled = shift <= max_shift or np.array_equal(assigned.labels, previous)
    inertia = _measure_to_own(points, centers, assigned.labels).sum()
    return Run(float(inertia), n_iter, centers)


class _Assignment:
    """The cluster of each point, renewed as the centers move.

    Elkan (2003): a center that was at least ``l`` away from a point and has moved by ``m`` is at
    least ``l - m`` away. A point whose own center is at most ``u`` away, and all others more, stays
    where it is. Here ``m`` is the way as the crow flies from where the center was when the bounds
    of that point were taken, of which the last few are remembered; all bounds of a point are
    renewed by one row of products, once any of them fails.
    """

    def __init__(
        self,
        points: NDArray[np.float32],
        rows: Rows,
        known_labels: NDArray[np.int64],
        n_clusters: int,
        *,
        keeps_bounds: bool,
    ) -> None:
        self.labels = known_labels.copy()  # (n,)
        self._points, self._rows = points, rows
        self._free = np.flatnonzero(known_labels < 0)  # (m,)
        n_bounds = len(self._free) if keeps_bounds else 0
        if n_bounds * n_clusters > _BOUND_ENTRIES:
            n_bounds = 0
        self._largest = float(rows.norms.max(initial=0.0))
        self._bounds = np.empty((n_bounds, n_clusters), dtype=np.float32)
        self._uppers = np.empty(n_bounds, dtype=np.float32)
        self._slots = np.zeros(n_bounds, dtype=np.int64)  # the snapshot that bounds date from
        self._snapshots: list[NDArray[np.float32]] = []
        self._n_renewed = 0

    def renew(self, centers: NDArray[np.float32]) -> None:
        """Assign all points but the labeled to their nearest centers ``(c, d)``."""
        slot = self._n_renewed % _N_SNAPSHOTS
        places = np.arange(len(self._free))  # (m,)
        if len(self._bounds) and self._snapshots:
            ways = np.stack([_measure_ways(s, centers) for s in self._snapshots])  # (w, c)
            last = (self._n_renewed - 1) % _N_SNAPSHOTS
            failing = find_failing(
                self._points,
                centers,
                self._free,
                self.labels,
                self._bounds,
                self._uppers,
                self._slots,
                ways,
                last,
                slot if len(self._snapshots) == _N_SNAPSHOTS else -1,
            )
            places = np.flatnonzero(failing)  # (m',)
        if len(self._bounds):
            self._snapshots[slot : slot + 1] = [centers]
        self._n_renewed += 1
        if len(places):
            self._settle(places, centers, slot)

    def _settle(self, places: NDArray[np.int64], centers: NDArray[np.float32], slot: int) -> None:
        """Assign the points at some places ``(p,)`` of the free ones, by products."""
        is_int8 = self._rows.matrix.dtype == np.int8
        columns = describe(centers, is_int8=is_int8, largest=self._largest)
        right = torch.from_numpy(columns.matrix)  # (c, d)
        halves = (columns.squares / 2).astype(np.float32)  # (c,)
        n_rows = max(_PART_ROWS, _BLOCK_ENTRIES // len(centers))
        n_candidates = 0
        for start in range(0, len(places), n_rows):
            block = places[start : start + n_rows]  # (b,)
            numbers = self._free[block]  # (b,)
            left = torch.from_numpy(self._rows.matrix[numbers])  # (b, d)
            products = multiply(left, right).numpy()  # (b, c)
            n_candidates += settle(
                self._points,
                centers,
                products,
                numbers,
                block,
                self._rows,
                columns,
                halves,
                self.labels,
                self._bounds,
                self._uppers,
            )
        if len(self._bounds):
            self._slots[places] = slot
        if is_int8 and n_candidates > len(places) * max(4, len(centers) / 8):
            # Measuring so many takes longer than what products of digits save.
            self._rows = describe(self._points, is_int8=False, largest=self._largest)


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Products ``(l, r)`` of rows of digits, int32, or of float32."""
    if left.dtype == torch.float32:
        return left @ right.T
    if len(left) >= _INT8_ROWS:
        return torch._int_mm(left, right.T)
    padded = torch.zeros((_INT8_ROWS, left.shape[1]), dtype=torch.int8)
    padded[: len(left)] = left
    return torch._int_mm(padded, right.T)[: len(left)]


def _measure_to_own(
    points: NDArray[np.float32], centers: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared distance ``(n,)`` of each point to the center of its label."""
    squared: NDArray[np.float64] = measure_pairs(points, np.arange(len(points)), centers, labels)
    return squared


def _measure_ways(before: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far each center ``(c, d)`` is from where it was, from above: shape ``(c,)``."""
    squared = _measure_to_own(before, centers, np.arange(len(centers)))  # (c,)
    return np.sqrt(squared).astype(np.float32) * MORE


def _fill_empty(
    points: NDArray[np.float32],
    centers: NDArray[np.float32],
    labels: NDArray[np.int64],
    known_labels: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Clusters ``(n,)`` in which the empty ones have the points farthest from their centers."""
    filled = labels.copy()
    empty = np.flatnonzero(np.bincount(labels, minlength=len(centers)) == 0)  # (e,)
    if len(empty):
        squared = _measure_to_own(points, centers, labels)  # (n,)
        squared[known_labels >= 0] = -1.0  # no empty cluster may take them
        filled[np.argsort(-squared, kind="stable")[: len(empty)]] = empty
    return filled


def iterate_on_device(
    points: Tensor, known: Tensor, centers: Tensor, *, max_iter: int, max_shift: float
) -> Run:
    """Run Lloyd's iterations from given centers as :func:`iterate` does, by torch."""
    norms = points.square().sum(dim=1)  # (n,)
    labels, squared = _assign(points, norms, known, centers)  # (n,) each
    n_iter, has_settled = 0, False
    while n_iter < max_iter and not has_settled:
        n_iter += 1
        previous_centers, previous_labels = centers, labels
        centers = _update_centers(points, centers, labels, squared)  # (c, d)
        labels, squared = _assign(points, norms, known, centers)  # (n,) each
        shift = float((centers - previous_centers).square().sum())
        has_settled = shift <= max_shift or torch.equal(labels, previous_labels)
    inertia = (points - centers[labels]).square().sum(dtype=torch.float64)
    return Run(float(inertia), n_iter, centers.cpu().numpy())


def _assign(points: Tensor, norms: Tensor, known: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Cluster of each point, the known one or the nearest, and its squared distance.

    That of a labeled point is -1: no empty cluster may take it.
    """
    labels, squared = find_nearest_on_device(points, norms, centers)  # (n,) each
    return torch.where(known >= 0, known, labels), squared.masked_fill(known >= 0, -1.0)


def _update_centers(points: Tensor, centers: Tensor, labels: Tensor, squared: Tensor) -> Tensor:
    """Mean of the points of each cluster ``(c, d)``; empty ones take the farthest points."""
    n_clusters = len(centers)
    empty = (torch.bincount(labels, minlength=n_clusters) == 0).nonzero()[:, 0]  # (e,)
    if len(empty):
        labels = labels.index_copy(0, squared.topk(len(empty)).indices, empty)  # (n,)
    counts = torch.bincount(labels, minlength=n_clusters)[:, None]  # (c, 1)
    sums = torch.zeros_like(centers).index_add_(0, labels, points)  # (c, d)
    # A cluster of one point may just have lost it to an empty one: its center stays.
    return torch.where(counts > 0, sums / counts.clamp(min=1), centers)


def find_nearest_on_device(points: Tensor, norms: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest center of each point ``(n,)`` int64, and its squared distance ``(n,)``.

    The squared lengths of the points, ``norms``, take longer than the products with few centers.
    """
    block_size = max(1, _DEVICE_ENTRIES // len(centers))
    center_norms = centers.square().sum(dim=1)  # (c,)
    nearest = [
        squared_distances(block, norms_of_block, centers, center_norms).min(dim=1)
        for block, norms_of_block in zip(
            points.split(block_size), norms.split(block_size), strict=True
        )
    ]
    return torch.cat([m.indices for m in nearest]), torch.cat([m.values for m in nearest])


def squared_distances(
    left: Tensor, left_norms: Tensor, right: Tensor, right_norms: Tensor
) -> Tensor:
    """Squared distances ``(l, r)`` of two sets of points by one matrix product."""
    distances = torch.addmm(right_norms[None, :], left, right.T, alpha=-2.0)  # (l, r)
    return distances.add_(left_norms[:, None]).clamp_(min=0.0)
