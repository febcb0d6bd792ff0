"""Which images to ask a person about next: those whose answers say something of the most others."""

import heapq
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from unic.steering.marks import State

N_NEIGHBORS = 10  # of each image, without itself
MAX_WALKED = 200_000  # images up to which neighbors of neighbors count
MIN_SHARE = 0.3  # of neighbors in another cluster, of an image between the two
_DIGITS = 9  # of what an image adds: what lies below depends on the order of a sum


class Suggestion(NamedTuple):
    """An image to ask about."""

    row: int
    reason: str  # in words
    n_alike: int  # images without label that it stands for, with itself


def suggest_images(
    state: State, indices: NDArray[np.int64], *, n_suggested: int = 20
) -> list[Suggestion]:
    """Choose images whose labels, with those that are known, cover all others the best.

    A label at image ``i`` covers an image ``j`` by the chance ``w_ij`` that a random walk of at
    most two steps from ``j`` along the graph of neighbors is at ``i``. Images are taken one by
    one, each the one that adds the most to ``sum_j max_i w_ij`` over labeled and taken images
    ``i``. So they lie where images are dense, far from each other and from what has a label;
    strangers cover nobody. How sure the clustering is plays no part: of all that was tried,
    looking for images it is unsure of was worse than asking at random (docs/log.md).

    Args:
        state: What was said so far.
        indices: Neighbors, ``(n, k)``, int64, nearest first, column 0 the image itself.
        n_suggested: How many at most; fewer where fewer have no label.

    Returns:
        The best first. The same input gives the same images.

    Raises:
        ValueError: If neighbors are not of these images.
    """
    n_images = len(state.clusters)
    if indices.ndim != 2 or len(indices) != n_images or indices.shape[1] < 2:
        raise ValueError(
            f"indices must be neighbors of the {n_images} images, got shape {indices.shape}"
        )
    neighbors = indices[:, 1 : N_NEIGHBORS + 1]  # (n, k)
    coverage = _Coverage(_walk(neighbors))
    labeled = np.array([*state.labels], dtype=np.int64)
    for row in labeled:
        coverage.add(int(row))
    chosen = coverage.choose(n_suggested, without=labeled)
    counts = coverage.count_nearest(chosen, without=labeled)
    return [
        Suggestion(row, _give_reason(row, count, state, neighbors), count)
        for row, count in zip(chosen, counts, strict=True)
    ]


class _Coverage:
    """How well images are covered, and who covers each the best."""

    def __init__(self, weights: sp.csc_array):
        self._weights = weights  # (n, n), column i is how i covers all
        self._covered = np.zeros(weights.shape[0])  # (n,)
        self._nearest = np.full(weights.shape[0], -1)  # (n,), who covers each best

    def add(self, row: int) -> None:
        """Let an image cover others."""
        rows, values = self._column(row)
        is_better = values > self._covered[rows]
        self._covered[rows[is_better]] = values[is_better]
        self._nearest[rows[is_better]] = row

    def choose(self, n_chosen: int, *, without: NDArray[np.int64]) -> list[int]:
        """Take the images that add the most, one after the other."""
        entries = self._weights
        gains = np.maximum(entries.data - self._covered[entries.indices], 0.0)
        # No column is empty: each image covers itself.
        sums = np.add.reduceat(gains, entries.indptr[:-1]).round(_DIGITS)  # (n,)
        candidates = np.setdiff1d(np.arange(len(sums)), without)
        # What an image adds only falls as others are taken: the first that is up to date is best.
        heap = [(-float(sums[row]), int(row)) for row in candidates]
        heapq.heapify(heap)
        chosen: list[int] = []
        while heap and len(chosen) < n_chosen:
            row = heapq.heappop(heap)[1]
            gain = self._gain(row)
            if heap and (-gain, row) > heap[0]:
                heapq.heappush(heap, (-gain, row))
                continue
            self.add(row)
            chosen.append(row)
        return chosen

    def count_nearest(self, rows: list[int], *, without: NDArray[np.int64]) -> list[int]:
        """How many images without label each covers better than all others do, itself too."""
        nearest = self._nearest.copy()
        nearest[without] = -1
        counts = np.bincount(nearest[nearest >= 0], minlength=len(nearest))
        return [max(1, int(counts[row])) for row in rows]

    def _gain(self, row: int) -> float:
        rows, values = self._column(row)
        return round(float(np.maximum(values - self._covered[rows], 0.0).sum()), _DIGITS)

    def _column(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        part = slice(self._weights.indptr[row], self._weights.indptr[row + 1])
        return self._weights.indices[part], self._weights.data[part]


def _walk(neighbors: NDArray[np.int64]) -> sp.csc_array:
    """Where a walk from each image is, ``(n, n)``: the mean of no, one and two steps.

    A step goes to one of the neighbors, or to one of those that have the image as a neighbor.
    """
    n_images, n_neighbors = neighbors.shape
    rows = np.repeat(np.arange(n_images), n_neighbors)
    ones = np.ones(len(rows))
    graph = sp.csr_array((ones, (rows, neighbors.ravel())), shape=(n_images, n_images))
    graph = graph + graph.T
    step = sp.csr_array(sp.diags_array(1.0 / np.asarray(graph.sum(axis=1)).ravel()) @ graph)
    total = sp.eye_array(n_images, format="csr") + step
    if n_images <= MAX_WALKED:
        total = total + step @ step
    walked = sp.csc_array(total / (3.0 if n_images <= MAX_WALKED else 2.0))
    walked.sort_indices()
    return walked


def _give_reason(row: int, n_alike: int, state: State, neighbors: NDArray[np.int64]) -> str:
    """Why an image is asked about, in words."""
    cluster = int(state.clusters[row])
    around = state.clusters[neighbors[row]]  # (k,)
    others = np.bincount(around[around != cluster], minlength=1)
    own = _tell(cluster, state.names)
    if row in state.wrong:
        where = f"marked as not of {own}"
    elif others.max() >= MIN_SHARE * len(around):
        where = f"between {own} and {_tell(int(others.argmax()), state.names)}"
    else:
        where = f"in {own}"
    if not any(state.clusters[labeled] == cluster for labeled in state.labels):
        where += ", of which no image has a label"
    return f"{where}; {n_alike} image{'s' * (n_alike > 1)} like it"


def _tell(cluster: int, names: Mapping[int, str]) -> str:
    return f"{names[cluster]} ({cluster})" if cluster in names else f"cluster {cluster}"
