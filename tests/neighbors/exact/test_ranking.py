"""Rows ranked in float64, against a full sort."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.rank_reference import duplicated_features, random_features, ranks, reference
from unic.neighbors.exact.ranking import ExactRows, Ranked, check_spread


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_screening_stays_within_its_slack(offset: float, device: str) -> None:
    features = (random_features(100, 48) * 10 + offset).astype(np.float32)
    rows = torch.arange(100, device=device)
    exact = np.square(features.astype(np.longdouble)[:, None] - features).sum(axis=2)
    blocks = ExactRows(features, device=device)
    screened, slack = blocks.screen(rows).cpu().numpy(), blocks.slack(rows).cpu().numpy()
    error = np.abs(screened - exact)[~np.eye(100, dtype=bool)].reshape(100, 99)
    assert (error <= slack).all()
    assert (slack < 1e-9 * exact.max()).all()


# Against a full sort


@pytest.mark.parametrize("block_size", [None, 7])
@pytest.mark.parametrize("make", [random_features, duplicated_features])
def test_the_nearest_of_some_rows_are_those_of_a_full_sort(
    make, block_size: int | None, device: str
) -> None:
    features, rows = make(90, 6), np.array([5, 0, 89, 31])
    exact = ExactRows(features, device=device, block_size=block_size)
    indices, distances, far_radius = exact.nearest(rows, n_neighbors=12, far_rank=40)
    expected = reference(features, 12, 40)
    np.testing.assert_array_equal(indices, expected.indices[rows])
    np.testing.assert_allclose(distances, expected.distances[rows], rtol=1e-7)
    np.testing.assert_allclose(far_radius, expected.far_radius[rows], rtol=1e-7)
    assert exact.nearest(rows, n_neighbors=12, far_rank=None)[2].shape == (0,)


@pytest.mark.parametrize("far_rank", [1, 40, 89])
@pytest.mark.parametrize("make", [random_features, duplicated_features])
def test_images_beyond_a_rank_are_those_of_a_full_sort(make, far_rank: int, device: str) -> None:
    features, rows = make(90, 6), np.array([5, 0, 89, 31])
    found = ExactRows(features, device=device).beyond(rows, far_rank)
    np.testing.assert_array_equal(found, ranks(features)[rows] >= far_rank)


@pytest.mark.parametrize("make", [random_features, duplicated_features])
def test_candidates_are_ordered_as_by_a_full_sort(make) -> None:
    features, generator = make(90, 6), np.random.default_rng(0)
    rows, place = np.array([5, 0, 89, 31]), ranks(features)
    candidates = np.array([generator.permutation(90)[:20] for _ in rows])
    candidates[:, 3] = -1  # none
    candidates[:, 7] = np.where((candidates == rows[:, None]).any(1), candidates[:, 7], rows)
    indices, distances = ExactRows(features).order(rows, candidates, 10)
    for row, found, listed, lengths in zip(rows, indices, candidates, distances, strict=True):
        expected = sorted(listed[listed >= 0], key=lambda image: place[row, image])[:10]
        assert found.tolist() == [int(image) for image in expected]
        exact = np.linalg.norm(features[found].astype(np.float64) - features[row], axis=1)
        np.testing.assert_allclose(lengths, exact, rtol=1e-6)


def test_rows_are_taken_with_all_that_is_known_of_them() -> None:
    found = ExactRows(random_features(20, 3)).nearest(np.arange(6), n_neighbors=4, far_rank=9)
    ranked, is_taken = Ranked(np.arange(6), *found), np.array([0, 1, 1, 0, 0, 1], dtype=bool)
    for ours, theirs in zip(ranked.take(is_taken), ranked, strict=True):
        np.testing.assert_array_equal(ours, theirs[[1, 2, 5]])
    without = ranked._replace(far_radius=np.empty(0, dtype=np.float32))
    assert without.take(is_taken).far_radius.shape == (0,)


# Refusals


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((7, 2), dtype=np.float32), "must not be constant, got 7 identical rows"),
        (np.float32([[-2e38, 0], [2e38, 0]]), r"must fit float32, got a spread of 4e\+38"),
    ],
)
def test_refuses_features_without_an_order(features: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_spread(features)
