import numpy as np
import pytest
from numpy.typing import NDArray

from unic.neighbors.far_pairs import FarPairs

N_IMAGES, FAR_RANK = 60, 20
UNLABELED = np.full(N_IMAGES, -1, dtype=np.int64)


def make_features(offset: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    features = np.random.default_rng(seed).normal(size=(N_IMAGES, 7)) + offset
    return features.astype(np.float32)


def distances_of(features: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = features.astype(np.float64)
    return np.sqrt(np.square(exact[:, None] - exact).sum(2))


def radius_of(features: NDArray[np.float32], rank: int = FAR_RANK) -> NDArray[np.float32]:
    return np.sort(distances_of(features), axis=1)[:, rank].astype(np.float32)


def reference(
    features: NDArray[np.float32],
    radius: NDArray[np.float32],
    anchors: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> NDArray[np.bool_]:
    distances, found = distances_of(features), np.zeros((len(anchors), len(anchors)), dtype=bool)
    for i, anchor in enumerate(anchors):
        for j, image in enumerate(anchors):
            is_same = labels[anchor] >= 0 and labels[anchor] == labels[image]
            found[i, j] = np.float32(distances[anchor, image]) > radius[anchor] and not is_same
    return found


def test_far_pairs_are_found_far_from_the_origin() -> None:
    # Noise of 1e-2 in the company of lengths of 1e4, of whose squares float64 loses 1e-8.
    features = (1e4 + 1e-2 * np.random.default_rng(0).normal(size=(N_IMAGES, 7))).astype(np.float32)
    radius = radius_of(features)
    anchors = np.arange(N_IMAGES)
    found = FarPairs(features, radius, known_labels=UNLABELED).is_far(anchors).numpy()
    np.testing.assert_array_equal(found, reference(features, radius, anchors, UNLABELED))
    assert found.sum() > 1000


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_far_pairs_are_those_of_plain_loops(offset: float) -> None:
    features = make_features(offset)
    labels = UNLABELED.copy()
    labels[::3] = np.arange(20) % 4
    radius = radius_of(features)
    pairs = FarPairs(features, radius, known_labels=labels)
    anchors = np.random.default_rng(1).permutation(N_IMAGES)[:40]
    found = pairs.is_far(anchors).numpy()
    np.testing.assert_array_equal(found, reference(features, radius, anchors, labels))
    assert 0.3 < found.mean() < 0.8


def test_each_image_has_all_of_its_far_set_but_the_edge() -> None:
    features = make_features()
    pairs = FarPairs(features, radius_of(features), known_labels=UNLABELED)
    is_far = pairs.is_far(np.arange(N_IMAGES)).numpy()
    ranks = distances_of(features).argsort(axis=1).argsort(axis=1)
    np.testing.assert_array_equal(is_far, ranks > FAR_RANK)


def test_the_order_of_the_anchors_only_permutes() -> None:
    features = make_features()
    pairs = FarPairs(features, radius_of(features), known_labels=UNLABELED)
    order = np.random.default_rng(2).permutation(N_IMAGES)
    whole = pairs.is_far(np.arange(N_IMAGES)).numpy()
    np.testing.assert_array_equal(pairs.is_far(order).numpy(), whole[np.ix_(order, order)])


def test_an_image_and_its_duplicates_are_not_far_from_it() -> None:
    features = make_features(offset=300.0)
    features[10:40] = features[10]  # more duplicates than the far rank
    radius = radius_of(features)
    assert (radius[10:40] == 0).all()
    is_far = FarPairs(features, radius, known_labels=UNLABELED).is_far(np.arange(N_IMAGES)).numpy()
    assert not is_far[10:40, 10:40].any()
    assert is_far[10, :10].all()
    assert not is_far.diagonal().any()


def test_images_known_to_share_a_label_are_far_only_if_asked_for() -> None:
    features, labels = make_features(), np.arange(N_IMAGES) % 2
    radius = np.zeros(N_IMAGES, dtype=np.float32)
    anchors = np.arange(N_IMAGES)
    kept = FarPairs(features, radius, known_labels=labels).is_far(anchors).numpy()
    np.testing.assert_array_equal(kept, labels[:, None] != labels)
    every = FarPairs(features, radius, known_labels=labels, exclude_known_same_label=False)
    np.testing.assert_array_equal(every.is_far(anchors).numpy(), ~np.eye(N_IMAGES, dtype=bool))


def test_refuses_other_numbers_of_images() -> None:
    features = make_features()
    with pytest.raises(ValueError, match=r"got \(60, 7\) and \(59,\)"):
        FarPairs(features, radius_of(features)[1:], known_labels=UNLABELED)
