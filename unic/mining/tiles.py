"""The exact pass on a CPU: tiles of the upper triangle of the distance matrix, each read twice."""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from queue import SimpleQueue
from threading import Condition, Event, Lock, Thread
from time import thread_time
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from unic.mining import lists, settling
from unic.mining.distances import ExactRows
from unic.mining.specials import Specials

logger = logging.getLogger(__name__)

Precision = Literal["int8", "int16", "float32"]

MAX_INT8_DIMS = 2**16  # beyond, sums of products of digits may pass 2^31
_BLOCK_SIZE = 768  # rows and columns of a tile: 2.4 MB of products
_TIMED_IMAGES = 8192  # from which on it pays to time the libraries
_PREPARED_ROWS = 4096  # centered in float64 at a time
_FLOAT32 = 2.0**-24  # relative error of rounding to nearest
_SAMPLED_ROWS = 32  # in which doubtful images are counted
_MOST_DOUBTFUL = 1024  # that windows have room for: 16 KB a row
_LARGEST = 127  # of an int8 digit, with either sign
_BASE = 254  # of digits from -127 to 127: the finer one is worth a 254th of the coarser
_GIVE_UP = 0.5  # share of unsettled rows in the first block at which a pass is not worth it


class Ranked(NamedTuple):
    """What was found out about some rows of the distance matrix."""

    rows: NDArray[np.int64]  # (b,)
    indices: NDArray[np.int64]  # (b, k)
    distances: NDArray[np.float32]  # (b, k), Euclidean
    far_radius: NDArray[np.float32]  # (b,), or (0,) where no far rank was asked for

    def take(self, is_taken: NDArray[np.bool_]) -> "Ranked":
        """Some of the rows."""
        radii = self.far_radius[is_taken] if len(self.far_radius) else self.far_radius
        return Ranked(self.rows[is_taken], self.indices[is_taken], self.distances[is_taken], radii)


