"""Images that are there twice: the same, or copies that were encoded, scaled or cropped anew."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from unic.quality.neighbor_lists import NeighborLists, read_neighbors

_FALSE_PAIRS = 1.0  # as many are expected in the whole list by chance


class Duplicates(NamedTuple):
    """Groups of duplicates, and the ``p`` pairs that they consist of, closest first.

    The fields of the pairs make a table. In a group with many copies of an image not every two are
    a pair, since the neighbors do not hold them all; and pairs may lie between groups, where an
    image is close to two that are not close to each other.
    """

    groups: NDArray[np.int64]  # (n,), from 0 in the order of their first images, -1 outside all
    first: NDArray[np.int64]  # (p,), the row of an image
    second: NDArray[np.int64]  # (p,), the row of its duplicate, above that of the first
    distance: NDArray[np.float64]  # (p,)
    ratio: NDArray[np.float64]  # (p,), distance by local scale, 0 to 1; 0 where the scale is 0
    n_expected: NDArray[np.float64]  # (p,), pairs with as small a ratio by chance in all images
    is_exact: NDArray[np.bool_]  # (p,), whether they have the same features, up to rounding
    threshold: float  # pairs with at most this ratio are duplicates
    n_dims: float  # intrinsic dimension of the features, by which the threshold was chosen


def find_duplicates(indices: NDArray[np.int64], distances: NDArray[np.floating]) -> Duplicates:
    """Find groups of duplicates among the nearest neighbors of all images.

    The distance of a pair is taken relative to the smaller of the distances at which the lists of
    both images end, the local scale, so images of a dense class are no duplicates. Were images
    spread evenly around each other in ``m`` dims, a list of ``k`` would hold a share of ``r^m``
    within the ratio ``r`` of its reach, and all ``n`` lists would hold ``n k r^m / 2`` pairs. Pairs
    so close that fewer than one is expected are near duplicates (the reasoning of a-contrario
    detection, Desolneux et al., 2000). ``m`` is estimated from the same distances by maximum
    likelihood (Levina and Bickel, 2004), with the median over the images.

    Exact copies, whose distances are no larger than what rounding leaves, count as one image in
    this, whatever their number. Near duplicates do not form chains: a group is an image and what is
    close to it, the image with the most such pairs first.

    Nothing of the result changes if all distances are multiplied by a number.

    Args:
        indices: Shape ``(n, k + 1)``, int64, nearest first, column 0 the image itself, as
            :func:`unic.neighbors.mining.mine_neighbors` gives them. k is 10 to 50; a group of more
            than k near duplicates, of which no two are the same, is a dense class.
        distances: Shape ``(n, k + 1)``, Euclidean, of features of unit length where the metric is
            cosine.

    Raises:
        ValueError: If there is no neighbor, or the arrays do not fit or are out of range.

    Example:
        >>> points = np.array([0.0, 0.0, 1.0, 2.1, 3.3, 4.2])
        >>> between = np.abs(points[:, None] - points)
        >>> between[1, 1] = -1  # each image is at rank 0 of its own list
        >>> indices = np.argsort(between, axis=1, kind="stable")
        >>> distances = np.take_along_axis(between, indices, axis=1).clip(min=0.0)
        >>> find_duplicates(indices, distances).groups.tolist()
        [0, 0, -1, -1, -1, -1]
    """
    lists = read_neighbors(indices, distances)
    n_images, n_neighbors = lists.indices.shape
    rows = np.repeat(np.arange(n_images), n_neighbors)  # (n k,)
    others, between = lists.indices.ravel(), lists.distances.ravel()
    is_same = between <= lists.rounding
    copies = _connect(rows[is_same], others[is_same], n_images)  # (n,)
    scales, n_dims = _measure_surroundings(lists, copies)
    smaller = np.minimum(scales[rows], scales[others])  # (n k,)
    ratios = np.divide(between, smaller, out=1.0 - is_same, where=smaller > 0)
    n_pairs = n_images * n_neighbors / 2
    threshold = float((_FALSE_PAIRS / n_pairs) ** (1 / n_dims)) if n_pairs > 1 else 1.0
    is_near = ~is_same & (ratios < threshold)
    found = np.flatnonzero(is_same | is_near)
    first, second = np.minimum(rows, others)[found], np.maximum(rows, others)[found]
    _, once = np.unique(first * n_images + second, return_index=True)
    pairs = once[np.lexsort((second[once], first[once], between[found[once]]))]
    rank = found[pairs]
    return Duplicates(
        _group(copies, rows[is_near], others[is_near], ratios[is_near]),
        first[pairs],
        second[pairs],
        between[rank],
        ratios[rank],
        n_pairs * ratios[rank] ** n_dims,
        is_same[rank],
        threshold,
        n_dims,
    )


def _connect(
    rows: NDArray[np.int64], others: NDArray[np.int64], n_images: int
) -> NDArray[np.int64]:
    """The number of its connected component for each image."""
    edges = sp.coo_array((np.ones(len(rows)), (rows, others)), shape=(n_images, n_images))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _measure_surroundings(
    lists: NeighborLists, copies: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """How far each list reaches ``(n,)``, and the intrinsic dimension; copies count once.

    A list that copies fill says nothing of the surroundings: the scale is that of a typical image.
    """
    is_other = _is_first(copies[lists.indices]) & (copies[lists.indices] != copies[:, None])
    n_others = is_other.sum(axis=1)  # (n,)
    reach = np.max(lists.distances, axis=1, where=is_other, initial=0.0)  # (n,)
    is_known = n_others >= 2
    if not is_known.any():
        return np.zeros(len(reach)), np.inf
    relative = np.where(is_other, lists.distances / np.where(is_known, reach, 1.0)[:, None], 1.0)
    depth = -np.log(relative[is_known]).sum(axis=1) / (n_others[is_known] - 1)
    typical = float(np.median(depth))
    return (
        np.where(is_known, reach, np.median(reach[is_known])),
        1 / typical if typical > 0 else np.inf,
    )


def _is_first(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a number is there for the first time in its row: shape ``(n, k)``."""
    order = np.argsort(numbers, axis=1, kind="stable")  # (n, k)
    ordered = np.take_along_axis(numbers, order, axis=1)
    is_new = np.ones(numbers.shape, dtype=np.bool_)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    is_first = np.empty_like(is_new)
    np.put_along_axis(is_first, order, is_new, axis=1)
    return is_first


