import re

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare
from sklearn.datasets import load_digits

from tests.rank_reference import random_features, ranks, redraw, unlabeled
from unic.neighbors.far_sets import FarPool
from unic.neighbors.mining import mine_neighbors
from unic.neighbors.negatives import index_negatives
from unic.training.pairs import FreshNegatives, Pairs, PositiveSampler


def draw(
    features: NDArray[np.float32],
    far_rank: int,
    n_negatives: int,
    *,
    known_labels: NDArray[np.int64] | None = None,
    exclude_known_same_label: bool = True,
    device: str = "cpu",
    block_size: int | None = None,
) -> NDArray[np.int64]:
    neighbors = mine_neighbors(features, n_neighbors=1, far_rank=far_rank)
    sampler = FarPool(
        features,
        neighbors.far_radius,
        far_rank=far_rank,
        known_labels=unlabeled(len(features)) if known_labels is None else known_labels,
        exclude_known_same_label=exclude_known_same_label,
        device=device,
    )
    return index_negatives(
        sampler,
        n_negatives=n_negatives,
        generator=np.random.default_rng(7),
        block_size=block_size,
    )


def one_dim_with_rounded_distances() -> NDArray[np.float32]:
    """Near 1000 images of which many are equally far, in float32, from those near 0."""
    tiny = np.arange(20) * 1e-6
    return np.concatenate([tiny, 1000 + np.arange(20)]).astype(np.float32)[:, None]


# Against ranks by float64


@pytest.mark.parametrize("far_rank", [2, 10, 55, 59])
def test_draws_the_far_set_and_nothing_else(far_rank: int, device: str) -> None:
    features = random_features(60, 5)
    drawn = draw(features, far_rank, 2000, device=device)
    expected = ranks(features) >= far_rank
    for i in range(60):
        assert set(drawn[i].tolist()) == set(np.flatnonzero(expected[i]).tolist())


@pytest.mark.parametrize("far_rank", range(2, 40, 3))
def test_radius_rounded_to_float32_moves_no_image(far_rank: int, device: str) -> None:
    features = one_dim_with_rounded_distances()
    exact = np.abs(features.astype(np.float64) - features.T)
    assert len(np.unique(exact[30])) > len(np.unique(exact[30].astype(np.float32)))
    drawn = draw(features, far_rank, 1500, device=device)
    for i, row in enumerate(ranks(features) >= far_rank):
        assert set(drawn[i].tolist()) == set(np.flatnonzero(row).tolist())


def test_no_negative_within_the_far_rank_on_digits(device: str) -> None:
    features = load_digits().data[:900].astype(np.float32)  # whole numbers: many ties
    drawn = draw(features, 300, 50, device=device)
    assert np.take_along_axis(ranks(features), drawn, axis=1).min() == 300


@pytest.mark.parametrize("far_rank", [2, 3, 10, 39])
def test_duplicates_and_equal_distances_split_by_index(far_rank: int, device: str) -> None:
    features = np.repeat(np.eye(8, dtype=np.float32), 5, axis=0)
    drawn = draw(features, far_rank, 1500, device=device, block_size=7)
    for i, row in enumerate(ranks(features) >= far_rank):
        assert set(drawn[i].tolist()) == set(np.flatnonzero(row).tolist())


@pytest.mark.parametrize("far_rank", [10, 40, 100, 149])
def test_many_copies_split_by_index_too(far_rank: int) -> None:
    # The far rank is within the 60 copies, at their distance from others, or beyond.
    features = np.random.default_rng(0).integers(-9, 10, size=(150, 4)).astype(np.float32)
    features[np.random.default_rng(1).permutation(150)[:60]] = features[7]
    drawn = draw(features, far_rank, 3000)
    for i, row in enumerate(ranks(features) >= far_rank):
        assert set(drawn[i].tolist()) == set(np.flatnonzero(row).tolist())


@pytest.mark.parametrize("scale", [1e-44, 3e-43, 1e-39, 1e-30])
def test_no_negative_of_tiny_features_is_nearer_than_the_far_rank(scale: float) -> None:
    # The radius is rounded to a multiple of 1.4e-45, which may be a tenth of it.
    features = (scale * np.random.default_rng(0).normal(size=(300, 16))).astype(np.float32)
    drawn = draw(features, 60, 200)
    assert np.take_along_axis(ranks(features), drawn, axis=1).min() == 60


