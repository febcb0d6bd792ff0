"""The exact pass on a CPU: tiles of the upper triangle of the distance matrix, each read twice."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from queue import SimpleQueue
from threading import Event, Lock, Thread
from time import thread_time
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from unic.mining import kernels

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

_BLOCK_SIZE = 1024  # rows of a tile, of twice as many columns: 8 MB of products
_TIMED_IMAGES = 8192  # from which on it pays to time the libraries
_PREPARED_ROWS = 4096  # centered in float64 at a time
_FLOAT32, _BFLOAT16 = 2.0**-24, 2.0**-8  # relative error of rounding to nearest
_GIVE_UP = 0.5  # share of unsettled rows in the first block at which bfloat16 is not worth it


class Ranked(NamedTuple):
    """What was found out about some rows of the distance matrix."""

    rows: NDArray[np.int64]  # (b,)
    indices: NDArray[np.int64]  # (b, k)
    distances: NDArray[np.float32]  # (b, k), Euclidean
    far_radius: NDArray[np.float32]  # (b,), or (0,) where no far rank was asked for


_Settled = tuple[Ranked, NDArray[np.int64]]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_n_threads: ContextVar[int] = ContextVar("n_threads", default=1)


class Operand:
    """Centered features, shuffled, in the precision of the matrix products.

    For images ``i`` and ``j`` let ``a`` be their features less the mean, times a power of two
    that brings the largest entry to at most 1; ``u = 2^-24`` and ``U = 2^-8`` the relative error
    of rounding to float32 and to bfloat16; ``M = max |a_j|``. Sought is the order of
    ``x_ij = |a_j|^2 / 2 - a_i . a_j``; computed is ``v_ij = fl(fl(|a_j|^2 / 2) - g_ij)``.

    Bound: ``|v_ij - x_ij| <= errors[i] * norms[j] + rounding * |g_ij|``, whatever the order in
    which the product is added up, also after the bound itself is subtracted in float32.

    Proof for float32. Each entry of ``a`` is rounded once: ``|a - a'| <= u |a|``, which moves the
    product by at most ``2 u |a_i| |a_j|`` to first order. Adding up ``d`` rounded products in any
    order is off by at most ``d u / (1 - d u) |a'_i| |a'_j|`` (Higham, Accuracy and Stability of
    Numerical Algorithms, Section 3.1). Rounding ``|a_j|^2 / 2``, the difference and the
    subtracted bound adds at most ``3 u (|a_j|^2 / 2 + |a_i| |a_j|)``. In all less than
    ``u |a_j| ((d + 6) |a_i| + 2 M)``; taken are ``d + 8`` and ``4 M``, and 1 % for the terms of
    second order, which is valid for ``d`` below 100,000. ``rounding`` is 0.

    Proof for bfloat16. With ``b`` for ``a`` rounded to bfloat16 and the residual norm
    ``r = |a - b|``, both computed in float64, Cauchy-Schwarz on ``a_i . a_j - b_i . b_j =
    (a_i - b_i) . a_j + b_i . (a_j - b_j)`` gives ``r_i |a_j| + |b_i| r_j``, where
    ``r_j <= q |a_j|`` for ``q = max_j r_j / |a_j| <= U``. Products of bfloat16 numbers are exact
    in float32; their sum is off by ``d u |b_i| |b_j|`` as above. In all
    ``|a_j| (r_i + |a_i| q)`` with 2 % for second order (``|b| <= (1 + U) |a|``), plus the
    float32 terms above. The sum is rounded to nearest bfloat16 once at the end: ``rounding`` is
    ``U``, with 2 % as ``g`` is the rounded one.

    ``norms`` are not below ``2^-20 M``, so that the errors of float64 (``2^-53``) and of products
    that underflow stay under the margins even for images at the mean.

    Attributes:
        order: Shape ``(n,)``, images in the order of the rows of the operand.
        matrix: Shape ``(n, d)``.
        half_norms: Shape ``(n,)``, float64, ``|a_j|^2 / 2``.
        norms: Shape ``(n,)``, float32.
        errors: Shape ``(n,)``, float32.
        rounding: Relative error of the products' last rounding.
        is_by_numpy: Whether numpy's library multiplies float32 matrices, not torch's.
        half_scale: What takes squared distances of the features to half those of ``a``.
    """

    def __init__(
        self, features: NDArray[np.float32], order: NDArray[np.int64], precision: Precision
    ) -> None:
        """Center, scale, shuffle and round the features."""
        n_images, n_dims = features.shape
        self.features, self.order = features, order
        self.matrix = torch.empty((n_images, n_dims), dtype=getattr(torch, precision))
        mean = features.mean(axis=0, dtype=np.float64)  # (d,)
        largest = float(np.maximum(features.max(axis=0) - mean, mean - features.min(axis=0)).max())
        scale = 2.0 ** -np.ceil(np.log2(largest))
        self.half_scale = float(scale**2 / 2)
        norms = np.empty(n_images)  # (n,)
        residuals = np.empty(n_images)  # (n,)
        for start in range(0, n_images, _PREPARED_ROWS):
            rows = slice(start, start + _PREPARED_ROWS)
            centered = (features[order[rows]] - mean) * scale  # (p, d), float64
            rounded = torch.from_numpy(centered).to(self.matrix.dtype)  # (p, d)
            self.matrix[rows] = rounded
            norms[rows] = np.linalg.norm(centered, axis=1)
            residuals[rows] = np.linalg.norm(centered - rounded.double().numpy(), axis=1)
        self.half_norms = np.square(norms) / 2  # (n,)
        greatest = norms.max()
        floored = np.maximum(norms, 2.0**-20 * greatest)  # (n,)
        errors = 1.01 * _FLOAT32 * ((n_dims + 8) * floored + 4 * greatest)  # (n,)
        if precision == "bfloat16":
            errors += 1.02 * (residuals + floored * (residuals / floored).max())
        self.rounding = np.float32(1.02 * _BFLOAT16 if precision == "bfloat16" else 0.0)
        self.norms = np.nextafter(floored.astype(np.float32), np.float32(np.inf))  # (n,)
        self.errors = np.nextafter(errors.astype(np.float32), np.float32(np.inf))  # (n,)
        is_timed = precision == "float32" and n_images >= _TIMED_IMAGES
        self.is_by_numpy = is_timed and _is_numpy_faster(n_dims)
        self.narrow_half_norms = self.half_norms.astype(np.float32)  # (n,)


class _Room:
    """Memory for the tiles of one thread."""

    def __init__(self, n_entries: int) -> None:
        self._rounded = torch.empty(n_entries, dtype=torch.bfloat16)
        self._products, self._turned = torch.empty(n_entries), torch.empty(n_entries)

    def products(
        self, operand: Operand, rows: slice | torch.Tensor, columns: slice
    ) -> torch.Tensor:
        """Products ``(b, c)`` in float32; they live until the next call."""
        left, right = operand.matrix[rows], operand.matrix[columns]  # (b, d), (c, d)
        shape = (len(left), len(right))
        products = self._products[: shape[0] * shape[1]].view(shape)
        if operand.is_by_numpy:
            np.matmul(left.numpy(), right.numpy().T, out=products.numpy())
            return products
        if operand.matrix.dtype == torch.float32:
            return torch.mm(left, right.T, out=products)
        rounded = self._rounded[: shape[0] * shape[1]].view(shape)
        return products.copy_(torch.mm(left, right.T, out=rounded))

    def turned(self, products: torch.Tensor) -> torch.Tensor:
        """The products transposed ``(c, b)``; they live until the next call."""
        return self._turned[: products.numel()].view(products.shape[::-1]).copy_(products.T)


class TilePass:
    """One pass over the distances from some images to all.

    Args of the constructor are those of :func:`rank_rows`, and the block size.
    """

    def __init__(
        self, operand: Operand, n_neighbors: int, far_rank: int | None, block_size: int | None
    ) -> None:
        """Note what is sought."""
        self._operand = operand
        self._n_images = len(operand.order)
        self._n_neighbors = n_neighbors
        self._far_rank = far_rank
        self._block_size = block_size or _BLOCK_SIZE
        is_coarse = operand.matrix.dtype == torch.bfloat16
        # Beyond the k sought, as many as the error of the screening may put before them.
        self._n_kept = n_neighbors + (64 + n_neighbors if is_coarse else 16)

    def triangle(self, n_rows: int) -> Iterator[tuple[Ranked, NDArray[np.int64]]]:
        """Rank the first ``n_rows`` images of the operand, by tiles on and above the diagonal.

        A tile serves its rows, and transposed those of its columns that are sought too. Each
        thread takes the next tile; the rows of a block are complete when they have seen all
        columns, in whatever order.

        Yields:
            Settled rows of a block, and the images of its unsettled ones.
        """
        near, far = self._lists(n_rows)
        blocks = self._blocks(n_rows)
        locks = [Lock() for _ in blocks]
        n_seen = [0 for _ in blocks]

        def scan(block: int, products: torch.Tensor, columns: slice) -> list[_Settled]:
            rows = blocks[block]
            with locks[block]:
                self._scan(products, rows, rows.start, columns, n_seen[block], near, far)
                n_seen[block] += columns.stop - columns.start
                is_complete = n_seen[block] == self._n_images
            if not is_complete:
                return []
            return [self._settle(np.arange(rows.start, rows.stop), rows.start, near, far)]

        def read(tile: tuple[int, slice], room: _Room) -> list[_Settled]:
            block, columns = tile
            rows = blocks[block]
            products = room.products(self._operand, rows, columns)  # (b, c)
            if columns.start == rows.start:
                products.fill_diagonal_(float(kernels.OWN))
            settled = scan(block, products, columns)
            if rows.stop <= columns.start and columns.stop <= n_rows:
                turned = room.turned(products)  # (c, b)
                for start in range(0, len(turned), self._block_size):
                    other = (columns.start + start) // self._block_size
                    settled += scan(other, turned[start : start + self._block_size], rows)
            return settled

        tiles = [len(self._columns(rows, n_rows)) for rows in blocks]
        pairs = (
            (block, columns)
            for block, rows in enumerate(blocks)
            for columns in self._columns(rows, n_rows)
        )
        with tqdm(total=sum(tiles), desc="mine_neighbors", unit="tile", disable=None) as progress:
            for settled in _in_threads(read, pairs, 2 * self._block_size**2):
                progress.update()
                yield from settled

    def rectangle(self, positions: NDArray[np.int64]) -> Iterator[tuple[Ranked, NDArray[np.int64]]]:
        """Rank the images at some places of the operand, by tiles against all columns.

        Yields:
            As :meth:`triangle`.
        """

        def read(block: NDArray[np.int64], room: _Room) -> _Settled:
            near, far = self._lists(len(block))
            for column in range(0, self._n_images, 2 * self._block_size):
                columns = slice(column, min(column + 2 * self._block_size, self._n_images))
                products = room.products(self._operand, torch.from_numpy(block), columns)  # (b, c)
                own = np.flatnonzero((block >= columns.start) & (block < columns.stop))
                products[own, block[own] - columns.start] = float(kernels.OWN)
                self._scan(products, block, 0, columns, column, near, far)
            return self._settle(block, 0, near, far)

        starts = range(0, len(positions), self._block_size)
        blocks = (positions[start : start + self._block_size] for start in starts)  # (b,) each
        yield from _in_threads(read, blocks, 2 * self._block_size**2)

    def _lists(self, n_rows: int) -> tuple[kernels.NearLists, kernels.FarWindows]:
        near = kernels.near_lists(n_rows, self._n_kept)
        if self._far_rank is None:
            return near, kernels.far_windows(0, 0, self._n_images)
        return near, kernels.far_windows(n_rows, self._far_rank, self._n_images)

    def _blocks(self, n_rows: int) -> list[slice]:
        starts = range(0, n_rows, self._block_size)
        return [slice(start, min(start + self._block_size, n_rows)) for start in starts]

    def _columns(self, rows: slice, n_rows: int) -> list[slice]:
        """The diagonal tile, then those of other rows sought, then those of images that are not."""
        parts = [rows]
        for first, last in ((rows.stop, n_rows), (n_rows, self._n_images)):
            starts = range(first, last, 2 * self._block_size)
            parts += [slice(start, min(start + 2 * self._block_size, last)) for start in starts]
        return parts

    def _scan(
        self,
        products: torch.Tensor,
        rows: slice | NDArray[np.int64],
        first_row: int,
        columns: slice,
        n_before: int,
        near: kernels.NearLists,
        far: kernels.FarWindows,
    ) -> None:
        operand = self._operand
        kernels.scan(
            products.numpy(),
            operand.narrow_half_norms[columns],
            operand.norms[columns],
            operand.errors[rows],
            operand.rounding,
            near,
            far,
            first_row,
            columns.start,
            n_before,
            self._n_kept,
            self._n_images,
            self._far_rank or 0,
        )

    def _settle(
        self,
        positions: NDArray[np.int64],
        first_row: int,
        near: kernels.NearLists,
        far: kernels.FarWindows,
    ) -> tuple[Ranked, NDArray[np.int64]]:
        operand = self._operand
        indices = np.empty((len(positions), self._n_neighbors), dtype=np.int64)
        squared = np.empty((len(positions), self._n_neighbors))
        is_settled = kernels.settle_near(
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
        far_squared = np.empty(0)
        if self._far_rank is not None:
            slacks = 2.0 * operand.errors[positions].astype(np.float64) * operand.norms.max()
            far_squared = kernels.settle_far(
                operand.features, operand.order, positions, slacks, far, first_row, self._far_rank
            )
            is_settled &= far_squared >= 0
            far_squared = far_squared[is_settled]
        rows = operand.order[positions]
        ranked = Ranked(
            rows[is_settled],
            indices[is_settled],
            np.sqrt(squared[is_settled]).astype(np.float32),
            np.sqrt(far_squared).astype(np.float32),
        )
        return ranked, rows[~is_settled]


def rank_rows(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    n_neighbors: int,
    far_rank: int | None,
    precision: Precision,
    block_size: int | None,
    keep: Callable[[Ranked], None],
) -> NDArray[np.int64]:
    """Rank all images by distance to some of them, keeping what is certain.

    Args:
        features: Shape ``(n, d)``, checked, C-contiguous.
        rows: Shape ``(m,)``, distinct images to rank the others for.
        n_neighbors: tau_1 of the paper.
        far_rank: tau_2 of the paper; None leaves the far radius out.
        precision: Of the matrix products; ``bfloat16`` without a far rank only.
        block_size: Rows of a tile; by default 1024.
        keep: Called with the settled rows of each block.

    Returns:
        The images whose rows are not settled, sorted.
    """
    n_images = len(features)
    order = np.random.default_rng(n_images).permutation(n_images)  # (n,), the same in every run
    is_sought = np.zeros(n_images, dtype=np.bool_)  # (n,)
    is_sought[rows] = True
    unsettled: list[NDArray[np.int64]] = []
    n_found = 0
    with _single_threaded_products():
        if 2 * len(rows) >= n_images:
            order = np.concatenate([order[is_sought[order]], order[~is_sought[order]]])
            operand = Operand(features, order, precision)
            blocks = TilePass(operand, n_neighbors, far_rank, block_size).triangle(len(rows))
        else:
            operand = Operand(features, order, precision)
            positions = np.flatnonzero(is_sought[order])
            blocks = TilePass(operand, n_neighbors, far_rank, block_size).rectangle(positions)
        for ranked, missing in blocks:
            keep(ranked)
            n_found += len(ranked.rows)
            is_sought[ranked.rows] = False
            unsettled.append(missing)
            if precision == "bfloat16" and len(missing) > _GIVE_UP * (len(missing) + n_found):
                logger.info("bfloat16 settles too few rows of these features: it is given up")
                break
    return np.flatnonzero(is_sought)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def _in_threads(
    work: Callable[[_Item, _Room], _Result], items: Iterable[_Item], n_entries: int
) -> Iterator[_Result]:
    """Do independent pieces of work in as many threads as torch may use; results as they come."""
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
        for thread in threads:
            thread.join()


@cache
def _is_numpy_faster(n_dims: int) -> bool:
    """Time a product by the libraries of torch (MKL as a rule) and numpy (OpenBLAS).

    On an AMD EPYC the second was up to 20 % faster, on Intel Xeons the first.
    """
    left, right = torch.ones(_BLOCK_SIZE, n_dims), torch.ones(2 * _BLOCK_SIZE, n_dims)
    products = torch.empty(_BLOCK_SIZE, 2 * _BLOCK_SIZE)

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