def _group(
    copies: NDArray[np.int64],
    rows: NDArray[np.int64],
    others: NDArray[np.int64],
    ratios: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Join each image, with its copies, and what is near to it; those with the most first."""
    pairs: dict[int, dict[int, float]] = {}
    for row, other, ratio in zip(copies[rows], copies[others], ratios, strict=True):
        for one, two in ((int(row), int(other)), (int(other), int(row))):
            known = pairs.setdefault(one, {})
            known[two] = min(ratio, known.get(two, 1.0))
    owners = np.arange(copies.max() + 1)  # of each set of copies, the one that it is joined to
    is_free = np.ones(len(owners), dtype=np.bool_)
    for center in sorted(pairs, key=lambda one: (-len(pairs[one]), sum(pairs[one].values()))):
        joined = [other for other in pairs[center] if is_free[other]]
        if is_free[center] and joined:
            is_free[[center, *joined]] = False
            owners[joined] = center
    joined_copies = owners[copies]  # (n,)
    sizes = np.bincount(joined_copies)
    is_grouped = sizes[joined_copies] > 1
    groups = np.full(len(copies), -1)
    used, starts, numbers = np.unique(
        joined_copies[is_grouped], return_index=True, return_inverse=True
    )
    groups[is_grouped] = np.argsort(np.argsort(starts))[numbers] if len(used) else numbers
    return groups
