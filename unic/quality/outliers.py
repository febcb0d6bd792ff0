"""Images that are far from all others: of the training images, and of new ones among these."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.quality.neighbor_lists import check_distances

_TAIL = 0.25  # share of the training images that are its far ones
_FEWEST = 16  # images of which a quarter of the tail is one
_UNIFORM = -1.0  # shape of a tail that ends at once


class OutlierReference(NamedTuple):
    """How far the training images are from their neighbors, by which others are judged.

    The distances of the farthest quarter are taken to follow a generalized Pareto distribution.
    """

    n_images: int
    n_neighbors: int  # k, without the image itself
    typical: float  # median of the mean distances, what scores are relative to
    start: float  # score at which the tail starts
    scale: float  # of the tail; 0 where too few or too equal images tell nothing of it
    shape: float  # of the tail, at least -1; below 0 where distances have an end


class Outliers(NamedTuple):
    """What is said of each of ``m`` images; the fields make a table."""

    score: NDArray[np.float64]  # (m,), mean distance of its neighbors; that of a typical image is 1
    p_value: NDArray[np.float64]  # (m,), share of training images as far; 0.25 for all nearer ones
    is_outlier: NDArray[np.bool_]  # (m,), fewer than one training image is expected as far


def measure_reference(distances: NDArray[np.floating]) -> OutlierReference:
    """Measure how far the training images are from each other.

    The tail is that of Pickands (1975), from three quantiles, the farthest 25, 12.5 and 6.25 % of
    the images: outliers among the training images, fewer than these 6 %, do not stretch it.

    Args:
        distances: Shape ``(n, k + 1)``, nearest first, column 0 the image itself, as
            :func:`unic.neighbors.mining.mine_neighbors` gives them. About 10 neighbors suit small
            classes; more find larger groups of foreign images.

    Raises:
        ValueError: If there is no neighbor, or the distances are not finite, ascending and at
            least 0.
    """
    n_images = check_distances(distances, n_columns=2)
    means = distances[:, 1:].mean(axis=1, dtype=np.float64)  # (n,)
    positive = means[means > 0]
    typical = float(np.median(positive)) if len(positive) else 1.0
    start, half, quarter = np.quantile(means / typical, [1 - _TAIL, 1 - _TAIL / 2, 1 - _TAIL / 4])
    width, further = float(half - start), float(quarter - half)
    scale, shape = 0.0, 0.0
    if width > 0 and n_images >= _FEWEST:
        shape = max(_UNIFORM, float(np.log2(max(further / width, 2.0**_UNIFORM))))
        scale = width * (shape / (2**shape - 1) if abs(shape) > 1e-6 else 1 / np.log(2))
    return OutlierReference(
        n_images, distances.shape[1] - 1, typical, float(start), float(scale), shape
    )


def score_outliers(distances: NDArray[np.floating], reference: OutlierReference) -> Outliers:
    """Score how far images are from the training images nearest to them.

    An outlier is an image so far that of the training images fewer than one is expected to be.
    A group of more than k foreign images, each the neighbor of the others, is a class like the
    others, and none of it is an outlier.

    Args:
        distances: Shape ``(m, k)``, to the k nearest training images, the image itself not among
            them, nearest first; k as in the reference, in the same features.
        reference: Of the training images.

    Raises:
        ValueError: If there are other than k columns, or the distances are not finite, ascending
            and at least 0.

    Example:
        >>> steps = np.linspace(1.0, 2.0, 41)[:, None]
        >>> reference = measure_reference(np.hstack([np.zeros((41, 1)), steps]))
        >>> score_outliers(np.array([[1.0], [9.0]]), reference).is_outlier.tolist()
        [False, True]
    """
    check_distances(distances, n_columns=1)
    if distances.shape[1] != reference.n_neighbors:
        raise ValueError(
            f"distances must be to {reference.n_neighbors} neighbors as in the reference, "
            f"got {distances.shape[1]}"
        )
    score = distances.mean(axis=1, dtype=np.float64) / reference.typical  # (m,)
    p_value = _TAIL * _survive(score - reference.start, reference)
    is_outlier = (reference.scale > 0) & (p_value * reference.n_images < 1)
    return Outliers(score, p_value, is_outlier)


def find_outliers(distances: NDArray[np.floating]) -> Outliers:
    """Score the training images themselves, see :func:`score_outliers`.

    Args:
        distances: As for :func:`measure_reference`.

    Raises:
        ValueError: See there.
    """
    reference = measure_reference(distances)
    return score_outliers(distances[:, 1:], reference)


def _survive(excess: NDArray[np.float64], reference: OutlierReference) -> NDArray[np.float64]:
    """Share of the tail beyond an excess over its start: shape ``(m,)``, 1 below the start."""
    if reference.scale == 0:
        return np.ones_like(excess)
    steps = np.maximum(excess, 0.0) / reference.scale  # (m,)
    if abs(reference.shape) <= 1e-6:
        return np.exp(-steps)
    remaining = np.maximum(1 + reference.shape * steps, 0.0)
    with np.errstate(divide="ignore"):  # beyond the end of the tail nothing is left
        return np.exp(-np.log(remaining) / reference.shape)
