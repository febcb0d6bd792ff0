"""Operands of the screening products: centered features in int8, int16 or float32, with bounds."""

from collections.abc import Callable
from functools import cache
from time import thread_time
from typing import Literal

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray

from unic.neighbors.exact import lists
from unic.neighbors.exact.specials import Specials
from unic.neighbors.exact.threads import Room
from unic.neighbors.exact.vectors import LARGEST, has_microkernel
from unic.runtime.devices import has_int8

Precision = Literal["int8", "int16", "float32"]
BLOCK_SIZE = 768  # rows and columns of a tile: 2.4 MB of products
_TIMED_IMAGES = 8192  # from which on it pays to time the libraries
_PREPARED_ROWS = 4096  # centered in float64, or multiplied as float32, at a time
_FLOAT32 = 2.0**-24  # relative error of rounding to nearest
_EXACT_DIMS = 1024  # of products up to 127^2, whose sum float32 holds exactly
_SAMPLED_ROWS = 32  # in which doubtful images are counted
_MOST_DOUBTFUL = 1024  # that windows have room for: 16 KB a row
_TINY = np.finfo(np.float32).tiny  # below, a row is of zeros as far as digits go
BASE = 2 * LARGEST  # the finer digit is worth so much less than the coarser


def has_fast_digits() -> bool:
    """Whether a library or the micro-kernel multiplies digits faster than float32 numbers."""
    return has_int8() or has_microkernel()


