import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from tests.rank_reference import unlabeled
from unic.neighbors.negatives import LabeledPool, RandomPool, index_negatives
from unic.training.pairs import FreshNegatives

HALF_LABELED = np.array([0, 0, 0, 1, 2, 2, -1, -1, -1, -1], dtype=np.int64)


# Random negatives: of all images, listed one by one


@pytest.mark.parametrize("is_excluded", [True, False])
def test_random_negatives_are_uniform_over_all_that_may_be_drawn(is_excluded: bool) -> None:
    sampler = RandomPool(HALF_LABELED, exclude_known_same_label=is_excluded)
    drawn = sampler.draw(np.arange(10), 6000, np.random.default_rng(0))
    for anchor, label in enumerate(HALF_LABELED):
        allowed = [
            image
            for image in range(10)
            if image != anchor and not (is_excluded and label >= 0 and HALF_LABELED[image] == label)
        ]
        counts = np.bincount(drawn[anchor], minlength=10)
        assert np.flatnonzero(counts).tolist() == allowed
        assert chisquare(counts[allowed]).pvalue > 1e-4


def test_random_negatives_of_one_epoch_are_those_of_a_single_draw() -> None:
    sampler = RandomPool(HALF_LABELED)
    anchors = np.array([9, 0, 4])
    drawn = FreshNegatives(sampler).sample(anchors, np.random.default_rng(3))
    np.testing.assert_array_equal(drawn, sampler.draw(anchors, 1, np.random.default_rng(3))[:, 0])


@pytest.mark.parametrize(
    ("known_labels", "message"),
    [([3, 3, 3], "all are known to be of class 3"), ([-1], "at least 2 images, got 1")],
)
def test_refuses_images_without_a_random_negative(
    known_labels: Sequence[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RandomPool(np.array(known_labels, dtype=np.int64))


# Labeled negatives


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_labeled_anchors_get_their_share_of_labeled_negatives(share: float) -> None:
    """Draws from unlabeled images otherwise, so that the two kinds can be told apart."""
    sampler = LabeledPool(OnlyUnlabeled(10), HALF_LABELED, share=share)
    drawn = sampler.draw(np.arange(10), 4000, np.random.default_rng(1))
    for anchor, label in enumerate(HALF_LABELED):
        is_labeled = HALF_LABELED[drawn[anchor]] >= 0
        if label < 0:
            assert not is_labeled.any()
            continue
        others = np.flatnonzero((HALF_LABELED >= 0) & (label != HALF_LABELED))
        assert abs(is_labeled.mean() - share) < 5 * np.sqrt(share * (1 - share) / 4000) + 1e-12
        if share:
            counts = np.bincount(drawn[anchor][is_labeled], minlength=10)
            assert np.flatnonzero(counts).tolist() == others.tolist()
            assert chisquare(counts[others]).pvalue > 1e-4


class OnlyUnlabeled:
    """A pool of the last four images, none of them labeled."""

    def __init__(self, n_images: int) -> None:
        self.n_images = n_images

    def __len__(self) -> int:
        return self.n_images

    def sample(
        self, anchors: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        return self.draw(anchors, 1, generator)[:, 0]

    def draw(
        self, anchors: NDArray[np.int64], n_negatives: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        return generator.integers(6, 10, size=(len(anchors), n_negatives))


@pytest.mark.parametrize(
    ("known_labels", "share", "message"),
    [
        ([0, 0, -1], 0.5, "at least 2 labeled classes, got 1"),
        ([-1, -1, -1], 0.5, "at least 2 labeled classes, got 0"),
        ([0, 1, -1], 1.5, "labeled_share must be from 0 to 1, got 1.5"),
        ([0, 1], 0.5, "shape (3,), got int64 of shape (2,)"),
    ],
)
def test_refuses_labeled_negatives_that_cannot_be(
    known_labels: Sequence[int], share: float, message: str
) -> None:
    labels = np.array(known_labels, dtype=np.int64)
    with pytest.raises(ValueError, match=re.escape(message)):
        LabeledPool(OnlyUnlabeled(3), labels, share=share)


def test_indexed_negatives_are_those_of_the_pool() -> None:
    pool = RandomPool(unlabeled(50))
    indexed = index_negatives(pool, n_negatives=5, generator=np.random.default_rng(2))
    expected = pool.draw(np.arange(50), 5, np.random.default_rng(2))
    np.testing.assert_array_equal(indexed, expected)


@pytest.mark.parametrize(
    ("n_negatives", "block_size", "message"),
    [(0, None, "n_negatives must be at least 1, got 0"), (1, 0, "block_size must be at least 1")],
)
def test_refuses_to_index_nothing(n_negatives: int, block_size: int | None, message: str) -> None:
    pool = RandomPool(unlabeled(5))
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        index_negatives(pool, n_negatives=n_negatives, generator=generator, block_size=block_size)
