"""Images set apart from a pass: those whose features many others share, and outliers."""

import logging
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from unic.neighbors.exact.settling import SpecialRows
from unic.neighbors.exact.vectors import SUMS, squared_distance

logger = logging.getLogger(__name__)

_MOST_COPIES = 16  # of one feature that lists have room for
_OUTLYING = 8.0  # median norms
_SAMPLED_IMAGES = 1024  # whose median is the center
_FEW = 64  # ordinary images that are not worth a pass
_MOST_ENTRIES = 2**26  # distances between ordinary images and special features: 512 MB
_MOST_FEATURES = 4096
_SHARE = 1 / 8  # of the images that outliers may make up, beyond a few


class Specials(NamedTuple):
    """``s`` features that are measured against all others one by one; the rest is ordinary.

    A feature that more than 16 images share would fill the lists of a pass with ties; one such
    feature is measured once for all its images. An outlier would stretch the error bounds of all
    others, and pull their mean.
    """

    ordinary: NDArray[np.int64]  # (m,), images, ascending
    members: NDArray[np.int64]  # (t,), images of each special feature, one after the other
    first: NDArray[np.int64]  # (s + 1,), place of the first of each, and the end
    squared: NDArray[np.float64]  # (m, s), squared distances from ordinary images
    mutual: NDArray[np.float64]  # (s, s), squared distances among themselves

    @property
    def weights(self) -> NDArray[np.int64]:
        """Images ``(s,)`` of each special feature."""
        return np.diff(self.first)

    def select(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features ``(m, d)`` of the ordinary images."""
        return features if len(self.ordinary) == len(features) else features[self.ordinary]

    def rows(self, squared: NDArray[np.float64]) -> SpecialRows:
        """What loops need of some rows whose squared distances ``(b, s)`` are given."""
        return SpecialRows(squared, self.members, self.first, self.weights)

    def nearest(
        self, number: int, n_neighbors: int, far_rank: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Rank all images by distance to the ``t`` of one special feature.

        Returns:
            These images ``(t,)``, and of each the indices ``(t, k)``, the distances ``(t, k)``, and
            the far radius ``(t,)``, or ``(0,)`` without far rank.
        """
        squared = np.empty(len(self.ordinary) + len(self.members))  # (n,)
        squared[self.ordinary] = self.squared[:, number]
        squared[self.members] = np.repeat(self.mutual[number], self.weights)
        last = np.partition(squared, n_neighbors - 1)[n_neighbors - 1]
        images = np.flatnonzero(squared <= last)  # ascending, so that ties go to the lower index
        images = images[np.argsort(squared[images], kind="stable")[:n_neighbors]]  # (k,)
        own = self.members[self.first[number] : self.first[number + 1]]  # (t,)
        distances = np.sqrt(squared[images]).astype(np.float32)  # (k,); as many 0 as own images
        radii = np.empty(0, dtype=np.float32)
        if far_rank is not None:
            radius = np.sqrt(np.partition(squared, far_rank)[far_rank]).astype(np.float32)
            radii = np.full(len(own), radius)
        listed = _itself_first(own, images)
        return own, listed, np.broadcast_to(distances, listed.shape).copy(), radii


def no_specials(n_images: int) -> Specials:
    """All of ``n`` images are ordinary."""
    nobody, none = np.empty(0, dtype=np.int64), np.empty((n_images, 0))
    return Specials(np.arange(n_images), nobody, np.zeros(1, dtype=np.int64), none, none[:0])


def find_specials(features: NDArray[np.float32]) -> Specials:
    """Find the features that more than 16 images share, and outliers.

    Outliers are farther than 8 median norms from the median of the images, norms being taken
    from there. Where there are very many special features, those of the most images and the
    farthest outliers are set apart.

    Args:
        features: Shape ``(n, d)``, checked, C-contiguous.
    """
    n_images = len(features)
    groups = find_copies(features)
    is_ordinary = np.ones(n_images, dtype=np.bool_)  # (n,)
    groups = sorted(groups, key=len, reverse=True)[: _room(n_images)]
    for group in groups:
        is_ordinary[group] = False
    n_copies = n_images - int(is_ordinary.sum())
    outliers = _find_outliers(features, np.flatnonzero(is_ordinary))
    most = min(_room(n_images) - len(groups), max(_FEW, int(_SHARE * n_images)))
    groups += [outliers[place : place + 1] for place in range(min(most, len(outliers)))]
    for group in groups:
        is_ordinary[group] = False
    if groups and is_ordinary.sum() <= _FEW:
        groups += [np.array([image]) for image in np.flatnonzero(is_ordinary)]
        is_ordinary[:] = False
    if groups:
        logger.info(
            "%d features are measured one by one: %d images share theirs with more than %d others, "
            "%d are outliers",
            len(groups),
            n_copies,
            _MOST_COPIES - 1,
            min(most, len(outliers)),
        )
    return _measure(features, np.flatnonzero(is_ordinary), sorted(groups, key=lambda g: int(g[0])))


def find_copies(features: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """Images of each feature that more than 16 share, ascending.

    Args:
        features: Shape ``(n, d)``, checked, C-contiguous.
    """
    hashes = _hash_rows(features.view(np.uint32))  # (n,)
    order = np.argsort(hashes, kind="stable")  # (n,)
    starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[0]]))  # of equal hashes
    stops = np.append(starts[1:], len(order))
    groups = []
    for run in np.flatnonzero(stops - starts > _MOST_COPIES):
        group = order[starts[run] : stops[run]]
        is_same = (features[group] == features[group[0]]).all(axis=1)
        groups.append(group[is_same])
    return [group for group in groups if len(group) > _MOST_COPIES]


