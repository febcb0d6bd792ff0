"""Pairs: draws of positives and negatives."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare
from sklearn.datasets import load_digits

from tests.rank_reference import digits_lists, redraw, unlabeled
from tests.training.colors import LABELS, N_IMAGES, make_pairs
from unic.neighbors.cleaning import clean_neighbors
from unic.neighbors.negatives import RandomPool
from unic.training.pairs import FreshNegatives, PositiveSampler, StoredNegatives

# Negatives


def test_stored_negatives_are_drawn_uniformly() -> None:
    rows = np.arange(40)[:, None] * 10 + np.arange(8)  # (n, m)
    drawn = redraw(StoredNegatives(rows), 40, 2000)
    assert (drawn // 10 == np.arange(40)[:, None]).all()
    assert chisquare(np.bincount((drawn % 10).ravel())).pvalue > 1e-4


def test_fresh_negatives_are_single_draws_of_the_pool() -> None:
    pool, anchors = RandomPool(unlabeled(30)), np.array([3, 3, 29, 0])
    found = FreshNegatives(pool).sample(anchors, np.random.default_rng(0))
    np.testing.assert_array_equal(found, pool.draw(anchors, 1, np.random.default_rng(0))[:, 0])
    assert (found != anchors).all()


# Positives


def make_sampler() -> tuple[PositiveSampler, NDArray[np.int64], NDArray[np.int64]]:
    indices = digits_lists()
    known_labels = load_digits().target[:600].astype(np.int64) * 10  # labels with gaps
    known_labels[::3] = -1
    known_labels[1] = 5  # alone in its class
    positives = clean_neighbors(indices, max_union_size=30, known_labels=known_labels)
    return PositiveSampler(positives.indices, known_labels), positives.indices, known_labels


def test_labeled_anchors_draw_uniformly_from_their_class() -> None:
    sampler, _, known_labels = make_sampler()
    for anchor in (2, 4, 599 - 599 % 3 + 1):
        drawn = sampler.sample(np.full(20_000, anchor), np.random.default_rng(0))
        members = np.flatnonzero(known_labels == known_labels[anchor])
        assert set(drawn.tolist()) == set(members.tolist())
        assert anchor in drawn
        assert chisquare(np.bincount(drawn)[members]).pvalue > 1e-3


def test_unlabeled_anchors_draw_uniformly_from_their_clean_row() -> None:
    sampler, rows, known_labels = make_sampler()
    is_kept = (rows != np.arange(600)[:, None]).any(axis=1)
    kept = np.flatnonzero(is_kept & (known_labels < 0))[:3]
    for anchor in kept:
        drawn = sampler.sample(np.full(20_000, anchor), np.random.default_rng(0))
        assert set(drawn.tolist()) == set(rows[anchor].tolist())
        assert chisquare(np.bincount(drawn)[np.sort(rows[anchor])]).pvalue > 1e-3


def test_anchors_without_company_draw_themselves() -> None:
    sampler, rows, known_labels = make_sampler()
    discarded = np.flatnonzero((rows == rows[:, :1]).all(axis=1) & (known_labels < 0))
    anchors = np.append(discarded, 1)
    np.testing.assert_array_equal(sampler.sample(anchors, np.random.default_rng(0)), anchors)


def test_a_mixed_batch_serves_each_anchor_by_its_kind() -> None:
    sampler, rows, known_labels = make_sampler()
    anchors = np.random.default_rng(3).permutation(600)
    drawn = sampler.sample(anchors, np.random.default_rng(0))
    assert drawn.dtype == np.int64
    for anchor, positive in zip(anchors, drawn, strict=True):
        if known_labels[anchor] >= 0:
            assert known_labels[positive] == known_labels[anchor]
        else:
            assert positive in rows[anchor]


def test_the_same_seed_draws_the_same() -> None:
    sampler, _, _ = make_sampler()
    first, second = (sampler.sample(np.arange(600), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_sampling_writes_nothing_back() -> None:
    sampler, rows, _ = make_sampler()
    before = rows.copy()
    sampler.sample(np.arange(600), np.random.default_rng(5))
    np.testing.assert_array_equal(rows, before)


def test_clustering_needs_no_label() -> None:
    positives = clean_neighbors(digits_lists(), max_union_size=70, known_labels=unlabeled(600))
    sampler = PositiveSampler(positives.indices, unlabeled(600))
    drawn = sampler.sample(np.arange(600), np.random.default_rng(5))
    assert (positives.indices == drawn[:, None]).any(axis=1).all()


@pytest.mark.parametrize("anchor", [-1, 600])
def test_refuses_anchors_out_of_range(anchor: int) -> None:
    sampler, _, _ = make_sampler()
    with pytest.raises(ValueError, match=f"from 0 to 599, got {anchor}"):
        sampler.sample(np.array([0, anchor]), np.random.default_rng(0))


# Pairs


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(16, [16] * 4), (20, [20] * 3), (64, [64]), (1000, [64])]
)
def test_every_image_is_an_anchor_at_most_once(batch_size: int, sizes: list[int]) -> None:
    batches = make_pairs().draw_epoch(batch_size, np.random.default_rng(0))
    assert [rows.shape for rows in batches] == [(3, size) for size in sizes]
    anchors = np.concatenate([rows[0] for rows in batches])
    assert len(set(anchors.tolist())) == len(anchors)
    assert anchors.tolist() != sorted(anchors.tolist())


def test_positives_and_negatives_are_those_of_the_anchor() -> None:
    pairs = make_pairs()
    seen: set[tuple[int, int]] = set()
    for seed in range(40):
        for anchors, positives, negatives in pairs.draw_epoch(32, np.random.default_rng(seed)):
            assert (LABELS[anchors] == LABELS[positives]).all()
            assert (LABELS[anchors] != LABELS[negatives]).all()
            seen |= set(zip(anchors.tolist(), negatives.tolist(), strict=True))
    assert len({negative for anchor, negative in seen if anchor == 0}) > 20  # redrawn


def test_labeled_anchors_take_positives_of_their_class() -> None:
    known_labels = np.full(N_IMAGES, -1, dtype=np.int64)
    known_labels[[0, 1, 2]] = 7  # of different clean rows
    batches = make_pairs(known_labels).draw_epoch(64, np.random.default_rng(0))
    anchors, positives, _ = batches[0]
    labeled = np.isin(anchors, [0, 1, 2])
    assert set(positives[labeled].tolist()) <= {0, 1, 2}
    assert (LABELS[anchors[~labeled]] == LABELS[positives[~labeled]]).all()


def test_an_image_that_was_dropped_comes_another_epoch() -> None:
    pairs, generator = make_pairs(), np.random.default_rng(0)
    anchors = [np.concatenate([b[0] for b in pairs.draw_epoch(60, generator)]) for _ in range(9)]
    assert set(np.concatenate(anchors).tolist()) == set(range(N_IMAGES))


def test_in_batch_pairs_draw_no_negatives() -> None:
    pairs, drawn = make_pairs(in_batch=True), make_pairs()
    batches = pairs.draw_epoch(16, np.random.default_rng(0))
    assert [rows.shape for rows in batches] == [(2, 16)] * 4
    expected = drawn.draw_epoch(16, np.random.default_rng(0))
    for rows, others in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(rows, others[:2])
        is_far = pairs.find_far(rows[0])
        assert is_far is not None
        np.testing.assert_array_equal(is_far, LABELS[rows[0]][:, None] != LABELS[rows[0]])
    assert drawn.find_far(expected[0][0]) is None


@pytest.mark.parametrize("batch_size", [1, 16, 20, 64, 1000])
def test_batches_are_counted_as_they_are_drawn(batch_size: int) -> None:
    pairs = make_pairs()
    drawn = pairs.draw_epoch(batch_size, np.random.default_rng(0))
    assert pairs.count_batches(batch_size) == len(drawn)
