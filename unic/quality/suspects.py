"""Images whose given label is probably wrong, by the labels of their neighbors."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from unic.quality.neighbor_lists import NeighborLists, read_neighbors
from unic.storage.known_labels import UNKNOWN, check_known_labels

_BLOCK = 1 << 22  # shares of votes that are held at a time


class Suspects(NamedTuple):
    """What is said of the label of each of ``n`` images; the fields make a table.

    Nothing is said of an image without label, without labeled neighbors, or which is the only
    one of its class: its score is 0.
    """

    given: NDArray[np.int64]  # (n,), the known label, -1 where there is none
    suggested: NDArray[np.int64]  # (n,), the label that fits best, -1 where nothing is said
    score: NDArray[np.float64]  # (n,), 0 to 1, above 0.5 where another label has more votes
    is_suspect: NDArray[np.bool_]  # (n,)


class _Confidence(NamedTuple):
    """Mean share of the votes that each of ``c`` classes gets."""

    members: NDArray[np.float64]  # (c,), from its own images
    others: NDArray[np.float64]  # (c,), from images of other classes


def find_suspects(
    known_labels: NDArray[np.int64],
    indices: NDArray[np.int64],
    distances: NDArray[np.floating],
) -> Suspects:
    """Find images whose label contradicts those of the images around them.

    Neighbors vote for their labels, and so do their neighbors, over the lists in both directions;
    an image never votes on itself. A vote counts ``exp(-2 (d / d_k)^2)`` at distance ``d`` in a
    list that ends at ``d_k``, and is divided by the square root of the size of its class, between
    what favors large classes and what favors small ones.

    As in confident learning (Northcutt et al., 2021), thresholds are class by class and taken from
    the votes themselves. An image is a suspect if its given label gets no more than images of
    other labels give that label on average, and another label gets more than half way between that
    average and what the label gets from its own images (which for small classes is shrunk towards
    the mean of all classes, by one image).

    Args:
        known_labels: Shape ``(n,)``, int64, -1 where unknown.
        indices: Shape ``(n, k + 1)``, int64, nearest first, column 0 the image itself, as
            :func:`unic.neighbors.mining.mine_neighbors` gives them.
        distances: Shape ``(n, k + 1)``, of these images.

    Raises:
        ValueError: If there is no neighbor, or the arrays do not fit or are out of range.

    Example:
        >>> points = np.array([0.0, 0.1, 0.3, 0.4, 5.0, 5.1, 5.3, 5.4])
        >>> between = np.abs(points[:, None] - points)
        >>> indices = np.argsort(between, axis=1)[:, :4]
        >>> distances = np.take_along_axis(between, indices, axis=1)
        >>> labels = np.array([0, 0, 1, 0, 1, 1, 1, 1])
        >>> np.flatnonzero(find_suspects(labels, indices, distances).is_suspect).tolist()
        [2]
    """
    lists = read_neighbors(indices, distances)
    check_known_labels(known_labels, len(indices))
    given = np.full(len(known_labels), UNKNOWN)
    is_known = known_labels != UNKNOWN
    classes, numbers = np.unique(known_labels[is_known], return_inverse=True)
    given[is_known] = numbers  # the classes that are there, from 0
    nothing = np.zeros(len(given), dtype=np.bool_)
    suggested, score = np.full(len(given), UNKNOWN), np.zeros(len(given))
    if len(classes) < 2:
        return Suspects(known_labels, suggested, score, nothing)
    voting = _Voting(_weigh(lists), given, len(classes))
    confidence = _measure_confidence(voting)
    limits = (confidence.members + confidence.others) / 2  # (c,)
    is_lonely = voting.sizes < 2  # (c,)
    smallest = 0.5 / lists.indices.shape[1]  # half a vote, so that no share is zero
    is_suspect = nothing.copy()
    for rows, shares in voting.blocks():
        own = given[rows]
        own_share = shares[np.arange(len(rows)), own]  # (b,)
        shares[np.arange(len(rows)), own] = 0.0
        shares[:, is_lonely] = 0.0
        best = np.divide(shares, limits, out=np.zeros_like(shares), where=limits > 0).argmax(axis=1)
        best_share = shares[np.arange(len(rows)), best]  # (b,)
        is_judged = ~is_lonely[own] & (own_share + best_share > 0)
        suggested[rows] = np.where(
            is_judged, classes[np.where(best_share > own_share, best, own)], UNKNOWN
        )
        odds = best_share + smallest, own_share + smallest
        score[rows] = np.where(is_judged, odds[0] / (odds[0] + odds[1]), 0.0)
        is_suspect[rows] = (
            is_judged
            & (own_share <= confidence.others[own])
            & (best_share > np.maximum(limits[best], own_share))
        )
    return Suspects(known_labels, suggested, score, is_suspect)


class _Voting:
    """The shares of the votes that classes get from the surroundings of each labeled image."""

    def __init__(self, weights: sp.csr_array, given: NDArray[np.int64], n_classes: int) -> None:
        self._weights, self._given = weights, given
        self.rows = np.flatnonzero(given != UNKNOWN)
        self.sizes = np.bincount(given[self.rows], minlength=n_classes)  # (c,)
        ones = np.ones(len(self.rows))
        self._labels = sp.csr_array(
            (ones, (self.rows, given[self.rows])), shape=(len(given), n_classes)
        )
        self._near = sp.csr_array(weights @ self._labels)  # (n, c)
        self._back = np.asarray(weights.multiply(weights.T).sum(axis=1)).ravel()  # (n,)

    def labels_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of their classes."""
        return self._given[rows]

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Labeled images and their shares ``(b, c)``, which sum to 1, or to 0 without votes."""
        size = max(1, _BLOCK // len(self.sizes))
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            own = np.arange(len(rows)), self._given[rows]
            votes = (self._near[rows] + self._weights[rows] @ self._near).toarray()  # (b, c)
            votes[own] = _without(votes[own], self._back[rows])  # what came back to the image
            sizes = np.tile(self.sizes + 1.0, (len(rows), 1))  # (b, c)
            sizes[own] -= 1.0
            votes /= np.sqrt(sizes)
            totals = votes.sum(axis=1, keepdims=True)  # (b, 1)
            yield rows, np.divide(votes, totals, out=np.zeros_like(votes), where=totals > 0)


def _without(votes: NDArray[np.float64], returned: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take returned votes away ``(b,)``; what rounding leaves of nothing is nothing."""
    left = votes - returned
    return np.where(left > 1e-9 * votes, left, 0.0)