class Operand:
    """Centered features, shuffled, in the precision of the matrix products.

    For images ``i`` and ``j`` let ``a`` be their features less the mean, times a power of two
    that brings the largest entry to at most 1; ``u = 2^-24`` the relative error of rounding to
    float32; ``M = max |a_j|``. Sought is the order of ``x_ij = |a_j|^2 / 2 - a_i . a_j``; computed
    is ``v_ij = fl(fl(|a_j|^2 / 2) - g_ij)``, where ``g_ij`` stands for the product.

    ``int8`` has ``a' = s q`` with whole numbers ``q`` from ``-t`` to ``t`` and a scale ``s`` of
    each image; ``g_ij = s_i s_j (q_i . q_j)``. ``int16`` has a second digit, ``a' = s (q + p /
    2t)``; ``g_ij = s_i s_j (q_i . q_j + (q_i . p_j + p_i . q_j) / 2t)``, three times the work. As
    a rule ``t = 127``; see :mod:`unic.neighbors.exact.vectors` for where it is 90.
    ``float32`` has ``a' = fl(a)``.

    Bound: ``v_ij - x_ij <= e_ij`` and ``x_ij - v_ij <= e_ij + 8 u |a_j|^2 / 2``, where
    ``e_ij = errors[i] norms[j] + norms[i] errors[j]``, also after ``e_ij`` is subtracted from
    ``v_ij`` in float32: then it is a lower bound of ``x_ij``.

    Proof. With ``r = |a - a'|``, computed in float64, Cauchy-Schwarz on ``a_i . a_j - a'_i . a'_j =
    (a_i - a'_i) . a_j + a'_i . (a_j - a'_j)`` gives ``r_i |a_j| + |a'_i| r_j``, where
    ``|a'_i| <= |a_i| + r_i``: ``norms`` are ``|a| + r / 2``, which gives half of ``r_i r_j`` to
    either side. Whole numbers are multiplied and added up without error, as ``d`` is at most 2^16.
    ``int16`` leaves out ``s_i s_j (p_i . p_j) / (2t)^2``, at most ``l_i l_j`` with
    ``l = s |p| / 2t``; for ``k = max l / |a|`` that is at most ``k (l_i |a_j| + |a_i| l_j) / 2``.
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

    ``int16`` is screened by its coarse digits first, ``w_ij = fl(fl(|a_j|^2 / 2) - s_i s_j (q_i .
    q_j))``, and only what this leaves in doubt is computed with both. With ``c`` the errors of
    ``int8``, from ``r + l`` in place of ``r``, ``|v_ij - w_ij|`` is at most ``c_ij + e_ij`` beside
    the roundings. The ``wide`` errors are ``c + 2 e + 4 u |a|``, the second ``e`` for what is
    subtracted from ``v_ij``; ``|a_j|^2 / 2`` is taken less by ``12 u``, and more by ``4 u``, of
    itself: so ``w_ij`` less or more by the spread of these bounds ``v_ij`` less ``e_ij``, and
    ``v_ij``.

    ``norms`` are not below ``2^-20 M``, so that the errors of float64 (``2^-53``) and of products
    that underflow stay under the margins even for images at the mean.

    Attributes:
        order: Shape ``(n,)``, images in the order of the rows of the operand, not all of them where
            some are set apart.
        matrix: Shape ``(n, d)``; for ``int16`` ``(n, 2 d)``: coarse and fine digits.
        sides: What tiles need beside the products, ``(n,)`` each.
        wide_sides: The same for coarse products alone, where ``int16`` has finer ones.
        n_dims: ``d``.
        half_norms: Shape ``(n,)``, float64, ``|a_j|^2 / 2``.
        half_scale: What takes squared distances of the features to half those of ``a``.
        is_by_numpy: Whether numpy's library multiplies float32 matrices, not torch's.
    """

    def __init__(
        self, features: NDArray[np.float32], order: NDArray[np.int64], precision: Precision
    ) -> None:
        """Center, scale, shuffle and round the features."""
        n_images, n_dims = len(order), features.shape[1]
        self.features, self.order, self.n_dims = features, order, n_dims
        self._has_fine = precision == "int16"
        dtype = torch.float32 if precision == "float32" else torch.int8
        self.matrix = torch.empty((n_images, (2 if self._has_fine else 1) * n_dims), dtype=dtype)
        mean, largest = _center(features, order)  # (d,)
        scale = 2.0 ** -np.ceil(np.log2(largest))
        self.half_scale = float(scale**2 / 2)
        scales = np.ones(n_images, dtype=np.float32)  # (n,)
        lengths = np.zeros((4, n_images))
        norms, residuals, fine_norms, coarse_residuals = lengths  # (n,) each
        if precision == "float32":
            for start in range(0, n_images, _PREPARED_ROWS):
                rows = slice(start, start + _PREPARED_ROWS)
                centered = (features[order[rows]] - mean) * scale  # (p, d), float64
                norms[rows] = np.linalg.norm(centered, axis=1)
                self.matrix[rows] = torch.from_numpy(centered).float()
                centered -= self.matrix[rows].numpy()
                residuals[rows] = np.linalg.norm(centered, axis=1)
        else:
            _write_digits(features, order, mean, scale, self.matrix.numpy(), scales, lengths)
        self.half_norms = np.square(norms) / 2  # (n,)
        floored = np.maximum(norms, 2.0**-20 * norms.max())  # (n,)
        errors = residuals + fine_norms * (fine_norms / floored).max() / 2
        errors += _FLOAT32 * floored * (5 + (n_dims / 2 if precision == "float32" else 0))
        reached = floored + residuals / 2  # (n,)
        self.sides = lists.Side(
            scales,
            (self.half_norms * (1 - 4 * _FLOAT32)).astype(np.float32),
            (self.half_norms * (1 + 4 * _FLOAT32)).astype(np.float32),
            np.nextafter(reached.astype(np.float32), np.float32(np.inf)),
            (1.01 * errors).astype(np.float32),
        )
        self.wide_sides = self.sides
        if self._has_fine:
            wide = coarse_residuals + 2.02 * errors + 9 * _FLOAT32 * floored
            reached = floored + coarse_residuals / 2
            self.wide_sides = self.sides._replace(
                half_norms=(self.half_norms * (1 - 12 * _FLOAT32)).astype(np.float32),
                tops=(self.half_norms * (1 + 4 * _FLOAT32)).astype(np.float32),
                norms=np.nextafter(reached.astype(np.float32), np.float32(np.inf)),
                errors=(1.01 * wide).astype(np.float32),
            )
        bounded = (self.sides.norms, self.sides.errors, self.half_norms)
        self._largest = tuple(float(values.max()) for values in bounded)
        is_timed = precision == "float32" and n_images >= _TIMED_IMAGES
        self.is_by_numpy = is_timed and _is_numpy_faster(n_dims)

    def side(self, rows: slice | NDArray[np.int64]) -> lists.Side:
        """What tiles need of some rows beside the products.

        Args:
            rows: Places in the operand, a slice or of shape ``(b,)``.
        """
        return lists.Side(*(values[rows] for values in self.sides))

    def slacks(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Twice the largest error ``(b,)`` of ``v`` in each of some rows."""
        norms = self.sides.norms[rows].astype(np.float64)  # (b,)
        errors = self.sides.errors[rows].astype(np.float64)  # (b,)
        largest_norm, largest_error, largest_half_norm = self._largest
        error = errors * largest_norm + norms * largest_error  # (b,)
        return 2.02 * (error + 8 * _FLOAT32 * largest_half_norm)

    def count_doubtful(self, far_rank: int, specials: Specials) -> tuple[int, float]:
        """How many images the error may put on the wrong side of a rank, as a rule.

        Counted in some rows; where others have more, they may be left unsettled.

        Returns:
            Their number, and the share of all that coarse digits leave in doubt.
        """
        stride = -(-len(self.order) // _SAMPLED_ROWS)
        positions = np.arange(0, len(self.order), stride)  # (b,)
        n_images = len(self.order)
        rows, columns = torch.from_numpy(positions), slice(0, n_images)
        high, low = self.products(rows, columns, Room(len(rows) * n_images))
        digits = high.numpy().astype(np.float32)  # (b, n)
        if self._has_fine:
            digits += low.numpy() * np.float32(1 / BASE)
        own = self.side(positions)
        estimates = self.sides.half_norms - own.scales[:, None] * self.sides.scales * digits
        places = np.searchsorted(specials.ordinary, self.order[positions])
        known = specials.squared[places] * self.half_scale  # (b, s)
        known -= self.half_norms[positions, None]
        every = np.concatenate([estimates, known.repeat(specials.weights, axis=1)], axis=1)
        cuts = np.partition(every, far_rank, axis=1)[:, far_rank, None]  # (b, 1)
        distances = np.abs(estimates - cuts)  # (b, n), from the rank, on either side
        is_inner = estimates <= cuts
        is_doubtful = distances <= self.slacks(positions)[:, None]
        n_inner, n_outer = ((is_doubtful & side).sum(axis=1) for side in (is_inner, ~is_inner))
        wide = self.wide_sides
        errors = wide.errors[positions, None] * wide.norms  # (b, n)
        errors += wide.norms[positions, None] * wide.errors
        n_doubtful = min(int(1.25 * np.maximum(n_inner, n_outer).max()) + 8, _MOST_DOUBTFUL)
        return n_doubtful, float((distances <= errors).mean())

    def products(
        self, rows: slice | torch.Tensor, columns: slice, room: "Room"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Products ``(b, c)`` and their finer digits, or ``(0, 0)``; they live until the next."""
        left, right = self.matrix[rows], self.matrix[columns]  # (b, d) or (b, 2 d)
        high, low = room.tiles(self.matrix.dtype, len(left), len(right), has_low=self._has_fine)
        n_dims = self.n_dims
        if self.is_by_numpy:
            np.matmul(left.numpy(), right.numpy().T, out=high.numpy())
        elif self.matrix.dtype == torch.float32:
            torch.mm(left, right.T, out=high)
        else:
            _multiply_digits(left[:, :n_dims], right[:, :n_dims], high)
        if self._has_fine:
            swapped = room.swapped(right)  # (c, 2 d)
            _multiply_digits(left, swapped, low)
        return high, low


def _multiply_digits(left: torch.Tensor, right: torch.Tensor, products: torch.Tensor) -> None:
    """Fill ``(b, c)`` int32 with exact products of ``(b, d)`` and ``(c, d)``, int8.

    Where the library's products of bytes saturate, those of float32 are exact over few dims.
    """
    if has_int8():
        torch._int_mm(left, right.T, out=products)
        return
    products.zero_()
    for start in range(0, left.shape[1], _EXACT_DIMS):
        dims = slice(start, start + _EXACT_DIMS)
        for first in range(0, len(right), _PREPARED_ROWS):
            columns = slice(first, first + _PREPARED_ROWS)
            products[:, columns] += (left[:, dims].float() @ right[columns, dims].float().T).int()


def _center(
    features: NDArray[np.float32], order: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """The mean ``(d,)`` of some images, and the largest entry of their features less it."""
    if len(order) == len(features):
        mean = features.mean(axis=0, dtype=np.float64)
        low, high = features.min(axis=0), features.max(axis=0)
    else:
        images, parts = np.sort(order), []
        for start in range(0, len(images), _PREPARED_ROWS):
            rows = features[images[start : start + _PREPARED_ROWS]]  # (p, d)
            parts.append((rows.sum(axis=0, dtype=np.float64), rows.min(axis=0), rows.max(axis=0)))
        sums, lows, highs = (np.stack(values) for values in zip(*parts, strict=True))
        mean, low, high = sums.sum(axis=0) / len(images), lows.min(axis=0), highs.max(axis=0)
    return mean, float(np.maximum(high - mean, mean - low).max())


@njit(parallel=True, fastmath={"reassoc"}, cache=True)
def _write_digits(
    features: NDArray[np.float32],
    order: NDArray[np.int64],
    mean: NDArray[np.float64],
    scale: float,
    digits: NDArray[np.int8],
    scales: NDArray[np.float32],
    lengths: NDArray[np.float64],
) -> None:
    """Write centered features ``a`` in one digit or two.

    Args:
        features: Shape ``(n, d)``.
        order: Shape ``(m,)``.
        mean: Shape ``(d,)``.
        scale: What the features less the mean are multiplied by.
        digits: Shape ``(m, d)`` or ``(m, 2 d)``, to be filled.
        scales: Shape ``(m,)``, to be filled with what a unit of the digits is worth.
        lengths: Shape ``(4, m)``, to be filled with those of ``a``, of what the digits leave out,
            of what the fine digits are worth, and of what the coarse ones leave out if there are
            fine ones.
    """
    n_dims = len(mean)
    has_fine = digits.shape[1] > n_dims
    for place in prange(len(order)):
        row, rest = features[order[place]], np.empty(n_dims)
        largest, squared = 0.0, 0.0
        for dim in range(n_dims):
            rest[dim] = (np.float64(row[dim]) - mean[dim]) * scale
            squared += rest[dim] * rest[dim]
        for dim in range(n_dims):
            largest = max(largest, abs(rest[dim]))
        lengths[0, place] = np.sqrt(squared)
        unit = np.nextafter(np.float32(largest / LARGEST), np.float32(np.inf))
        unit = unit if unit >= _TINY else np.float32(1)  # no digit exceeds the largest
        scales[place] = unit
        step, squared = np.float64(unit), 0.0
        for dim in range(n_dims):
            digit = np.rint(rest[dim] / step)
            digits[place, dim] = np.int8(digit)
            rest[dim] -= digit * step
            squared += rest[dim] * rest[dim]
        if has_fine:
            lengths[3, place] = np.sqrt(squared)
            step, squared, total = step / BASE, 0.0, 0.0
            for dim in range(n_dims):
                digit = np.rint(rest[dim] / step)
                digits[place, n_dims + dim] = np.int8(digit)
                rest[dim] -= digit * step
                squared += rest[dim] * rest[dim]
                total += digit * digit
            lengths[2, place] = step * np.sqrt(total)
        lengths[1, place] = np.sqrt(squared)


@cache
def _is_numpy_faster(n_dims: int) -> bool:
    """Time a product by the libraries of torch (MKL as a rule) and numpy (OpenBLAS).

    On an AMD EPYC the second was up to 20 % faster, on Intel Xeons the first.
    """
    left, right = torch.ones(BLOCK_SIZE, n_dims), torch.ones(BLOCK_SIZE, n_dims)
    products = torch.empty(BLOCK_SIZE, BLOCK_SIZE)

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
