from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.neighbors.mining import mine_neighbors
from unic.quality.duplicates import Duplicates, find_duplicates


def points(n_images: int, n_dims: int = 6, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n_images, n_dims)).astype(np.float32)


def find(features: NDArray[np.float32], n_neighbors: int = 10) -> Duplicates:
    mined = mine_neighbors(features, n_neighbors=n_neighbors + 1, far_rank=None)
    return find_duplicates(mined.indices, mined.distances)


def pairs_of(found: Duplicates) -> set[tuple[int, int]]:
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def slow_pairs(features: NDArray[np.float32], n_neighbors: int) -> set[tuple[int, int]]:
    """Pairs of images without exact copies, by the definition, pair by pair."""
    distances = np.linalg.norm(features[:, None].astype(float) - features[None], axis=2)
    ordered = np.sort(distances, axis=1)[:, 1 : n_neighbors + 1]
    depths = [np.mean([np.log(row[-1] / d) for d in row[:-1]]) for row in ordered]
    n_expected_at_1 = len(features) * n_neighbors / 2
    return {
        (i, j)
        for i, j in combinations(range(len(features)), 2)
        for reach in [min(ordered[i, -1], ordered[j, -1])]
        if n_expected_at_1 * (distances[i, j] / reach) ** (1 / np.median(depths)) < 1
    }


def test_near_pairs_are_those_of_the_definition() -> None:
    features = points(120)
    copies = features[:9] + 0.05 * points(9, seed=1)
    features = np.concatenate([features, copies])
    found = find(features)
    assert pairs_of(found) == slow_pairs(features, 10)
    assert pairs_of(found) >= {(i, 120 + i) for i in range(9)}
    assert not found.is_exact.any()


@pytest.mark.parametrize("n_images", [3, 10, 100, 1000])
def test_a_copy_is_found_whatever_the_number_of_images(n_images: int) -> None:
    features = points(n_images)
    features = np.concatenate([features, features[1:2]])
    found = find(features, min(10, n_images))
    exact = found.is_exact
    assert pairs_of(found) >= {(1, n_images)}
    assert exact.sum() == 1
    assert found.ratio[exact] == 0
    assert found.n_expected[exact] == 0


def test_copies_that_rounding_tells_apart_are_exact() -> None:
    features = points(200)
    copy = np.nextafter(features[:1], np.float32(np.inf))
    found = find(np.concatenate([features, copy]))
    assert found.is_exact[0]
    assert (found.first[0], found.second[0]) == (0, 200)


def test_few_pairs_of_ordinary_images_are_listed() -> None:
    n_listed = [
        len(find(points(400, n_dims, seed=seed)).first) for n_dims in (4, 16) for seed in (0, 1, 2)
    ]
    assert np.mean(n_listed) < 3


def test_a_dense_class_is_no_group() -> None:
    dense, wide = 0.01 * points(200) + 5, points(200, seed=1)
    found = find(np.concatenate([dense, wide]))
    assert len(found.first) < 6


def test_a_chain_is_no_group_but_an_image_with_what_is_close_to_it() -> None:
    features = points(300)
    chain = features[:1] + 0.3 * np.arange(8)[:, None] * np.eye(1, 6, dtype=np.float32)
    found = find(np.concatenate([features[1:], chain.astype(np.float32)]))
    pairs = pairs_of(found)
    assert {(row, row + 1) for row in range(299, 306)} <= pairs
    assert len(np.unique(found.groups[299:])) > 1
    for group in range(found.groups.max() + 1):
        members = np.flatnonzero(found.groups == group).tolist()
        assert any(all((min(i, j), max(i, j)) in pairs for j in members if j != i) for i in members)


def test_duplicates_of_many_are_one_group() -> None:
    features = points(60)
    features = np.concatenate([features, np.repeat(features[:1], 40, axis=0)])
    found = find(features)
    assert np.flatnonzero(found.groups == found.groups[0]).tolist() == [0, *range(60, 100)]
    assert found.is_exact.sum() == (found.groups[found.first] == found.groups[0]).sum()


def test_groups_are_numbered_by_their_first_images() -> None:
    features = points(200)
    found = find(np.concatenate([features, features[[7, 3, 7]]]))
    groups = found.groups
    assert groups[[3, 201]].tolist() == [0, 0]
    assert groups[[7, 200, 202]].tolist() == [1, 1, 1]


def test_images_that_are_all_the_same_are_one_group() -> None:
    indices = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])
    found = find_duplicates(indices, np.zeros((3, 3), dtype=np.float32))
    assert found.groups.tolist() == [0, 0, 0]
    assert found.is_exact.all()
    assert np.isfinite(found.ratio).all()


def test_two_images_are_no_duplicates() -> None:
    found = find_duplicates(np.array([[0, 1], [1, 0]]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert found.groups.tolist() == [-1, -1]
    assert len(found.first) == 0


def test_permuted_images_give_permuted_groups() -> None:
    features = points(150)
    features = np.concatenate([features, features[:5], features[3:9] + 0.02 * points(6, seed=1)])
    order = np.random.default_rng(0).permutation(len(features))
    plain, permuted = find(features), find(features[order])
    is_together = plain.groups[:, None] == plain.groups
    assert (
        (permuted.groups[:, None] == permuted.groups) == is_together[np.ix_(order, order)]
    ).all()
    back = {tuple(sorted((order[i], order[j]))) for i, j in pairs_of(permuted)}
    assert back == pairs_of(plain)


@pytest.mark.parametrize("scale", [2.0**-20, 3.0, 1000.0])
def test_scaled_features_have_the_same_duplicates(scale: float) -> None:
    features = np.concatenate([points(150), points(5) + 0.02 * points(5, seed=1)])
    plain, scaled = find(features), find((scale * features).astype(np.float32))
    assert (plain.groups == scaled.groups).all()
    np.testing.assert_allclose(plain.ratio, scaled.ratio, rtol=1e-3)


def test_what_is_wrong_is_refused() -> None:
    indices, distances = np.array([[0, 1], [1, 0]]), np.array([[0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"got shape \(2, 1\)"):
        find_duplicates(indices[:, :1], distances[:, :1])
    with pytest.raises(ValueError, match="got int32 of shape"):
        find_duplicates(indices.astype(np.int32), distances)
    with pytest.raises(ValueError, match="below n=2, got 0 to 5"):
        find_duplicates(np.array([[0, 5], [1, 0]]), distances)
    with pytest.raises(ValueError, match="got 1 in row 0"):
        find_duplicates(indices[::-1].copy(), distances)
    with pytest.raises(ValueError, match="must be finite"):
        find_duplicates(indices, np.array([[0.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="others in row 1"):
        find_duplicates(indices, np.array([[0.0, 1.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="got int64 of shape"):
        find_duplicates(indices, indices)
