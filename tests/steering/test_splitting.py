import numpy as np
import pytest
from numpy.typing import NDArray

from unic.steering import splitting
from unic.steering.splitting import split_images


def make_features(sizes: list[int], seed: int = 0) -> NDArray[np.float32]:
    """Groups of features about directions of their own, beside one that all share."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(len(sizes), 24)) + 8.0
    own = np.repeat(np.arange(len(sizes)), sizes)
    return (centers[own] + 0.3 * generator.normal(size=(sum(sizes), 24))).astype(np.float32)


@pytest.mark.parametrize("sizes", [[40, 30], [60, 9], [30, 25, 20], [12, 11, 10, 9]])
def test_finds_groups_the_largest_first(sizes: list[int]) -> None:
    parts = split_images(make_features(sizes), n_parts=len(sizes), seed=0)
    assert parts.tolist() == np.repeat(np.arange(len(sizes)), sizes).tolist()
    assert parts.dtype == np.int64


def test_the_same_seed_gives_the_same_parts() -> None:
    features = np.random.default_rng(0).normal(size=(80, 16)).astype(np.float32)
    first = split_images(features, n_parts=3, seed=5)
    assert (split_images(features, n_parts=3, seed=5) == first).all()
    assert np.unique(first).tolist() == [0, 1, 2]


def test_the_order_of_the_images_changes_no_group() -> None:
    features = make_features([30, 20, 10])
    order = np.random.default_rng(1).permutation(60)
    parts = split_images(features, n_parts=3, seed=0)
    assert (split_images(features[order], n_parts=3, seed=0) == parts[order]).all()


def test_large_clusters_are_split_by_some_of_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features([300, 200])
    monkeypatch.setattr(splitting, "MAX_FITTED", 100)
    assert (split_images(features, n_parts=2, seed=0) == np.repeat([0, 1], [300, 200])).all()


def test_two_images_are_two_parts() -> None:
    assert sorted(split_images(make_features([1, 1]), n_parts=2, seed=0)) == [0, 1]


def test_the_same_images_stay_together() -> None:
    features = np.repeat(make_features([1, 1]), 6, axis=0)
    parts = split_images(features, n_parts=3, seed=0)
    assert all(len(set(parts[rows].tolist())) == 1 for rows in (slice(6), slice(6, 12)))
    assert parts[0] != parts[6]


@pytest.mark.parametrize(("n_parts", "n_images"), [(1, 9), (0, 9), (10, 9), (2, 1)])
def test_refuses_numbers_that_do_not_fit(n_parts: int, n_images: int) -> None:
    with pytest.raises(ValueError, match=rf"must be in 2 to the {n_images} images, got {n_parts}"):
        split_images(make_features([n_images]), n_parts=n_parts, seed=0)


def test_refuses_images_that_are_all_the_same() -> None:
    with pytest.raises(ValueError, match="must differ in direction"):
        split_images(np.ones((5, 4), dtype=np.float32), n_parts=2, seed=0)