# Laws


def test_every_far_image_is_equally_likely() -> None:
    features = random_features(80, 6)
    drawn = draw(features, 30, 5000)
    for i in range(0, 80, 8):
        counts = np.bincount(drawn[i], minlength=80)
        assert chisquare(counts[counts > 0]).pvalue > 1e-4
        assert (counts > 0).sum() == 50
    # Over all anchors the statistic adds up to chi-square with 80 * 49 degrees of freedom.
    statistic = sum(chisquare(np.bincount(row)[np.unique(row)]).statistic for row in drawn)
    assert abs(statistic - 80 * 49) < 4 * np.sqrt(2 * 80 * 49)


@pytest.mark.parametrize("block_size", [1, 7, 200])
def test_block_size_changes_nothing(block_size: int, device: str) -> None:
    features = random_features(100, 9)
    expected = draw(features, 40, 16)
    drawn = draw(features, 40, 16, device=device, block_size=block_size)
    np.testing.assert_array_equal(drawn, expected)


def test_beyond_a_bound_of_the_radius_every_image_is_equally_likely() -> None:
    features = load_digits().data[:300].astype(np.float32)
    exact = mine_neighbors(features, n_neighbors=2, far_rank=60)
    bound = exact.far_radius * np.float32(1.05)
    sampler = FarPool(features, bound, far_rank=60, known_labels=unlabeled(300), is_bound=True)
    drawn = sampler.draw(np.arange(300), 4000, np.random.default_rng(3))
    for row in (0, 17, 299):
        distances = np.sqrt(np.square(features - features[row]).sum(axis=1))
        counts = np.bincount(drawn[row], minlength=300)
        assert (counts > 0).tolist() == (distances > bound[row]).tolist()
        assert chisquare(counts[counts > 0]).pvalue > 1e-3


def test_refuses_a_bound_below_the_radius() -> None:
    features = random_features(50, 8)
    mined = mine_neighbors(features, n_neighbors=2, far_rank=20)
    with pytest.raises(ValueError, match="far_radius must be a bound of the distance at far_rank"):
        FarPool(
            features,
            mined.far_radius * np.float32(0.99),
            far_rank=20,
            known_labels=unlabeled(50),
            is_bound=True,
        )


def test_images_known_to_share_the_label_are_left_out(device: str) -> None:
    features = random_features(60, 5)
    known_labels = np.arange(60, dtype=np.int64) % 4 - 1  # -1, 0, 1, 2
    drawn = draw(features, 20, 2000, known_labels=known_labels, device=device)
    for i, row in enumerate(ranks(features) >= 20):
        if known_labels[i] >= 0:
            row &= known_labels != known_labels[i]
        assert set(drawn[i].tolist()) == set(np.flatnonzero(row).tolist())


def test_labels_change_nothing_when_switched_off() -> None:
    features = random_features(60, 5)
    drawn = draw(
        features,
        20,
        50,
        known_labels=np.arange(60, dtype=np.int64) % 4 - 1,
        exclude_known_same_label=False,
    )
    np.testing.assert_array_equal(drawn, draw(features, 20, 50))


# One negative per anchor, epoch by epoch


def make_sampler(
    features: NDArray[np.float32], far_rank: int, known_labels: NDArray[np.int64] | None = None
) -> FreshNegatives:
    sampler = FarPool(
        features,
        mine_neighbors(features, n_neighbors=1, far_rank=far_rank).far_radius,
        far_rank=far_rank,
        known_labels=unlabeled(len(features)) if known_labels is None else known_labels,
    )
    return FreshNegatives(sampler)


def test_redraws_are_uniform_over_the_far_set() -> None:
    features = random_features(80, 6)
    drawn = redraw(make_sampler(features, 30), 80, 4000)
    is_far = ranks(features) >= 30
    statistic = 0.0
    for i in range(80):
        counts = np.bincount(drawn[i], minlength=80)
        assert (counts[~is_far[i]] == 0).all()
        statistic += chisquare(counts[is_far[i]]).statistic
    assert abs(statistic - 80 * 49) < 4 * np.sqrt(2 * 80 * 49)
    # What an epoch draws says nothing of the next: pairs of epochs are uniform too.
    pairs = np.searchsorted(np.flatnonzero(is_far[0]), drawn[0])  # (e,)
    halves = np.histogram2d(pairs[::2] < 25, pairs[1::2] < 25, bins=2)[0]
    assert chisquare(halves.ravel()).pvalue > 1e-4


