"""Where images of a map begin, and how a map that is done lies in its box."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

_TINY = 1e-300
_SAMPLE = 5_000  # images that the directions are found by
_LONGEST = 3.0  # median lengths, beyond which a feature is drawn in
_CELLS = 2**16 - 1  # along an axis
# Shifts and masks that put a zero between the bits of 16.
_SPREADING = ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555))
_BLOCK = 8192  # images that are turned at a time


def find_principal(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """The two principal components of all images ``(n, 2)``, of about unit deviation.

    Features that are far out are drawn in towards the median first, so that no image decides
    where all others lie. Where features have less than two dims, or do not vary, columns are 0.
    The sum of the loadings of each component is not negative. Products are of one thread: their
    last bits depend on the number.

    Args:
        features: Shape ``(n, d)``, finite.
    """
    n_images = len(features)
    scale = max(float(features.max()), -float(features.min()), _TINY)
    rows = np.linspace(0, n_images - 1, min(n_images, _SAMPLE)).astype(np.int64)
    sample = features[rows] / np.float64(scale)  # (s, d)
    center = np.median(sample, axis=0)  # (d,)
    reach = _find_reach(sample - center)
    components = np.zeros((n_images, 2))
    with threadpool_limits(1, user_api="blas"):
        directions = _find_directions(_draw_in(sample - center, reach))  # (d, v)
        for start in range(0, n_images, _BLOCK):
            block = features[start : start + _BLOCK] / np.float64(scale) - center  # (b, d)
            turned = _draw_in(block, reach) @ directions  # (b, v)
            components[start : start + _BLOCK, : turned.shape[1]] = turned
    components -= components.mean(axis=0)
    deviation = components[:, 0].std()
    return components / deviation if deviation > 0 else components


def order_by_place(positions: NDArray[np.float32]) -> NDArray[np.int64]:
    """The images ``(n,)`` in an order in which those near each other are close (Morton, 1966).

    Args:
        positions: Shape ``(n, 2)``, finite.
    """
    low = positions.min(axis=0)  # (2,)
    span = float((positions.max(axis=0) - low).max())
    cells = ((positions - low) * (_CELLS / (span or 1.0))).astype(np.uint64)  # (n, 2)
    for shift, mask in _SPREADING:
        cells = (cells | (cells << np.uint64(shift))) & np.uint64(mask)
    return np.argsort(cells[:, 0] | (cells[:, 1] << np.uint64(1)), kind="stable")


def fit_box(positions: NDArray[np.float32], like: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn, mirror, center and scale a map to the square from -1 to 1; its aspect is kept.

    Args:
        positions: Shape ``(n, 2)``.
        like: Shape ``(n, 2)``, what the map is to lie like (orthogonal Procrustes).

    Returns:
        Shape ``(n, 2)``, the longer side from -1 to 1, the other about 0; all 0 where all images
        lie in one place.
    """
    centered = positions - positions.mean(axis=0, dtype=np.float64)  # (n, 2)
    left, _, right = np.linalg.svd(np.einsum("na,nb->ab", centered, like))
    turned = np.einsum("na,ab->nb", centered, left @ right)  # (n, 2)
    low, high = turned.min(axis=0), turned.max(axis=0)  # (2,)
    half = float((high - low).max()) / 2
    boxed: NDArray[np.float64] = (turned - (low + high) / 2) / (half or 1.0)
    return boxed.astype(np.float32)


def _find_reach(sample: NDArray[np.float64]) -> float:
    """How long rows ``(s, d)`` may be: most of them may be of one image, and 0."""
    lengths = np.linalg.norm(sample, axis=1)  # (s,)
    return _LONGEST * float(np.median(lengths[lengths > 0])) if lengths.any() else 0.0


def _draw_in(rows: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """Shorten rows ``(b, d)`` that are longer than a reach."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)  # (b, 1)
    return rows * np.minimum(1.0, reach / np.maximum(lengths, _TINY))


def _find_directions(sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """The directions ``(d, 2)`` of most variance, or ``(d, 1)`` of one dim."""
    centered = sample - sample.mean(axis=0)  # (s, d)
    n_dims = centered.shape[1]
    first = max(0, n_dims - 2)
    _, vectors = eigh(centered.T @ centered, subset_by_index=[first, n_dims - 1])  # (d, v)
    vectors = vectors[:, ::-1]
    directions: NDArray[np.float64] = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    return directions