_Settled = tuple[Ranked, NDArray[np.int64]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_n_threads: ContextVar[int] = ContextVar("n_threads", default=1)


class Operand:
    """Centered features, shuffled, in the precision of the matrix products.

    For images ``i`` and ``j`` let ``a`` be their features less the mean, times a power of two
    that brings the largest entry to at most 1; ``u = 2^-24`` the relative error of rounding to
    float32; ``M = max |a_j|``. Sought is the order of ``x_ij = |a_j|^2 / 2 - a_i . a_j``; computed
    is ``v_ij = fl(fl(|a_j|^2 / 2) - g_ij)``, where ``g_ij`` stands for the product.

    ``int8`` has ``a' = s q`` with whole numbers ``q`` from -127 to 127 and a scale ``s`` of each
    image; ``g_ij = s_i s_j (q_i . q_j)``. ``int16`` has a second digit, ``a' = s (q + p / 254)``;
    ``g_ij = s_i s_j (q_i . q_j + (q_i . p_j + p_i . q_j) / 254)``, three times the work.
    ``float32`` has ``a' = fl(a)``.

    Bound: ``v_ij - x_ij <= e_ij`` and ``x_ij - v_ij <= e_ij + 8 u |a_j|^2 / 2``, where
    ``e_ij = errors[i] norms[j] + norms[i] errors[j]``, also after ``e_ij`` is subtracted from
    ``v_ij`` in float32: then it is a lower bound of ``x_ij``.

    Proof. With ``r = |a - a'|``, computed in float64, Cauchy-Schwarz on ``a_i . a_j - a'_i . a'_j =
    (a_i - a'_i) . a_j + a'_i . (a_j - a'_j)`` gives ``r_i |a_j| + |a'_i| r_j``, and
    ``|a'_i| <= |a_i| + r_i``. Whole numbers are multiplied and added up without error, as ``d`` is
    at most 2^16. ``int16`` leaves out ``s_i s_j (p_i . p_j) / 254^2``, at most ``l_i l_j`` with
    ``l = s |p| / 254``; for ``k = max l / |a|`` that is at most ``k (l_i |a_j| + |a_i| l_j) / 2``.
    ``float32`` adds up ``d`` rounded products in any order, which is off by at most ``d u / (1 -
    d u) |a'_i| |a'_j|`` (Higham, Accuracy and Stability of Numerical Algorithms, Section 3.1):
    half of it goes to each of ``errors[i]`` and ``errors[j]``.

    Roundings to float32: of the two products of digits, the weight, their sum and the two scalings
    at most ``7 u |a'_i| |a'_j|``; of the difference and of subtracting ``e_ij``, itself rounded
    thrice, at most ``2 u (|a_j|^2 / 2 + |a_i| |a_j|) + 4 u e_ij``; of ``|a_j|^2 / 2`` at most
    ``u |a_j|^2 / 2``. So ``errors`` gain ``5 u |a|`` and 1 % for the terms of second order, and
    ``half_norms`` are less by ``4 u |a_j|^2 / 2``, which makes up for the terms in it.

    The same holds with the other sign: ``x_ij <= fl(v_ij + e_ij)`` where ``half_norms`` in ``v_ij``
    are greater by ``4 u |a_j|^2 / 2`` instead of less, which are the ``tops``.

    ``norms`` are not below ``2^-20 M``, so that the errors of float64 (``2^-53``) and of products
    that underflow stay under the margins even for images at the mean.

    Attributes:
        order: Shape ``(n,)``, images in the order of the rows of the operand, not all of them where
            some are set apart.
        matrix: Shape ``(n, d)``; for ``int16`` ``(n, 2 d)``: coarse and fine digits.
        sides: What tiles need beside the products, ``(n,)`` each.
        half_norms: Shape ``(n,)``, float64, ``|a_j|^2 / 2``.
        half_scale: What takes squared distances of the features to half those of ``a``.
        is_by_numpy: Whether numpy's library multiplies float32 matrices, not torch's.
    """

    def __init__(
        self, features: NDArray[np.float32], order: NDArray[np.int64], precision: Precision
    ) -> None:
        """Center, scale, shuffle and round the features."""
        n_images, n_dims = len(order), features.shape[1]
        self.features, self.order, self._n_dims = features, order, n_dims
        self._has_fine = precision == "int16"
        dtype = torch.float32 if precision == "float32" else torch.int8
        self.matrix = torch.empty((n_images, (2 if self._has_fine else 1) * n_dims), dtype=dtype)
        own = features if n_images == len(features) else features[np.sort(order)]  # (n, d)
        mean = own.mean(axis=0, dtype=np.float64)  # (d,)
        largest = float(np.maximum(own.max(axis=0) - mean, mean - own.min(axis=0)).max())
        scale = 2.0 ** -np.ceil(np.log2(largest))
        self.half_scale = float(scale**2 / 2)
        scales = np.ones(n_images, dtype=np.float32)  # (n,)
        norms, residuals, fine_norms = np.zeros((3, n_images))  # (n,) each
        for start in range(0, n_images, _PREPARED_ROWS):
            rows = slice(start, start + _PREPARED_ROWS)
            centered = (features[order[rows]] - mean) * scale  # (p, d), float64
            norms[rows] = np.linalg.norm(centered, axis=1)
            if precision == "float32":
                self.matrix[rows] = torch.from_numpy(centered).float()
                centered -= self.matrix[rows].numpy()
            else:
                scales[rows] = _digit_scales(centered)
                coarse = np.rint(centered / scales[rows, None])  # (p, d)
                self.matrix[rows, :n_dims] = torch.from_numpy(coarse)
                centered -= coarse * scales[rows, None]
            if self._has_fine:
                step = scales[rows, None] / np.float64(_BASE)  # (p, 1)
                fine = np.rint(centered / step)  # (p, d)
                self.matrix[rows, n_dims:] = torch.from_numpy(fine)
                fine_norms[rows] = np.linalg.norm(fine * step, axis=1)
                centered -= fine * step
            residuals[rows] = np.linalg.norm(centered, axis=1)
        self.half_norms = np.square(norms) / 2  # (n,)
        floored = np.maximum(norms, 2.0**-20 * norms.max())  # (n,)
        errors = residuals + fine_norms * (fine_norms / floored).max() / 2
        errors += _FLOAT32 * floored * (5 + (n_dims / 2 if precision == "float32" else 0))
        self.sides = lists.Side(
            scales,
            (self.half_norms * (1 - 4 * _FLOAT32)).astype(np.float32),
            (self.half_norms * (1 + 4 * _FLOAT32)).astype(np.float32),
            np.nextafter(floored.astype(np.float32), np.float32(np.inf)),
            (1.01 * errors).astype(np.float32),
        )
        bounded = (self.sides.norms, self.sides.errors, self.half_norms)
        self._largest = tuple(float(values.max()) for values in bounded)
        is_timed = precision == "float32" and n_images >= _TIMED_IMAGES
        self.is_by_numpy = is_timed and _is_numpy_faster(n_dims)

    def side(self, rows: slice | NDArray[np.int64]) -> lists.Side:
        """What tiles need of some rows beside the products."""
        return lists.Side(*(values[rows] for values in self.sides))

    def slacks(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Twice the largest error ``(b,)`` of ``v`` in each of some rows."""
        norms = self.sides.norms[rows].astype(np.float64)  # (b,)
        errors = self.sides.errors[rows].astype(np.float64)  # (b,)
        largest_norm, largest_error, largest_half_norm = self._largest
        error = errors * largest_norm + norms * largest_error  # (b,)
        return 2.02 * (error + 8 * _FLOAT32 * largest_half_norm)

    def count_doubtful(self, far_rank: int, specials: Specials) -> int:
        """Images on either side of a rank that the error may put on the other, as a rule.

        Counted in some rows; where others have more, they may be left unsettled.
        """
        stride = -(-len(self.order) // _SAMPLED_ROWS)
        positions = np.arange(0, len(self.order), stride)  # (b,)
        rows = torch.from_numpy(np.searchsorted(specials.ordinary, self.order[positions]))
        exact = ExactRows(specials.select(self.features), specials=specials)
        found = exact.screen(rows)  # (b, n)
        cuts = exact.cut(exact.with_specials(rows, found), far_rank).numpy()  # (b, 1)
        screened = found.numpy()
        slacks = self.slacks(positions)[:, None] / self.half_scale  # (b, 1)
        n_inner = ((cuts - slacks <= screened) & (screened <= cuts)).sum(axis=1)  # (b,)
        n_outer = ((cuts <= screened) & (screened <= cuts + slacks)).sum(axis=1)  # (b,)
        return min(int(1.25 * np.maximum(n_inner, n_outer).max()) + 8, _MOST_DOUBTFUL)

    def products(
        self, rows: slice | torch.Tensor, columns: slice, room: "_Room"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Products ``(b, c)`` and their finer digits, or ``(0, 0)``; they live until the next."""
        left, right = self.matrix[rows], self.matrix[columns]  # (b, d) or (b, 2 d)
        high, low = room.tiles(self.matrix.dtype, len(left), len(right), has_low=self._has_fine)
        n_dims = self._n_dims
        if self.is_by_numpy:
            np.matmul(left.numpy(), right.numpy().T, out=high.numpy())
        elif self.matrix.dtype == torch.float32:
            torch.mm(left, right.T, out=high)
        else:
            torch._int_mm(left[:, :n_dims], right[:, :n_dims].T, out=high)
        if self._has_fine:
            swapped = room.swapped(right)  # (c, 2 d)
            torch._int_mm(left, swapped.T, out=low)
        return high, low


class _Room:
    """Memory for the tiles of one thread."""

    def __init__(self, n_entries: int) -> None:
        self._entries = torch.empty((2, n_entries), dtype=torch.int32)
        self._digits = torch.empty(0, dtype=torch.int8)

    def swapped(self, digits: torch.Tensor) -> torch.Tensor:
        """Digits ``(c, 2 d)``, the fine ones first; they live until the next."""
        if self._digits.numel() < digits.numel():
            self._digits = torch.empty(digits.numel(), dtype=torch.int8)
        swapped = self._digits[: digits.numel()].view(digits.shape)
        n_dims = digits.shape[1] // 2
        swapped[:, :n_dims], swapped[:, n_dims:] = digits[:, n_dims:], digits[:, :n_dims]
        return swapped

    def tiles(
        self, dtype: torch.dtype, n_rows: int, n_columns: int, *, has_low: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two tiles ``(b, c)``, or one and ``(0, 0)``, of four-byte entries."""
        entries = self._entries.view(dtype if dtype == torch.float32 else torch.int32)
        size = n_rows * n_columns
        high = entries[0, :size].view(n_rows, n_columns)
        low = entries[1, :size].view(n_rows, n_columns) if has_low else high[:0, :0]
        return high, low


class _Turns:
    """Who may scan which tile: one of a row after that above it."""

    def __init__(self, n_rows: int) -> None:
        self._n_done = [0 for _ in range(n_rows)]  # tiles of each row, the missing ones counted
        self._is_cancelled = False
        self._condition = Condition()

    def wait(self, row: int, column: int) -> None:
        """Wait until the tile above is done."""

        def is_free() -> bool:
            return self._is_cancelled or row == 0 or self._n_done[row - 1] > column

        with self._condition:
            self._condition.wait_for(is_free)
            if self._is_cancelled:
                raise CancelledError

    def finish(self, row: int, column: int) -> None:
        """Note that a tile is done."""
        with self._condition:
            self._n_done[row] = column + 1
            self._condition.notify_all()

    def cancel(self) -> None:
        """Let nobody wait any longer."""
        with self._condition:
            self._is_cancelled = True
            self._condition.notify_all()


class TilePass:
    """One pass over the distances from some images to all.

    Args of the constructor are those of :func:`rank_rows`, and the operand.
    """

    def __init__(
        self,
        operand: Operand,
        specials: Specials,
        precision: Precision,
        n_neighbors: int,
        far_rank: int | None,
        block_size: int | None,
    ) -> None:
        """Note what is sought."""
        self._operand = operand
        self._n_images = len(operand.order)
        self._specials = specials
        places = np.searchsorted(specials.ordinary, operand.order)  # (n,)
        self._squared = specials.squared[places]  # (n, s), in the order of the operand
        self._n_neighbors = n_neighbors
        self._n_listed = min(n_neighbors, self._n_images)
        self._far_rank = far_rank
        self._block_size = block_size or _BLOCK_SIZE
        self._is_bound = precision == "int8"
        n_doubtful = 0
        if far_rank is not None and not self._is_bound:
            n_doubtful = operand.count_doubtful(far_rank, specials)
        self._far_place = lists.FarRank(
            far_rank or 0, self._n_images, n_doubtful, self._is_bound, specials.weights
        )
        # Beyond the k sought, as many as the error of the screening may put before them.
        n_more = 64 + 2 * self._n_listed if precision == "int8" else 16
        self._n_kept = self._n_listed + n_more

    def triangle(self, n_rows: int) -> Iterator[_Settled]:
        """Rank the first ``n_rows`` images of the operand, by tiles on and above the diagonal.

        A tile serves its rows, and its columns as far as they are sought too. Each thread takes
        the next row of tiles and stays behind the one above: each list sees the images in one
        order, whatever the number of threads, and is complete when its row of tiles is.

        Yields:
            Settled rows of a block, and the images of its unsettled ones.
        """
        near, far = self._lists(np.arange(n_rows))
        n_sought = len(self._slices(0, n_rows))
        blocks = self._slices(0, n_rows) + self._slices(n_rows, self._n_images)
        turns = _Turns(n_sought)

        def read(block: int, room: _Room) -> _Settled:
            rows = blocks[block]
            for other in range(block, len(blocks)):
                columns = blocks[other]
                # Empty lists take in whole rows at once, but columns one entry after the other:
                # the tiles of the first row are not shared.
                is_sought = block < other < n_sought
                is_shared = is_sought and block > 0
                high, low = self._operand.products(rows, columns, room)  # (b, c) each
                turns.wait(block, other)
                seen = (columns.start, rows.start if is_shared else 0)
                self._scan(high, low, rows, rows.start, columns, near, far, seen, is_shared)
                if is_sought and not is_shared:
                    high, low = self._operand.products(columns, rows, room)  # (c, b) each
                    start = columns.start
                    self._scan(high, low, columns, start, rows, near, far, (rows.start, 0), False)
                turns.finish(block, other)
                progress.update()
            return self._settle(np.arange(rows.start, rows.stop), rows.start, near, far)

        n_tiles = sum(len(blocks) - block for block in range(n_sought))
        size = self._block_size**2
        with tqdm(total=n_tiles, desc="mine_neighbors", unit="tile", disable=None) as progress:
            yield from _in_threads(read, range(n_sought), size, on_end=turns.cancel)

    def rectangle(self, positions: NDArray[np.int64]) -> Iterator[_Settled]:
        """Rank the images at some places of the operand, by tiles against all columns.

        Yields:
            As :meth:`triangle`.
        """
        columns = self._slices(0, self._n_images)

        def read(block: NDArray[np.int64], room: _Room) -> _Settled:
            near, far = self._lists(block)
            rows = torch.from_numpy(block)
            for part in columns:
                high, low = self._operand.products(rows, part, room)  # (b, c) each
                self._scan(high, low, block, 0, part, near, far, (part.start, 0), False)
            return self._settle(block, 0, near, far)

        starts = range(0, len(positions), self._block_size)
        blocks = (positions[start : start + self._block_size] for start in starts)  # (b,) each
        yield from _in_threads(read, blocks, self._block_size**2)

    def _lists(self, rows: NDArray[np.int64]) -> tuple[lists.NearLists, lists.FarWindows]:
        slacks = self._operand.slacks(rows).astype(np.float32)  # (b,)
        near = lists.near_lists(self._n_kept, slacks)
        rows = rows[:0] if self._far_rank is None else rows
        half_norms = self._operand.half_norms[rows, None]  # (b, 1)
        specials = self._squared[rows] * self._operand.half_scale - half_norms  # (b, s)
        slacks = slacks[: len(rows)] * (not self._is_bound)
        return near, lists.far_windows(specials.astype(np.float32), slacks, self._far_place)

    def _slices(self, first: int, last: int) -> list[slice]:
        starts = range(first, last, self._block_size)
        return [slice(start, min(start + self._block_size, last)) for start in starts]

    def _scan(
        self,
        high: torch.Tensor,
        low: torch.Tensor,
        rows: slice | NDArray[np.int64],
        first_row: int,
        columns: slice,
        near: lists.NearLists,
        far: lists.FarWindows,
        n_seen: tuple[int, int],
        is_for_columns: bool,
    ) -> None:
        lists.scan(
            high.numpy(),
            low.numpy(),
            np.float32(1 / _BASE),
            self._operand.side(rows),
            self._operand.side(columns),
            near,
            far,
            first_row,
            columns.start,
            is_for_columns,
            *n_seen,
            self._n_listed,
            self._n_kept,
            self._far_place,
        )

    def _settle(
        self,
        positions: NDArray[np.int64],
        first_row: int,
        near: lists.NearLists,
        far: lists.FarWindows,
    ) -> _Settled:
        operand = self._operand
        indices = np.empty((len(positions), self._n_listed), dtype=np.int64)
        squared = np.empty((len(positions), self._n_listed))
        is_settled = settling.settle_near(
            operand.features,
            operand.order,
            positions,
            operand.half_norms,
            operand.half_scale,
            near,
            first_row,
            indices,
            squared,
        )
        specials = self._specials.rows(self._squared[positions])
        far_radius = np.empty(0, dtype=np.float32)
        if self._far_rank is not None:
            far_squared = self._settle_far(positions, first_row, far, specials)  # (b,)
            is_settled &= far_squared >= 0
            far_radius = np.sqrt(far_squared[is_settled]).astype(np.float32)
        rows = operand.order[positions]
        if len(specials.weights):
            indices, squared = settling.merge_specials(
                indices, squared, is_settled, specials, self._n_neighbors
            )
        ranked = Ranked(
            rows[is_settled],
            indices[is_settled],
            np.sqrt(squared[is_settled]).astype(np.float32),
            far_radius,
        )
        return ranked, rows[~is_settled]

    def _settle_far(
        self,
        positions: NDArray[np.int64],
        first_row: int,
        far: lists.FarWindows,
        specials: settling.SpecialRows,
    ) -> NDArray[np.float64]:
        operand, far_rank = self._operand, self._far_place.rank
        half_norms, half_scale = operand.half_norms[positions], operand.half_scale
        if self._is_bound:
            return settling.bound_far(half_norms, half_scale, far, first_row, far_rank, specials)
        return settling.settle_far(
            operand.features,
            operand.order,
            positions,
            half_norms,
            half_scale,
            operand.slacks(positions),
            far,
            first_row,
            far_rank,
            specials,
        )


def rank_rows(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    specials: Specials,
    n_neighbors: int,
    far_rank: int | None,
    precision: Precision,
    block_size: int | None,
    keep: Callable[[Ranked], None],
) -> NDArray[np.int64]:
    """Rank all images by distance to some of them, keeping what is certain.

    Args:
        features: Shape ``(n, d)``, checked, C-contiguous.
        rows: Shape ``(m,)``, distinct ordinary images to rank the others for.
        specials: What is set apart.
        n_neighbors: tau_1 of the paper.
        far_rank: tau_2 of the paper; None leaves the far radius out.
        precision: Of the matrix products; ``int8`` gives a bound of the far radius from above.
        block_size: Rows and columns of a tile; by default 768.
        keep: Called with the settled rows of each block.

    Returns:
        The images whose rows are not settled, sorted.
    """
    n_images = len(specials.ordinary)
    order = np.random.default_rng(n_images).permutation(n_images)  # (n,), the same in every run
    order = specials.ordinary[order]
    is_sought = np.zeros(len(features), dtype=np.bool_)
    is_sought[rows] = True
    unsettled: list[NDArray[np.int64]] = []
    n_found = 0
    is_triangle = 2 * len(rows) >= n_images
    with _single_threaded_products():
        if is_triangle:
            order = np.concatenate([order[is_sought[order]], order[~is_sought[order]]])
        operand = Operand(features, order, precision)
        tiles = TilePass(operand, specials, precision, n_neighbors, far_rank, block_size)
        places = np.flatnonzero(is_sought[order])  # in a triangle the first ones
        blocks = tiles.triangle(len(rows)) if is_triangle else tiles.rectangle(places)
        for ranked, missing in blocks:
            keep(ranked)
            n_found += len(ranked.rows)
            is_sought[ranked.rows] = False
            unsettled.append(missing)
            if len(missing) > _GIVE_UP * (len(missing) + n_found):
                logger.info("%s settles too few rows of these features: it is given up", precision)
                break
    return np.flatnonzero(is_sought)


@cache
def has_int8() -> bool:
    """Whether the processor multiplies int8 matrices fast, and adds the products up exactly."""
    names = ("_is_vnni_supported", "_is_amx_tile_supported")
    if not any(getattr(torch.cpu, name, bool)() for name in names):
        return False
    largest = torch.full((16, 1024), _LARGEST, dtype=torch.int8)  # units without it saturate
    return bool((torch._int_mm(largest, -largest.T) == -1024 * _LARGEST**2).all())


def _digit_scales(centered: NDArray[np.float64]) -> NDArray[np.float32]:
    """What a unit of the digits of each row ``(p, d)`` is worth, ``(p,)``; 1 for rows of zeros."""
    scales = (np.abs(centered).max(axis=1) / _LARGEST).astype(np.float32)  # (p,)
    scales = np.nextafter(scales, np.float32(np.inf))  # no digit exceeds the largest
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    return scales


def _in_threads(
    work: Callable[[_Item, _Room], _Result],
    items: Iterable[_Item],
    n_entries: int,
    *,
    on_end: Callable[[], None] = lambda: None,
) -> Iterator[_Result]:
    """Do pieces of work in as many threads as torch may use; results as they come.

    ``on_end`` is called when no more is wanted, to wake threads that wait.
    """
    results: SimpleQueue[_Result | BaseException | None] = SimpleQueue()
    lock, remaining = Lock(), iter(items)
    is_over = Event()

    def run() -> None:
        torch.set_num_threads(1)  # a setting of each thread
        room = _Room(n_entries)
        try:
            while not is_over.is_set():
                with lock:
                    item = next(remaining, None)
                if item is None:
                    break
                results.put(work(item, room))
        except BaseException as error:
            results.put(error)
        results.put(None)

    threads = [Thread(target=run) for _ in range(_n_threads.get())]
    for thread in threads:
        thread.start()
    n_running = len(threads)
    try:
        while n_running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                n_running -= 1
            else:
                yield result
    finally:
        is_over.set()
        on_end()
        for thread in threads:
            thread.join()


@cache
def _is_numpy_faster(n_dims: int) -> bool:
    """Time a product by the libraries of torch (MKL as a rule) and numpy (OpenBLAS).

    On an AMD EPYC the second was up to 20 % faster, on Intel Xeons the first.
    """
    left, right = torch.ones(_BLOCK_SIZE, n_dims), torch.ones(_BLOCK_SIZE, n_dims)
    products = torch.empty(_BLOCK_SIZE, _BLOCK_SIZE)

    def fastest(multiply: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            start = thread_time()
            multiply()
            times.append(thread_time() - start)
        return min(times)

    by_torch = fastest(lambda: torch.mm(left, right.T, out=products))
    by_numpy = fastest(lambda: np.matmul(left.numpy(), right.numpy().T, out=products.numpy()))
    return by_numpy < by_torch


@contextmanager
def _single_threaded_products() -> Iterator[None]:
    """Leave the threads to whole tiles: no barrier within a product waits for a busy core."""
    n_threads = torch.get_num_threads()
    token = _n_threads.set(n_threads)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(n_threads)
        _n_threads.reset(token)
