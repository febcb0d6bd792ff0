"""Far sets: all images from the far rank on, drawn from without being stored."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray

from unic.neighbors.exact.operand import Operand
from unic.neighbors.exact.ranking import ExactRows
from unic.neighbors.exact.specials import find_copies
from unic.neighbors.exact.vectors import SUMS, measure_row, prefetch, squared_distance
from unic.neighbors.metric import check_features
from unic.runtime.devices import MAX_INT8_DIMS
from unic.storage.known_labels import check_known_labels, labels_told_apart

_CHECKED_ROWS = 8  # on which the far radius is compared with the features
_TRIES = 32  # a negative, on average; beyond that the far set of the anchor is listed
_ROUNDING = 2.0**-20  # over that of distances and squares
_CACHE_LINE = 64
_LISTED_ROWS = 64  # anchors whose far sets are listed at a time
_STEP = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64
_DRAWN, _TIED, _EXHAUSTED = 0, 1, 2


class _Screen(NamedTuple):
    """The features that were mined, their digits, and how far out far sets begin.

    What is known of the digits is that of :class:`unic.neighbors.exact.lists.Side`.
    """

    features: NDArray[np.float32]  # (n, d)
    codes: NDArray[np.int8]  # (n, d)
    scales: NDArray[np.float32]  # (n,)
    norms: NDArray[np.float32]  # (n,)
    errors: NDArray[np.float32]  # (n,)
    half_norms: NDArray[np.float64]  # (n,)
    half_scale: float
    far_radius: NDArray[np.float32]  # (n,)


class FarPool:
    """Draws images uniformly from the far sets of anchors, which are stored nowhere (Eq. 3).

    The far set ``Q_i[tau_2:n]`` holds the images from rank ``far_rank`` on, in the very order of
    :func:`unic.neighbors.mining.mine_neighbors`, less the images known to share the label of ``i``.

    An image drawn from all is kept if it is beyond the far radius: what is kept is uniform over
    the far set, and takes ``n / (n - tau_2)`` draws on average. Products of features in digits of
    one byte tell on which side most images are (:class:`unic.neighbors.exact.operand.Operand`), a
    quarter of the memory to read; the others are measured in float64. The radius is rounded to
    float32, where images a few ranks apart may agree, and images may be equally far. For an anchor
    for which such an image comes up it is found out once what is at its far rank, by distance in
    float64 and index; of anchors with the same features, for one of them.

    The far sets of four images on a line, where the far rank leaves the last one alone:

    >>> features = np.array([[0], [1], [3], [7]], dtype=np.float32)
    >>> far_radius = np.array([7, 6, 4, 7], dtype=np.float32)
    >>> pool = FarPool(features, far_radius, far_rank=3, known_labels=np.full(4, -1))
    >>> pool.draw(np.arange(4), 2, np.random.default_rng(0)).tolist()
    [[3, 3], [3, 3], [3, 3], [0, 0]]
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        far_radius: NDArray[np.float32],
        *,
        far_rank: int,
        known_labels: NDArray[np.int64],
        is_bound: bool = False,
        exclude_known_same_label: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        """Take the features that were mined, and the far radius that was found.

        Args:
            features: Shape ``(n, d)``, float32, those that were mined.
            far_radius: Shape ``(n,)``, float32, of :class:`unic.neighbors.mining.Neighbors`.
            far_rank: tau_2 of the paper, the one that gave ``far_radius``.
            known_labels: Shape ``(n,)``, int64, -1 where unknown.
            is_bound: Whether ``far_radius`` is a bound from above: images are drawn from beyond it.
            exclude_known_same_label: Whether images known to share the anchor's label are left out.
            device: Where anchors are ranked in float64, such as ``cpu`` or ``cuda:0``.

        Raises:
            ValueError: If ``far_radius`` is not that of these features and this rank, as far as
                some rows tell, or a shape or number is off.
        """
        n_images = len(check_features(features))
        _check_arguments(n_images, far_radius, far_rank, known_labels)
        self._features = np.ascontiguousarray(features)  # (n, d)
        self._far_rank = far_rank
        self._labels = labels_told_apart(
            known_labels, exclude_known_same_label=exclude_known_same_label
        )  # (n,)
        operand = Operand(self._features, np.arange(n_images), "int8")
        self._screen = _Screen(
            self._features,
            operand.matrix.numpy(),
            operand.sides.scales,
            operand.sides.norms,
            operand.sides.errors,
            operand.half_norms,
            operand.half_scale,
            far_radius,
        )
        self._device = device
        # Squared distance and index of the image at the far rank; NaN until an anchor needs them.
        self._edges = np.full(n_images, np.nan)  # (n,)
        self._edge_images = np.zeros(n_images, dtype=np.int64)  # (n,)
        _check_radius(self._features, far_radius, far_rank, is_bound=is_bound)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._features)

    def draw(
        self, anchors: NDArray[np.int64], n_negatives: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw negatives of anchors, with replacement.

        Args:
            anchors: Shape ``(b,)``, int64, from 0 to n - 1.
            n_negatives: Images drawn per anchor, at least 1.
            generator: Source of the draws, one seed per anchor: batches do not show in the result.

        Returns:
            Shape ``(b, n_negatives)``, int64.

        Raises:
            ValueError: If an anchor is out of range or left without any far image (names it).
        """
        n_images = len(self._features)
        out_of_range = anchors[(anchors < 0) | (anchors >= n_images)]
        if out_of_range.size:
            raise ValueError(f"anchors must be from 0 to {n_images - 1}, got {out_of_range[0]}")
        check_number(n_negatives)
        seeds = generator.integers(2**64, size=len(anchors), dtype=np.uint64)  # (b,)
        drawn = np.empty((len(anchors), n_negatives), dtype=np.int64)
        outcome = self._draw(anchors, seeds, drawn)  # (b,)
        is_tied = outcome == _TIED
        if is_tied.any():
            self._find_edges(np.unique(anchors[is_tied]))
            again = np.empty((is_tied.sum(), n_negatives), dtype=np.int64)
            outcome[is_tied] = self._draw(anchors[is_tied], seeds[is_tied], again)
            drawn[is_tied] = again
        exhausted = np.flatnonzero(outcome == _EXHAUSTED)
        for start in range(0, len(exhausted), _LISTED_ROWS):
            block = exhausted[start : start + _LISTED_ROWS]
            drawn[block] = self._draw_listed(anchors[block], seeds[block], n_negatives)
        return drawn

    @cached_property
    def _exact(self) -> ExactRows:
        return ExactRows(self._features, device=self._device)

    @cached_property
    def _originals(self) -> NDArray[np.int64]:
        """For each image ``(n,)`` the first one with its features and radius, if they are many."""
        originals = np.arange(len(self._features))
        for group in find_copies(self._features):
            is_same = self._screen.far_radius[group] == self._screen.far_radius[group[0]]
            originals[group[is_same]] = group[0]
        return originals

    def _draw(
        self, anchors: NDArray[np.int64], seeds: NDArray[np.uint64], drawn: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        outcome: NDArray[np.int64] = _draw_by_rejection(
            self._screen, self._edges, self._edge_images, self._labels, anchors, seeds, drawn
        )
        return outcome

    def _draw_listed(
        self, anchors: NDArray[np.int64], seeds: NDArray[np.uint64], n_negatives: int
    ) -> NDArray[np.int64]:
        """Draw ``(b, m)`` from far sets that are small beside n, and listed for it."""
        labels = self._labels[anchors][:, None]  # (b, 1)
        is_far = self._exact.beyond(anchors, self._far_rank)  # (b, n)
        is_far &= (labels < 0) | (labels != self._labels)
        drawn = np.empty((len(anchors), n_negatives), dtype=np.int64)
        for row, (anchor, seed) in enumerate(zip(anchors, seeds, strict=True)):
            far = np.flatnonzero(is_far[row])
            if not far.size:
                raise ValueError(
                    f"every anchor must keep at least 1 far image, got none for row {anchor}: "
                    "all images beyond far_rank are known to share its label"
                )
            drawn[row] = np.random.default_rng(seed).choice(far, n_negatives)
        return drawn

    def _find_edges(self, anchors: NDArray[np.int64]) -> None:
        """Remember what is at the far rank of anchors."""
        originals, places = np.unique(self._originals[anchors], return_inverse=True)
        edges, edge_images = _find_edges(self._screen, self._far_rank, originals)
        self._edges[anchors], self._edge_images[anchors] = edges[places], edge_images[places]
        # Within a group of copies each has another image at the far rank, as it comes first itself.
        is_copy = (edges[places] == 0) & (anchors != originals[places])
        for anchor, original in zip(anchors[is_copy], originals[places][is_copy], strict=True):
            group = np.flatnonzero(self._originals == original)
            self._edge_images[anchor] = group[group != anchor][self._far_rank - 1]


def check_number(n_negatives: int) -> None:
    """Refuse to draw fewer than one negative.

    Raises:
        ValueError: If there are none to draw.
    """
    if n_negatives < 1:
        raise ValueError(f"n_negatives must be at least 1, got {n_negatives}")


@njit(parallel=True, cache=True)
def _draw_by_rejection(
    screen: _Screen,
    edges: NDArray[np.float64],
    edge_images: NDArray[np.int64],
    labels: NDArray[np.int64],
    anchors: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    drawn: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Fill ``drawn`` ``(b, m)``; tell ``(b,)`` which anchors were drawn for, and what lacked."""
    features, far_radius = screen.features, screen.far_radius
    n_images, n_dims = features.shape
    n_anchors, n_negatives = drawn.shape
    outcome, flat = np.full(n_anchors, _DRAWN), screen.codes.reshape(screen.codes.size)
    for row in prange(n_anchors):
        anchor, state = anchors[row], seeds[row]
        inner, outer = _edges_of(screen, anchor)
        sums = np.empty(SUMS)
        n_drawn, n_tries = 0, _TRIES * n_negatives
        ahead = np.int64(_uniform(state + _STEP) * n_images)
        while n_drawn < n_negatives and n_tries > 0:
            n_tries -= 1
            state += _STEP
            image, ahead = ahead, np.int64(_uniform(state + _STEP) * n_images)
            for offset in range(0, n_dims, _CACHE_LINE):
                prefetch(flat, ahead * n_dims + offset)  # type: ignore[call-arg]
            is_same = labels[anchor] >= 0 and labels[anchor] == labels[image]
            if image == anchor or is_same:
                continue
            estimate, spread = _estimate(screen, anchor, image)
            if estimate - spread > outer:
                drawn[row, n_drawn] = image
                n_drawn += 1
                continue
            if estimate + spread < inner:
                continue
            squared = squared_distance(features[anchor], features[image], sums)
            distance = np.float32(np.sqrt(squared))
            is_far = distance > far_radius[anchor]
            if distance == far_radius[anchor]:
                if np.isnan(edges[anchor]):
                    outcome[row] = _TIED
                    break
                is_far = squared > edges[anchor] or (
                    squared == edges[anchor] and image >= edge_images[anchor]
                )
            if is_far:
                drawn[row, n_drawn] = image
                n_drawn += 1
        if n_drawn < n_negatives and outcome[row] == _DRAWN:
            outcome[row] = _EXHAUSTED
    return outcome


@njit(parallel=True, cache=True)
def _find_edges(
    screen: _Screen, far_rank: int, anchors: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What is at the far rank of anchors ``(b,)``: squared distance and image, ``(b,)`` each.

    Where the far radius is a bound that no image at the rank reaches, all that are as far as it
    are beyond the rank: -1 and 0.
    """
    features, n_images = screen.features, len(screen.features)
    edges, edge_images = np.full(len(anchors), -1.0), np.zeros(len(anchors), dtype=np.int64)
    for row in prange(len(anchors)):
        anchor = anchors[row]
        radius = screen.far_radius[anchor]
        inner, outer = _edges_of(screen, anchor)
        place, n_tied, sums = far_rank - 1, 0, np.empty(SUMS)  # the anchor is at rank 0
        tied, images = np.empty(n_images), np.empty(n_images, dtype=np.int64)
        for image in range(n_images):
            estimate, spread = _estimate(screen, anchor, image)
            if image == anchor or estimate - spread > outer:
                continue
            if estimate + spread < inner:
                place -= 1
                continue
            squared = squared_distance(features[anchor], features[image], sums)
            distance = np.float32(np.sqrt(squared))
            if distance < radius:
                place -= 1
            elif distance == radius:
                tied[n_tied], images[n_tied] = squared, image
                n_tied += 1
        if 0 <= place < n_tied:
            edge = np.partition(tied[:n_tied], place)[place]
            place -= (tied[:n_tied] < edge).sum()  # among those equally far, by index
            edges[row] = edge
            edge_images[row] = images[np.flatnonzero(tied[:n_tied] == edge)[place]]
    return edges, edge_images


@njit(cache=True)
def _edges_of(screen: _Screen, anchor: int | np.int64) -> tuple[float, float]:
    """Between which ``x`` of the operand an image may be just as far as the radius.

    What is rounded to a radius lies between its neighbors in float32.
    """
    radius, half_norm = screen.far_radius[anchor], screen.half_norms[anchor]
    above = np.float64(np.nextafter(radius, np.float32(np.inf)))
    under = np.float64(np.nextafter(radius, np.float32(0)))
    inner = under**2 * (1 - _ROUNDING) * screen.half_scale - half_norm
    return inner, above**2 * (1 + _ROUNDING) * screen.half_scale - half_norm


@njit(cache=True)
def _estimate(
    screen: _Screen, anchor: int | np.int64, image: int | np.int64
) -> tuple[float, float]:
    """The ``x`` of a pair by its digits, and how far off that may be."""
    dot = _dot(screen.codes[anchor], screen.codes[image])
    product = np.float64(screen.scales[anchor]) * screen.scales[image] * dot
    spread = np.float64(screen.errors[anchor]) * screen.norms[image]
    spread += np.float64(screen.norms[anchor]) * screen.errors[image]
    return screen.half_norms[image] - product, spread


@njit(cache=True)
def _dot(left: NDArray[np.int8], right: NDArray[np.int8]) -> float:
    total = 0.0
    for start in range(0, len(left), MAX_INT8_DIMS):
        stop = start + MAX_INT8_DIMS
        total += _dot_part(left[start:stop], right[start:stop])
    return total


@njit(cache=True)
def _dot_part(left: NDArray[np.int8], right: NDArray[np.int8]) -> np.int32:
    total = np.int32(0)
    for dim in range(len(left)):
        total = np.int32(total + np.int32(left[dim]) * np.int32(right[dim]))
    return total


@njit(cache=True)
def _uniform(state: np.uint64) -> float:
    """A number in [0, 1) from a state that counts up: SplitMix64 (Steele, Lea, Flood, 2014)."""
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


def _check_arguments(
    n_images: int,
    far_radius: NDArray[np.float32],
    far_rank: int,
    known_labels: NDArray[np.int64],
) -> None:
    if far_radius.shape != (n_images,) or far_radius.dtype != np.float32:
        raise ValueError(
            f"far_radius must be a float32 array of shape ({n_images},), "
            f"got {far_radius.dtype} of shape {far_radius.shape}"
        )
    check_known_labels(known_labels, n_images)
    bad_rows = np.flatnonzero(~(np.isfinite(far_radius) & (far_radius >= 0)))
    if bad_rows.size:
        row = bad_rows[0]
        raise ValueError(
            f"far_radius must be finite and at least 0, got {far_radius[row]} for row {row}"
        )
    if not 2 <= far_rank < n_images:
        raise ValueError(f"far_rank must be at least 2 and below n={n_images}, got {far_rank}")


def _check_radius(
    features: NDArray[np.float32], far_radius: NDArray[np.float32], far_rank: int, *, is_bound: bool
) -> None:
    """Compare the radius of some rows with the distance at the far rank."""
    for row in range(0, len(features), -(-len(features) // _CHECKED_ROWS)):
        squared = measure_row(features, row)  # (n,)
        exact = np.sqrt(np.partition(squared, far_rank)[far_rank]).astype(np.float32)
        if far_radius[row] < exact if is_bound else far_radius[row] != exact:
            what = "a bound of the distance" if is_bound else "the distance"
            raise ValueError(
                f"far_radius must be {what} at far_rank={far_rank} in these features, "
                f"got {float(far_radius[row])} for row {row}"
            )
