"""Negatives: images that an anchor is told apart from, and the pools they are drawn from."""

import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unic.neighbors.far_sets import FarPool, check_number
from unic.neighbors.label_groups import LabelGroups
from unic.neighbors.metric import to_euclidean
from unic.storage.known_labels import check_known_labels, labels_told_apart
from unic.storage.stores import Store, check_same_images

logger = logging.getLogger(__name__)

_BLOCK_SIZE = 2**16  # anchors between two steps of the progress bar


class NegativePool(Protocol):
    """Draws any number of negatives per anchor."""

    def __len__(self) -> int:
        """Number of images."""

    def draw(
        self, anchors: NDArray[np.int64], n_negatives: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw negatives ``(b, n_negatives)`` of anchors ``(b,)``, with replacement."""


@dataclass(frozen=True)
class PoolSettings:
    """Which images are negatives of which.

    Args:
        pool: ``far`` = beyond the far rank (Eq. 3); ``all`` = any other image, which is what the
            paper's Table 4 calls random.
        labeled_share: Of the negatives of a labeled anchor, how many are labeled images of other
            classes, in [0, 1] (A.11).
        exclude_known_same_label: Whether images known to share the anchor's label are left out.
    """

    pool: str
    labeled_share: float
    exclude_known_same_label: bool


class RandomPool:
    """Draws from all other images, less those known to share the anchor's label.

    Args:
        known_labels: Shape ``(n,)``, int64, -1 where unknown.
        exclude_known_same_label: Whether images known to share the anchor's label are left out.

    Raises:
        ValueError: If an image is left without a negative.

    Example:
        >>> pool = RandomPool(np.array([0, 0, 1]))
        >>> pool.draw(np.array([0, 1]), 3, np.random.default_rng(0)).tolist()  # of class 1 alone
        [[2, 2, 2], [2, 2, 2]]
    """

    def __init__(
        self, known_labels: NDArray[np.int64], *, exclude_known_same_label: bool = True
    ) -> None:
        if len(known_labels) < 2:
            raise ValueError(f"there must be at least 2 images, got {len(known_labels)}")
        check_known_labels(known_labels, len(known_labels))
        self._labels = labels_told_apart(
            known_labels, exclude_known_same_label=exclude_known_same_label
        )  # (n,)
        first = self._labels[0]
        if first >= 0 and (self._labels == first).all():
            raise ValueError(
                f"every image must keep a negative, but all are known to be of class {first}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._labels)

    def draw(
        self, anchors: NDArray[np.int64], n_negatives: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw negatives ``(b, n_negatives)`` of anchors ``(b,)``, with replacement."""
        check_number(n_negatives)
        own = np.repeat(anchors, n_negatives)  # (b * m,)
        drawn = generator.integers(len(self), size=own.size)  # (b * m,)
        while (refused := np.flatnonzero(self._is_refused(own, drawn))).size:
            drawn[refused] = generator.integers(len(self), size=refused.size)
        return drawn.reshape(-1, n_negatives)

    def _is_refused(self, own: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
        labels = self._labels[own]
        refused: NDArray[np.bool_] = (own == drawn) | (labels >= 0) & (
            labels == self._labels[drawn]
        )
        return refused


class LabeledPool:
    """Gives labeled anchors labeled images of other classes for a share of their negatives (A.11).

    Args:
        pool: Where all other negatives are drawn from.
        known_labels: Shape ``(n,)``, int64, -1 where unknown.
        share: Chance of each negative of a labeled anchor to be a labeled image, in [0, 1].

    Raises:
        ValueError: If the share is out of range, shapes differ, or labels are of one class only.
    """

    def __init__(self, pool: NegativePool, known_labels: NDArray[np.int64], *, share: float):
        if not 0 <= share <= 1:
            raise ValueError(f"labeled_share must be from 0 to 1, got {share}")
        check_known_labels(known_labels, len(pool))
        self._pool, self._share = pool, share
        self._groups = LabelGroups(known_labels)
        is_labeled = self._groups.is_labeled
        if not is_labeled.any() or not self._groups.n_others[is_labeled].all():
            n_classes = len(np.unique(known_labels[is_labeled]))
            raise ValueError(
                f"labeled negatives must come from at least 2 labeled classes, got {n_classes}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._pool)

    def draw(
        self, anchors: NDArray[np.int64], n_negatives: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """Draw negatives ``(b, n_negatives)`` of anchors ``(b,)``, with replacement."""
        drawn = self._pool.draw(anchors, n_negatives, generator)  # (b, m)
        own = np.broadcast_to(anchors[:, None], drawn.shape)  # (b, m)
        is_replaced = generator.random(drawn.shape) < self._share  # (b, m)
        is_replaced &= self._groups.is_labeled[own]
        uniform = generator.random(int(is_replaced.sum()))
        drawn[is_replaced] = self._groups.draw_other(own[is_replaced], uniform)
        return drawn


def index_negatives(
    pool: NegativePool,
    *,
    n_negatives: int,
    generator: np.random.Generator,
    block_size: int | None = None,
) -> NDArray[np.int64]:
    """Draw negatives of every image uniformly, with replacement (UNIC, Eq. 3).

    Args:
        pool: What they are drawn from, for all images in their order.
        n_negatives: Images drawn per anchor, at least 1.
        generator: Source of the draws. From a :class:`unic.neighbors.far_sets.FarPool` the same
            state gives the same negatives whatever the ``block_size``.
        block_size: Anchors between two steps of the progress bar.

    Returns:
        Indices of shape ``(n, n_negatives)``, int64.

    Raises:
        ValueError: If an anchor is left without any image to draw (names the row), or a number
            is off.

    Example:
        >>> pool = RandomPool(np.array([0, 0, 1]))
        >>> negatives = index_negatives(pool, n_negatives=4, generator=np.random.default_rng(0))
        >>> negatives.shape, negatives[0].tolist()
        ((3, 4), [2, 2, 2, 2])
    """
    check_number(n_negatives)
    if block_size is None:
        block_size = _BLOCK_SIZE
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    blocks = [
        np.arange(start, min(start + block_size, len(pool)))
        for start in range(0, len(pool), block_size)
    ]
    indices = np.concatenate(
        [
            pool.draw(anchors, n_negatives, generator)
            for anchors in tqdm(blocks, desc="index_negatives", unit="block", disable=None)
        ]
    )
    logger.info("drew %d negatives of each of %d images", n_negatives, len(pool))
    return indices


def open_pool(
    features: Store,
    neighbors: Store,
    known_labels: Store,
    settings: PoolSettings,
    *,
    device: str | torch.device,
) -> NegativePool:
    """Draw from what the settings say: the far sets or all images, and labeled images of others.

    Args:
        features: Store of the features that were mined.
        neighbors: Store of the neighbors that were mined in them.
        known_labels: Store of the labels that training may know.
        settings: See :class:`PoolSettings`.
        device: Where anchors are ranked in float64, such as ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: If the stores are of different images, the neighbors of other features, or the
            labels do not allow for the settings.
    """
    check_same_images(features, neighbors, known_labels)
    labels = known_labels.read("known_labels")
    pool: NegativePool
    if settings.pool == "all":
        pool = RandomPool(labels, exclude_known_same_label=settings.exclude_known_same_label)
    else:
        mined = neighbors.parameters("neighbors")
        pool = FarPool(
            to_euclidean(features.read("features"), mined["metric"]),
            neighbors.read("far_radius"),
            far_rank=mined["far_rank"],
            is_bound=mined["far_radius"] == "bound",
            known_labels=labels,
            exclude_known_same_label=settings.exclude_known_same_label,
            device=device,
        )
    if settings.labeled_share:
        return LabeledPool(pool, labels, share=settings.labeled_share)
    return pool