def _weigh(lists: NeighborLists) -> sp.csr_array:
    """Weights of the votes, over the lists in both directions: shape ``(n, n)``, rows sum to 1."""
    n_images, n_neighbors = lists.indices.shape
    reach = lists.distances[:, -1:]  # (n, 1)
    relative = np.divide(
        lists.distances, reach, out=np.zeros_like(lists.distances), where=reach > 0
    )
    weights = np.exp(-2 * relative**2)  # (n, k)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(n_images), n_neighbors)
    one_way = sp.csr_array(
        (weights.ravel(), (rows, lists.indices.ravel())), shape=(n_images, n_images)
    )
    both = one_way + one_way.T
    return sp.csr_array(sp.diags_array(1 / np.asarray(both.sum(axis=1)).ravel()) @ both)


def _measure_confidence(voting: _Voting) -> _Confidence:
    """The mean shares by class, of its own images and of others."""
    n_classes = len(voting.sizes)
    own_total, total = np.zeros(n_classes), np.zeros(n_classes)
    for rows, shares in voting.blocks():
        own = voting.labels_of(rows)
        own_share = shares[np.arange(len(rows)), own]
        own_total += np.bincount(own, own_share, minlength=n_classes)
        total += shares.sum(axis=0)
    n_labeled = len(voting.rows)
    members = (own_total + own_total.sum() / n_labeled) / (voting.sizes + 1)
    return _Confidence(members, (total - own_total) / (n_labeled - voting.sizes))
