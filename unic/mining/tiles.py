"""The exact pass on a CPU: tiles of the upper triangle of the distance matrix, each read twice."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unic.mining import kernels

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

_BLOCK_SIZE = 512  # rows of a tile, of twice as many columns: 2 MB of products
_PREPARED_ROWS = 4096  # centered in float64 at a time
_FLOAT32, _BFLOAT16 = 2.0**-24, 2.0**-8  # relative error of rounding to nearest
_GIVE_UP = 0.5  # share of unsettled rows in the first block at which bfloat16 is not worth it


class Ranked(NamedTuple):
    """What was found out about some rows of the distance matrix."""

    rows: NDArray[np.int64]  # (b,)
    indices: NDArray[np.int64]  # (b, k)
    distances: NDArray[np.float32]  # (b, k), Euclidean
    far_radius: NDArray[np.float32]  # (b,), or (0,) where no far rank was asked for


class Operand:
    """Centered features, shuffled, in the precision of the matrix products.

    For images ``i`` and ``j`` let ``a`` be their features less the mean, times a power of two
    that brings the largest entry to at most 1; ``u = 2^-24`` and ``U = 2^-8`` the relative error
    of rounding to float32 and to bfloat16; ``M = max |a_j|``. Sought is the order of
    ``x_ij = |a_j|^2 / 2 - a_i . a_j``; computed is ``v_ij = fl(fl(|a_j|^2 / 2) - g_ij)``.

    Bound: ``|v_ij - x_ij| <= errors[i] * norms[j]``, whatever the order in which the
    product is added up, and also after ``errors[i] * norms[j]`` itself is subtracted in float32.

    Proof for float32. Each entry of ``a`` is rounded once: ``|a - a'| <= u |a|``, which moves the
    product by at most ``2 u |a_i| |a_j|`` to first order. Adding up ``d`` rounded products in any
    order is off by at most ``d u / (1 - d u) |a'_i| |a'_j|`` (Higham, Accuracy and Stability of
    Numerical Algorithms, Section 3.1). Rounding ``|a_j|^2 / 2``, the difference and the
    subtracted bound adds at most ``3 u (|a_j|^2 / 2 + |a_i| |a_j|)``. In all less than
    ``u |a_j| ((d + 6) |a_i| + 2 M)``; taken are ``d + 8`` and ``4 M``, and 1 % for the terms of
    second order, which is valid for ``d`` below 100,000.

    Proof for bfloat16. With ``b`` for ``a`` rounded to bfloat16 and the residual norm
    ``r = |a - b|``, both computed in float64, Cauchy-Schwarz on ``a_i . a_j - b_i . b_j =
    (a_i - b_i) . a_j + b_i . (a_j - b_j)`` gives ``r_i |a_j| + |b_i| r_j``, where
    ``r_j <= q |a_j|`` for ``q = max_j r_j / |a_j| <= U``. Products of bfloat16 numbers are exact
    in float32; their sum is off by ``d u |b_i| |b_j|`` as above, and is rounded to nearest
    bfloat16 once at the end, ``U |g|``. In all
    ``|a_j| (r_i + |a_i| (q + d u + U))`` with 2 % for second order (``|b| <= (1 + U) |a|``), plus
    the float32 terms above.

    ``norms`` are not below ``2^-20 M``, so that the errors of float64 (``2^-53``) and of products
    that underflow stay under the margins even for images at the mean.

    Attributes:
        order: Shape ``(n,)``, images in the order of the rows of the operand.
        matrix: Shape ``(n, d)``.
        half_norms: Shape ``(n,)``, float64, ``|a_j|^2 / 2``.
        norms: Shape ``(n,)``, float32.
        errors: Shape ``(n,)``, float32.
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
            relative = (residuals / floored).max() + _BFLOAT16
            errors += 1.02 * (residuals + floored * relative)
        self.norms = np.nextafter(floored.astype(np.float32), np.float32(np.inf))  # (n,)
        self.errors = np.nextafter(errors.astype(np.float32), np.float32(np.inf))  # (n,)
        self.narrow_half_norms = self.half_norms.astype(np.float32)  # (n,)
        self._products = torch.empty(0)
        self._rounded = torch.empty(0, dtype=self.matrix.dtype)

    def products(self, rows: slice | torch.Tensor, columns: slice) -> torch.Tensor:
        """Products ``(b, c)`` in float32; they live until the next call."""
        left, right = self.matrix[rows], self.matrix[columns]  # (b, d), (c, d)
        shape = (len(left), len(right))
        n_entries = shape[0] * shape[1]
        if self._products.numel() < n_entries:
            self._products = torch.empty(n_entries)
            self._rounded = torch.empty(n_entries, dtype=self.matrix.dtype)
        products = self._products[:n_entries].view(shape)
        if self.matrix.dtype == torch.float32:
            torch.mm(left, right.T, out=products)
        else:
            rounded = self._rounded[:n_entries].view(shape)
            torch.mm(left, right.T, out=rounded)
            products.copy_(rounded)
        return products


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

        A tile serves its rows, and transposed those of its columns that are sought too. The rows
        of a block are complete when its tiles are.

        Yields:
            Settled rows of a block, and the images of its unsettled ones.
        """
        near, far = self._lists(n_rows)
        n_tiles = sum(len(self._columns(rows, n_rows)) for rows in self._blocks(n_rows))
        with tqdm(total=n_tiles, desc="mine_neighbors", unit="tile", disable=None) as progress:
            for rows in self._blocks(n_rows):
                for columns in self._columns(rows, n_rows):
                    products = self._operand.products(rows, columns)  # (b, c)
                    if columns.start == rows.start:
                        products.fill_diagonal_(torch.inf)
                    self._scan(products, rows, rows.start, columns, near, far)
                    if rows.stop <= columns.start and columns.stop <= n_rows:
                        turned = products.T.contiguous()  # (c, b)
                        self._scan(turned, columns, columns.start, rows, near, far)
                    progress.update()
                yield self._settle(np.arange(rows.start, rows.stop), rows.start, near, far)

    def rectangle(
        self, positions: NDArray[np.int64]
    ) -> Iterator[tuple[Ranked, NDArray[np.int64]]]:
        """Rank the images at some places of the operand, by tiles against all columns.

        Yields:
            As :meth:`triangle`.
        """
        for start in range(0, len(positions), self._block_size):
            block = positions[start : start + self._block_size]  # (b,)
            near, far = self._lists(len(block))
            for column in range(0, self._n_images, 2 * self._block_size):
                columns = slice(column, min(column + 2 * self._block_size, self._n_images))
                products = self._operand.products(torch.from_numpy(block), columns)  # (b, c)
                own = np.flatnonzero((block >= columns.start) & (block < columns.stop))
                products[own, block[own] - columns.start] = torch.inf
                self._scan(products, block, 0, columns, near, far)
            yield self._settle(block, 0, near, far)

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
        near: kernels.NearLists,
        far: kernels.FarWindows,
    ) -> None:
        operand = self._operand
        kernels.scan(
            products.numpy(),
            operand.narrow_half_norms[columns],
            operand.norms[columns],
            operand.errors[rows],
            near,
            far,
            first_row,
            columns.start,
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
        block_size: Rows of a tile; by default 512.
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
    with _threads():
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


@contextmanager
def _threads() -> Iterator[None]:
    """Let compiled loops use as many threads as torch does."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
