"""Scores of a map against scikit-learn's."""

import re

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from tests.maps.made import blobs, rank_all
from unic.maps.trustworthiness import score_map


@pytest.mark.parametrize("n_neighbors", [1, 5, 15])
def test_scores_of_all_images_are_those_of_scikit_learn(n_neighbors: int) -> None:
    features = blobs(120)
    positions = (features[:, :2] + 3 * np.random.default_rng(0).normal(size=(120, 2))).astype("f4")
    scores = score_map(positions, rank_all(features, 20), features, n_neighbors=n_neighbors)
    assert scores.n_anchors == 120
    assert scores.n_neighbors == n_neighbors
    expected = trustworthiness(features, positions, n_neighbors=n_neighbors)
    assert scores.trustworthiness == pytest.approx(expected, abs=1e-12)
    expected = trustworthiness(positions, features, n_neighbors=n_neighbors)
    assert scores.continuity == pytest.approx(expected, abs=1e-12)
    assert scores.trustworthiness < 0.95


def test_a_map_that_keeps_distances_is_perfect() -> None:
    positions = np.random.default_rng(0).normal(size=(6000, 2)).astype(np.float32)  # two blocks
    order = np.argsort(np.linalg.norm(positions[:40, None] - positions, axis=2), axis=1)[:, :16]
    indices = np.tile(np.arange(6000)[:, None], (1, 16))
    indices[:40] = order
    features = np.ascontiguousarray(positions @ [[0, 3, 0], [-3, 0, 0]], dtype=np.float32)
    scores = score_map(positions, indices, features)
    assert scores.trustworthiness == 1
    assert scores.n_anchors == 1000


def test_anchors_estimate_the_scores_of_all() -> None:
    features = blobs(1500)
    indices = rank_all(features, 16)
    positions = np.ascontiguousarray(features[:, :2])
    some = score_map(positions, indices, features, n_anchors=400)
    every = score_map(positions, indices, features, n_anchors=1500)
    assert some.n_anchors == 400
    assert some.trustworthiness == pytest.approx(every.trustworthiness, abs=0.02)
    assert some.continuity == pytest.approx(every.continuity, abs=0.02)
    assert some == score_map(positions, indices, features, n_anchors=400)


def test_copies_are_not_nearer_than_each_other() -> None:
    features = np.repeat(blobs(20), 10, axis=0)
    positions = np.repeat(np.random.default_rng(0).normal(size=(20, 2)), 10, axis=0).astype("f4")
    scores = score_map(positions, rank_all(features, 10), features, n_neighbors=9)
    assert scores[:2] == (1, 1)


def test_an_outlier_leaves_the_scores_of_the_others() -> None:
    features, positions = blobs(200), blobs(200)[:, 2:4].copy()
    before = score_map(positions, rank_all(features, 8), features)
    features[3] = 3e38
    after = score_map(positions, rank_all(features, 8), features)
    assert after.trustworthiness == pytest.approx(before.trustworthiness, abs=0.02)


@pytest.mark.parametrize(("n_images", "n_near"), [(3, 1), (4, 1), (7, 3), (40, 4)])
def test_of_few_images_fewer_neighbors_count(n_images: int, n_near: int) -> None:
    features = blobs(n_images)
    scores = score_map(features[:, :2].copy(), rank_all(features, min(5, n_images)), features)
    assert scores.n_neighbors == n_near
    assert 0 <= scores.trustworthiness <= 1


def test_refuses_arrays_of_different_images() -> None:
    features = blobs(20)
    message = "must be of the same images, at least 3, got 19, 20 and 20"
    with pytest.raises(ValueError, match=re.escape(message)):
        score_map(features[:19, :2], rank_all(features, 5), features)