def _room(n_images: int) -> int:
    """Special features that there may be."""
    return min(_MOST_FEATURES, max(_FEW, _MOST_ENTRIES // n_images))


def _find_outliers(features: NDArray[np.float32], images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Outliers among some images, the farthest first."""
    if not len(images):
        return images
    sample = np.random.default_rng(len(images)).permutation(images)[:_SAMPLED_IMAGES]
    center = np.median(features[sample].astype(np.float64), axis=0)  # (d,)
    centers = center.astype(np.float32)[None, :]  # (1, d)
    norms = np.sqrt(_measure_rows(features, images, centers)[:, 0])  # (m,)
    found = np.flatnonzero(norms > _OUTLYING * np.median(norms))
    return images[found[np.argsort(-norms[found], kind="stable")]]


def _measure(
    features: NDArray[np.float32], ordinary: NDArray[np.int64], groups: list[NDArray[np.int64]]
) -> Specials:
    images = np.array([group[0] for group in groups], dtype=np.int64)  # (s,)
    special = features[images]  # (s, d)
    members = np.concatenate([np.empty(0, dtype=np.int64), *groups])
    first = np.cumsum([0, *map(len, groups)])
    squared = _measure_rows(features, ordinary, special)
    return Specials(ordinary, members, first, squared, _measure_rows(features, images, special))


@njit(parallel=True, cache=True)
def _measure_rows(
    features: NDArray[np.float32], rows: NDArray[np.int64], special: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Squared distances ``(m, s)`` of some images to special features."""
    squared = np.empty((len(rows), len(special)))
    for row in prange(len(rows)):
        sums = np.empty(SUMS)
        for number in range(len(special)):
            squared[row, number] = squared_distance(features[rows[row]], special[number], sums)
    return squared


@njit(parallel=True, cache=True)
def _hash_rows(words: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A hash ``(n,)`` of each row, the same for 0 and -0."""
    hashes = np.empty(len(words), dtype=np.uint64)
    for row in prange(len(words)):
        state = np.uint64(0x9E3779B97F4A7C15)
        for dim in range(words.shape[1]):
            word = np.uint64(words[row, dim])
            if word == np.uint64(0x80000000):
                word = np.uint64(0)
            state = (state ^ word) * np.uint64(0xBF58476D1CE4E5B9)
            state ^= state >> np.uint64(32)
        hashes[row] = state
    return hashes


@njit(cache=True)
def _itself_first(own: NDArray[np.int64], images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each of the images ``(t,)`` and the first ``k - 1`` others of ``(k,)``: ``(t, k)``."""
    listed = np.empty((len(own), len(images)), dtype=np.int64)
    for row in range(len(own)):
        listed[row, 0] = own[row]
        place = 1
        for image in images:
            if place < len(images) and image != own[row]:
                listed[row, place] = image
                place += 1
    return listed
