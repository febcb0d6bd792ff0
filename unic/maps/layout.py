"""Positions of all images in two dimensions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from tqdm import trange

from unic.maps import loops
from unic.maps.graph import check_indices, join_both_ways, list_neighbors, renumber
from unic.maps.placing import find_principal, fit_box, order_by_place
from unic.maps.repulsion import Repulsion
from unic.neighbors.metric import check_features

_MOST_NEIGHBORS = 15  # that an image is joined to
_START = 1e-4  # deviation of the first positions (Kobak and Berens, 2019)
_NOISE = 1e-2  # of the start of each phase, so that equal images part
_LEAST_TOTAL = 1e-6  # of the pushes of an image, far below that of a map
_SORT_EVERY = 50  # steps
_IMAGES_A_THREAD = 65_536  # with fewer, threads wait for each other longer than they work


class _Phase(NamedTuple):
    """Some steps of the descent."""

    n_steps: int
    exaggeration: float  # of the pulls
    momentum: float


# The steps of Belkina et al. (2019), n / exaggeration, with more momentum than van der Maaten
# (2014) has, 0.5 and 0.8, and so fewer of them, there 250 and 750 (docs/log.md).
_EARLY = _Phase(100, exaggeration=12.0, momentum=0.8)
_LATE = _Phase(300, exaggeration=1.0, momentum=0.9)


def map_images(
    indices: NDArray[np.int64],
    features: NDArray[np.float32],
    *,
    seed: int,
    n_neighbors: int | None = None,
) -> NDArray[np.float32]:
    """Lay all images out in two dimensions, near ones near each other: t-SNE.

    It minimizes the Kullback-Leibler divergence of van der Maaten and Hinton (2008), where
    ``p_ij`` is uniform over the neighbors of an image instead of falling with their distance
    (Boehm et al., 2022), by full steps of gradient descent. The start is the two principal
    components of the features, and the map is turned and mirrored to lie like them.

    Equal arguments give equal bytes, with any number of threads: an image gathers the forces on
    it from the positions of the step before. Memory grows with ``n k``.

    Args:
        indices: Shape ``(n, m)``, int64, nearest first, column 0 the image itself; n and m at
            least 2.
        features: Shape ``(n, d)``, float32, of the same images, by Euclidean distance.
        seed: Of the noise that tells equal images apart.
        n_neighbors: How many of the neighbors to use at most, at least 1; by default as
            :func:`choose_n_neighbors` says.

    Returns:
        Shape ``(n, 2)``, float32, finite, centered, the longer side from -1 to 1.

    Raises:
        ValueError: If the arrays are not these, or not of the same images.
    """
    check_indices(indices)
    check_features(features)
    if len(features) != len(indices):
        raise ValueError(
            f"features must be of the {len(indices)} images of indices, got {len(features)}"
        )
    if n_neighbors is None:
        n_neighbors = choose_n_neighbors(indices)
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    listed = list_neighbors(indices, n_neighbors=n_neighbors)  # (n, k)
    principal = find_principal(features)  # (n, 2)
    noise = _NOISE * np.random.default_rng(seed).normal(size=principal.shape)  # (n, 2)
    positions = (_START * (principal + noise)).astype(np.float32)  # (n, 2)
    with _few_threads(len(listed)):
        positions = _descend(positions, listed, _EARLY)
        positions = _descend(positions + noise.astype(np.float32), listed, _LATE)
    return fit_box(positions, principal)


def choose_n_neighbors(indices: NDArray[np.int64]) -> int:
    """How many neighbors of an image make the map: 15, or as many as are listed.

    It is a third of the images at most: where all are neighbors of all, nothing tells them apart.

    Args:
        indices: Shape ``(n, m)``, as for :func:`map_images`.

    Example:
        >>> choose_n_neighbors(np.zeros((1000, 11), dtype=np.int64))
        10
    """
    n_images, n_listed = indices.shape
    return max(1, min(_MOST_NEIGHBORS, n_listed - 1, (n_images - 1) // 3))


def _descend(
    positions: NDArray[np.float32], listed: NDArray[np.int32], phase: _Phase
) -> NDArray[np.float32]:
    """Positions ``(n, 2)`` where the divergence is lower.

    Every some steps images are put in the order in which they lie, so that those that are read
    together are near each other in memory.

    Args:
        positions: Shape ``(n, 2)``, where images begin.
        listed: Shape ``(n, k)``, the images that each is joined to.
        phase: How to go.
    """
    n_images, n_neighbors = listed.shape
    images = np.arange(n_images)  # (n,), in the order of the arrays below
    speeds, gains = np.zeros_like(positions), np.ones_like(positions)  # (n, 2) each
    pulls = np.empty_like(positions)  # (n, 2)
    repulsion = Repulsion()
    for step in trange(phase.n_steps, desc="map_images", unit="step", disable=None):
        if step % _SORT_EVERY == 0:
            order = order_by_place(positions)  # (n,)
            positions, speeds, gains = positions[order], speeds[order], gains[order]
            images, listed = images[order], renumber(listed, order)
            graph = join_both_ways(listed)
        loops.attract(positions, graph.starts, graph.neighbors, pulls)
        values, slopes = repulsion.measure(positions)
        total = max(float(values.sum()), _LEAST_TOTAL * n_images)
        loops.move(
            *(positions, speeds, gains, pulls, slopes, graph.starts),
            np.float32(2.0 / n_neighbors),
            np.float32(2.0 * n_images / (total * phase.exaggeration)),
            np.float32(phase.momentum),
        )
    return positions[images.argsort()]


@contextmanager
def _few_threads(n_images: int) -> Iterator[None]:
    """Let numba use no more threads than pay."""
    n_threads = numba.get_num_threads()
    numba.set_num_threads(max(1, min(n_threads, n_images // _IMAGES_A_THREAD)))
    try:
        yield
    finally:
        numba.set_num_threads(n_threads)
