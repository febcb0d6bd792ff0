"""How far a map keeps neighbors: its trustworthiness and its continuity."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from unic.maps import loops
from unic.maps.graph import check_indices
from unic.neighbors.metric import check_features

N_NEIGHBORS = 15
_MOST_ANCHORS, _FEWEST_ANCHORS, _COMPARED = 1000, 200, 10**8  # the last over n
_TINY = 1e-300
_BLOCK = 4096  # images that are compared with the anchors at a time
_ROUNDING = 1e-12  # of the squared lengths: by less no image is nearer


class MapScores(NamedTuple):
    """What a map shows of the neighborhoods of the features, and they of its own, by anchors."""

    trustworthiness: float  # in [0, 1], 1 where all neighbors in the map are neighbors
    continuity: float  # in [0, 1], 1 where all neighbors are neighbors in the map
    n_neighbors: int
    n_anchors: int


def score_map(
    positions: NDArray[np.float32],
    indices: NDArray[np.int64],
    features: NDArray[np.float32],
    *,
    n_neighbors: int = N_NEIGHBORS,
    n_anchors: int | None = None,
    seed: int = 0,
) -> MapScores:
    """Measure a map by all distances of some anchors (Venna and Kaski, 2001).

    Trustworthiness is ``1 - 2 / (n k (2 n - 3 k - 1)) sum (r_ij - k)``, over the ``k`` images
    nearest in the map that are at a rank ``r_ij > k`` by features; continuity is the same with
    the two exchanged. The mean over anchors takes the place of that over all images. Of equally
    far images none counts as nearer than the other.

    Args:
        positions: Shape ``(n, 2)``, float32, n at least 3.
        indices: Shape ``(n, m)``, int64, nearest first, column 0 the image itself.
        features: Shape ``(n, d)``, float32, that the neighbors are of, by Euclidean distance.
        n_neighbors: k at most: fewer where the lists are shorter, or half of the images are not
            as many.
        n_anchors: Images to measure at most, drawn at random; by default 1,000, and of more than
            100,000 images fewer, down to 200.
        seed: Of the draw.

    Raises:
        ValueError: If the arrays are not these, or not of the same images.
    """
    check_indices(indices)
    check_features(features)
    n_images, n_listed = indices.shape
    if not len(positions) == len(features) == n_images or n_images < 3:
        raise ValueError(
            "positions, indices and features must be of the same images, at least 3, "
            f"got {len(positions)}, {n_images} and {len(features)}"
        )
    n_near = min(n_neighbors, n_listed - 1, (n_images - 1) // 2)
    if n_anchors is None:
        n_anchors = max(_FEWEST_ANCHORS, min(_MOST_ANCHORS, _COMPARED // n_images))
    draw = np.random.default_rng(seed).permutation(n_images)[:n_anchors]
    anchors = np.sort(draw)  # (a,)
    near = np.ascontiguousarray(indices[anchors, 1 : n_near + 1])  # (a, k)
    mapped = loops.nearest_in_map(positions, anchors, n_near)  # (a, k)
    before = _count_nearer(features, anchors, mapped)  # (a, k)
    mapped_before = loops.nearer_in_map(positions, anchors, near)  # (a, k)
    return MapScores(
        _score(before, n_images), _score(mapped_before, n_images), n_near, len(anchors)
    )


def _score(before: NDArray[np.int64], n_images: int) -> float:
    """One less how far ranks ``(a, k)`` are beyond k, as a share of the most that may be."""
    n_anchors, n_near = before.shape
    beyond = np.maximum(before + 1 - n_near, 0).sum()
    return float(1.0 - 2.0 * beyond / (n_anchors * n_near * (2 * n_images - 3 * n_near - 1)))


def _count_nearer(
    features: NDArray[np.float32], anchors: NDArray[np.int64], others: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many images are nearer to each anchor, by features, than some others ``(a, k)``."""
    scale = max(float(features.max()), -float(features.min()), _TINY)
    own = features[anchors] / np.float64(scale)  # (a, d)
    center = np.median(own, axis=0)  # (d,)
    own -= center
    own_norms = np.square(own).sum(axis=1)[:, None]  # (a, 1)
    counts = np.zeros(others.shape, dtype=np.int64)
    limits = np.empty(others.shape)
    with threadpool_limits(1, user_api="blas"):
        for row, anchor in enumerate(own):
            far = features[others[row]] / np.float64(scale) - center  # (k, d)
            limits[row] = np.square(far - anchor).sum(axis=1)
        for start in range(0, len(features), _BLOCK):
            block = features[start : start + _BLOCK] / np.float64(scale) - center  # (b, d)
            norms = own_norms + np.square(block).sum(axis=1)  # (a, b)
            distances = (1.0 + _ROUNDING) * norms - 2.0 * (own @ block.T)  # (a, b)
            is_here = (anchors >= start) & (anchors < start + len(block))  # (a,)
            distances[is_here, anchors[is_here] - start] = np.inf
            loops.count_below(distances, limits, counts)
    return counts
