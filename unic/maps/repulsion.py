"""How all images push each other apart, by a grid."""

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from unic.maps import loops

_FEW = 1024  # images, of which all pairs take no longer than a grid
_STEP = 0.5  # between nodes, of the unit of the map
_MOST_NODES = 1024  # along an axis; beyond it the step grows
_MARGIN = 6  # nodes that no image is near
_BLOCK = 32  # nodes that a grid grows by, so that kernels serve several steps


class Repulsion:
    """The sum over all images ``j`` of ``1 / (1 + d_ij^2)``, and its slope, at each image.

    Images are spread over a grid by cubic B-splines, convolved with the kernel by fast Fourier
    transforms, and the field is read by the same splines: as FIt-SNE does by polynomials
    (Linderman et al., 2019), here with the slope of the one field in place of two more, as in
    smooth particle mesh Ewald (Essmann et al., 1995). It takes time and memory that grow with n
    and with the grid. All is added in an order that neither threads nor their number change.
    """

    def __init__(self) -> None:
        self._key = (0, 0.0)
        self._kernel = np.empty((0, 0))

    def measure(
        self, positions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Values ``(n,)``, without the image itself, and slopes ``(n, 2)``.

        Args:
            positions: Shape ``(n, 2)``, finite.
        """
        values, slopes = np.empty(len(positions)), np.empty_like(positions)
        if len(positions) <= _FEW:
            loops.measure_pairs(positions, values, slopes)
        else:
            self._measure_by_grid(positions, values, slopes)
        return values - 1.0, slopes

    def _measure_by_grid(
        self,
        positions: NDArray[np.float32],
        values: NDArray[np.float64],
        slopes: NDArray[np.float32],
    ) -> None:
        low = positions.min(axis=0).astype(np.float64)  # (2,)
        high = positions.max(axis=0).astype(np.float64)  # (2,)
        span = float((high - low).max())
        step = _choose_step(span)
        n_nodes = -(-(math.ceil(span / step) + _MARGIN) // _BLOCK) * _BLOCK
        origin = (low + high) / 2 - step * (n_nodes - 1) / 2  # (2,)
        density = loops.spread(positions, origin, step, n_nodes)  # (g, g)
        field = self._convolve(density, step)  # (g, g)
        loops.gather(positions, field, origin, step, values, slopes)

    def _convolve(self, density: NDArray[np.float64], step: float) -> NDArray[np.float64]:
        """The field ``(g, g)`` of a density, as coefficients of splines."""
        n_nodes = len(density)
        size = scipy.fft.next_fast_len(2 * n_nodes, real=True)
        if (size, step) != self._key:
            self._key, self._kernel = (size, step), _transform_kernel(size, step)
        # One thread: which rows are transformed as vectors depends on their number.
        rows = scipy.fft.rfft(density, n=size, axis=1, workers=1)  # (g, s / 2 + 1)
        waves = scipy.fft.fft(rows, n=size, axis=0, workers=1, overwrite_x=True)
        waves *= self._kernel
        columns = scipy.fft.ifft(waves, axis=0, workers=1, overwrite_x=True)[:n_nodes]
        field = scipy.fft.irfft(columns, n=size, axis=1, workers=1)[:, :n_nodes]
        return np.ascontiguousarray(field)


def _choose_step(span: float) -> float:
    """The usual step, or one so wide that the grid stays within its limit, in few sizes."""
    needed = span / (_STEP * (_MOST_NODES - _MARGIN))
    return _STEP if needed <= 1 else _STEP * 2.0 ** (math.ceil(4 * math.log2(needed)) / 4)


def _transform_kernel(size: int, step: float) -> NDArray[np.float64]:
    """What waves are multiplied by: the kernel, less what splines smooth it, twice."""
    steps = np.arange(size)
    distances = np.minimum(steps, size - steps) * step  # (s,)
    kernel = 1.0 / (1.0 + distances[:, None] ** 2 + distances**2)  # (s, s)
    smoothing = (2.0 + np.cos(2.0 * np.pi * steps / size)) / 3.0  # (s,)
    waves: NDArray[np.float64] = scipy.fft.rfft2(kernel, workers=1).real  # (s, s / 2 + 1)
    return waves / (smoothing[:, None] * smoothing[: size // 2 + 1]) ** 2
