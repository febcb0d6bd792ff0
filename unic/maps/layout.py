"""Positions of all images in two dimensions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unic.maps import loops
from unic.maps.graph import Graph, join_neighbors
from unic.maps.placing import find_principal, fit_box
from unic.maps.repulsion import Repulsion
from unic.neighbors.metric import check_features

logger = logging.getLogger(__name__)


class _Phase(NamedTuple):
    """Some steps of the descent."""

    n_steps: int
    exaggeration: float  # of the pulls
    momentum: float


N_NEIGHBORS = 15  # that an image is joined to at most
_TINY = 1e-300
_START = 1e-4  # deviation of the first positions (Kobak and Berens, 2019)
_NOISE = 1e-2  # of the start: equal images begin apart
# van der Maaten (2014), with the steps that Belkina et al. (2019) take.
_PHASES = (_Phase(250, 12.0, 0.5), _Phase(500, 1.0, 0.8))
_IMAGES_A_THREAD = 8192  # with fewer, threads wait for each other longer than they work


def map_images(
    indices: NDArray[np.int64],
    features: NDArray[np.float32],
    *,
    seed: int,
    n_neighbors: int = N_NEIGHBORS,
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
        n_neighbors: How many of the neighbors to use at most, at least 1.

    Returns:
        Shape ``(n, 2)``, float32, finite, centered, the longer side from -1 to 1.

    Raises:
        ValueError: If the arrays are not these, or not of the same images.
    """
    check_features(features)
    if len(features) != len(indices):
        raise ValueError(
            f"features must be of the {len(indices)} images of indices, got {len(features)}"
        )
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    graph = join_neighbors(indices, n_neighbors=n_neighbors)
    principal = find_principal(features)  # (n, 2)
    noise = np.random.default_rng(seed).normal(size=principal.shape)  # (n, 2)
    positions = (_START * (principal + _NOISE * noise)).astype(np.float32)
    with _few_threads(graph.n_images):
        _descend(positions, graph)
    if not np.isfinite(positions).all():
        raise FloatingPointError("the map must be finite, got positions that are not")
    return fit_box(positions, principal)


def _descend(positions: NDArray[np.float32], graph: Graph) -> None:
    """Move images ``(n, 2)`` to where the divergence is low."""
    n_images = graph.n_images
    mean_degree = len(graph.neighbors) / n_images
    repulsion = Repulsion()
    speeds, pulls = np.zeros_like(positions), np.empty_like(positions)  # (n, 2) each
    n_steps = sum(phase.n_steps for phase in _PHASES)
    with tqdm(total=n_steps, desc="map_images", unit="step", disable=None) as progress:
        for phase in _PHASES:
            gains = np.ones_like(positions)  # (n, 2)
            speeds[:] = 0
            for _ in range(phase.n_steps):
                loops.attract(positions, graph.starts, graph.neighbors, pulls)
                values, slopes = repulsion.measure(positions)
                total = max(float(values.sum()), _TINY)
                loops.move(
                    *(positions, speeds, gains, pulls, slopes, graph.starts),
                    np.float32(4.0 / mean_degree),
                    np.float32(2.0 * n_images / (total * phase.exaggeration)),
                    np.float32(phase.momentum),
                )
                progress.update()


@contextmanager
def _few_threads(n_images: int) -> Iterator[None]:
    """Let numba use no more threads than pay."""
    n_threads = numba.get_num_threads()
    numba.set_num_threads(max(1, min(n_threads, n_images // _IMAGES_A_THREAD)))
    try:
        yield
    finally:
        numba.set_num_threads(n_threads)
