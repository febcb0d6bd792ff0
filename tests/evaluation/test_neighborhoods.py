import numpy as np
import pytest
from numpy.typing import NDArray

from tests.rank_reference import clustered_features, ranks
from unic.evaluation.neighborhoods import (
    choose_anchors,
    choose_neighborhoods,
    list_members,
    project,
    tabulate_neighborhoods,
)

N_IMAGES, N_NEIGHBORS = 60, 5
FEATURES = clustered_features(N_IMAGES, 4, n_clusters=5)
INDICES = np.argsort(ranks(FEATURES), axis=1)[:, :N_NEIGHBORS]
GROUPS = np.random.default_rng(0).integers(3, size=N_IMAGES)
UNIONS = np.array([len(set(INDICES[row].ravel())) for row in INDICES], dtype=np.int32)


@pytest.mark.parametrize("row", range(0, N_IMAGES, 7))
def test_members_are_the_neighbors_and_theirs(row: int) -> None:
    members = list_members(row, INDICES)
    neighbors = INDICES[row].tolist()
    union = {other for neighbor in neighbors for other in INDICES[neighbor].tolist()}
    assert set(members["row"]) == union
    assert len(members) == len(union)
    assert members["row"].tolist()[:N_NEIGHBORS] == neighbors
    assert members["order"].tolist() == [0] + 4 * [1] + (len(union) - 5) * [2]
    further = members["row"].tolist()[N_NEIGHBORS:]
    assert further == sorted(further)


@pytest.mark.parametrize(
    ("sizes", "eta", "anchors"),
    [
        ([5, 1, 3, 9, 7], 6, (2, 4)),  # of 1, 3, 5 the middle one; of 7, 9 the smaller
        ([4, 4, 4, 8, 8], 6, (1, 3)),  # ties go to lower rows
        ([5, 1, 3], 9, (2, 0)),  # all are kept: the largest union
        ([5, 1, 3], 0, (1, 2)),  # all are discarded: the smallest
        ([3], 3, (0, 0)),
    ],
)
def test_anchors_are_typical(sizes: list[int], eta: int, anchors: tuple[int, int]) -> None:
    assert choose_anchors(np.array(sizes, dtype=np.int32), eta) == anchors


def test_places_are_those_of_the_two_largest_variances() -> None:
    features = FEATURES[:20].astype(np.float64)
    places = project(features)
    values, vectors = np.linalg.eigh(np.cov(features.T))
    expected = (features - features.mean(axis=0)) @ vectors[:, np.argsort(-values)[:2]]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(project(features + 3.0), places, atol=1e-9)


@pytest.mark.parametrize("features", [np.ones((1, 3)), np.ones((4, 3)), np.arange(3.0)[:, None]])
def test_places_may_be_few(features: NDArray[np.float64]) -> None:
    places = project(features)
    assert places.shape == (len(features), 2)
    assert np.isfinite(places).all()


def test_neighborhoods_are_of_the_anchors_in_the_metric() -> None:
    eta = int(np.median(UNIONS))
    found = choose_neighborhoods(
        UNIONS,
        INDICES,
        lambda rows: FEATURES[rows],
        GROUPS,
        metric="cosine",
        max_union_size=eta,
    )
    assert [about.row for about in found] == list(choose_anchors(UNIONS, eta))
    assert [about.is_kept for about in found] == [True, False]
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    for about in found:
        rows = about.members["row"].to_numpy()
        assert about.union_size == len(rows) == UNIONS[about.row]
        alike = [GROUPS[row] == GROUPS[about.row] for row in rows]
        assert about.members["is_alike"].tolist() == alike
        expected = project(unit[rows].astype(np.float64))
        np.testing.assert_allclose(about.members[["x", "y"]], expected, atol=1e-5)
    table = tabulate_neighborhoods(found, [f"{row}.png" for row in range(N_IMAGES)])
    assert len(table) == sum(about.union_size for about in found)
    assert table["image_id"].tolist() == [f"{row}.png" for row in table["row"]]
    assert table.drop_duplicates("anchor")["is_kept"].tolist() == [True, False]