def test_no_redraw_is_within_the_far_rank_on_digits() -> None:
    features = load_digits().data[:900].astype(np.float32)  # whole numbers: many ties
    drawn = redraw(make_sampler(features, 300), 900, 30)
    assert np.take_along_axis(ranks(features), drawn, axis=1).min() == 300


def test_redraws_leave_out_images_known_to_share_the_label() -> None:
    features = random_features(60, 5)
    known_labels = np.arange(60, dtype=np.int64) % 4 - 1  # -1, 0, 1, 2
    drawn = redraw(make_sampler(features, 20, known_labels), 60, 2000)
    for i, row in enumerate(ranks(features) >= 20):
        if known_labels[i] >= 0:
            row &= known_labels != known_labels[i]
        assert set(drawn[i].tolist()) == set(np.flatnonzero(row).tolist())


def test_the_same_seed_redraws_the_same() -> None:
    features = random_features(60, 5)
    samplers = make_sampler(features, 20), make_sampler(features, 20)
    first, second = (redraw(sampler, 60, 5) for sampler in samplers)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(redraw(samplers[0], 60, 5), first)  # whatever was drawn before


def test_pairs_of_an_epoch_take_far_images() -> None:
    features = random_features(60, 5)
    itself = PositiveSampler(np.arange(60)[:, None], unlabeled(60))
    pairs = Pairs(itself, make_sampler(features, 20))
    first, same, other = (
        np.concatenate(pairs.draw_epoch(15, np.random.default_rng(seed)), axis=1)
        for seed in (0, 0, 1)
    )  # (3, n) each
    assert (ranks(features)[first[0], first[2]] >= 20).all()
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


# Refusals


def test_refuses_an_anchor_without_negatives() -> None:
    features = random_features(30, 4)
    known_labels = unlabeled(30)
    known_labels[12] = 3
    known_labels[ranks(features)[12] >= 20] = 3
    with pytest.raises(ValueError, match="got none for row 12"):
        draw(features, 20, 5, known_labels=known_labels, block_size=5)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_refuses_a_radius_of_other_features(factor: float) -> None:
    features = random_features(30, 4)
    far_radius = mine_neighbors(features, n_neighbors=1, far_rank=10).far_radius
    far_radius[8] *= factor
    message = re.escape(f"far_rank=10 in these features, got {float(far_radius[8])} for row 8")
    with pytest.raises(ValueError, match=message):
        FarPool(features, far_radius, far_rank=10, known_labels=unlabeled(30))


@pytest.mark.parametrize(
    ("far_radius", "far_rank", "known_labels", "message"),
    [
        (np.ones(29, np.float32), 10, unlabeled(30), "got float32 of shape (29,)"),
        (np.ones(30), 10, unlabeled(30), "far_radius must be a float32 array"),
        (np.full(30, np.nan, np.float32), 10, unlabeled(30), "at least 0, got nan for row 0"),
        (np.ones(30, np.float32), 30, unlabeled(30), "below n=30, got 30"),
        (np.ones(30, np.float32), 1, unlabeled(30), "at least 2 and below n=30, got 1"),
        (np.ones(30, np.float32), 10, unlabeled(31), "got int64 of shape (31,)"),
    ],
)
def test_refuses_arguments_out_of_range(
    far_radius: NDArray[np.float32],
    far_rank: int,
    known_labels: NDArray[np.int64],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FarPool(random_features(30, 4), far_radius, far_rank=far_rank, known_labels=known_labels)


@pytest.mark.parametrize("n_negatives", [0, -1])
def test_refuses_to_draw_none(n_negatives: int) -> None:
    with pytest.raises(ValueError, match=f"n_negatives must be at least 1, got {n_negatives}"):
        draw(random_features(30, 4), 10, n_negatives)
