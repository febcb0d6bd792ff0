import numpy as np
import pytest
from numpy.typing import NDArray

from unic.neighbors.mining import Neighbors, mine_neighbors
from unic.quality import suspects
from unic.quality.suspects import find_suspects


def blobs(*sizes: int, spread: float = 0.5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Classes of these sizes around centers far from each other."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(0).normal(scale=spread, size=(len(labels), 8))
    return (4.0 * np.eye(len(sizes), 8)[labels] + noise).astype(np.float32), labels


def mine(features: NDArray[np.float32], n_neighbors: int = 10) -> Neighbors:
    return mine_neighbors(features, n_neighbors=n_neighbors + 1, far_rank=None)


def find(labels: NDArray[np.int64], mined: Neighbors) -> suspects.Suspects:
    return find_suspects(labels, mined.indices, mined.distances)


def slow_shares(labels: NDArray[np.int64], mined: Neighbors, n_classes: int) -> NDArray[np.float64]:
    """Shares of the votes by the definition, image by image."""
    n_images = len(labels)
    weights = np.zeros((n_images, n_images))
    for row in range(n_images):
        distances = mined.distances[row, 1:].astype(float)
        own = np.exp(-2 * (distances / distances[-1]) ** 2)
        weights[row, mined.indices[row, 1:]] = own / own.sum()
    weights = weights + weights.T
    weights /= weights.sum(axis=1, keepdims=True)
    shares = np.zeros((n_images, n_classes))
    for row in range(n_images):
        voices = weights[row] + sum(weights[row, j] * weights[j] for j in range(n_images))
        for other in range(n_images):
            if other != row and labels[other] >= 0:
                shares[row, labels[other]] += voices[other]
        for c in range(n_classes):
            shares[row, c] /= np.sqrt((labels == c).sum() + (labels[row] != c))
    return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_unknown", [0, 40])
def test_suspects_are_those_of_the_definition(n_unknown: int) -> None:
    features, labels = blobs(40, 30, 20, spread=1.5)
    mined, generator = mine(features), np.random.default_rng(1)
    labels[generator.permutation(90)[:9]] = generator.integers(0, 3, size=9)
    labels[generator.permutation(90)[:n_unknown]] = -1
    shares, is_known = slow_shares(labels, mined, 3), labels >= 0
    own = np.where(is_known, shares[np.arange(90), labels], np.nan)
    sizes = np.bincount(labels[is_known])
    members = np.array(
        [(own[labels == c].sum() + np.nanmean(own)) / (sizes[c] + 1) for c in range(3)]
    )
    others = np.array([shares[is_known & (labels != c), c].mean() for c in range(3)])
    found = find(labels, mined)
    for row in np.flatnonzero(is_known):
        rivals = [c for c in range(3) if c != labels[row]]
        best = max(rivals, key=lambda c: shares[row, c] / (members[c] + others[c]))
        share = shares[row, best]
        assert found.score[row] == pytest.approx((share + 0.05) / (share + own[row] + 0.1))
        limit = (members[best] + others[best]) / 2
        is_suspect = own[row] <= others[labels[row]] and share > max(limit, own[row])
        assert found.is_suspect[row] == is_suspect
        assert found.suggested[row] == (best if share > own[row] else labels[row])


def test_wrong_labels_of_clear_classes_are_found_and_corrected() -> None:
    features, truth = blobs(200, 100, 30, 5)
    labels, wrong = truth.copy(), np.array([0, 50, 210, 250, 305, 331])
    labels[wrong] = [1, 1, 2, 2, 0, 0]
    found = find(labels, mine(features))
    assert np.flatnonzero(found.is_suspect).tolist() == wrong.tolist()
    assert (found.suggested == truth).all()
    assert found.score[wrong].min() > 0.8


def test_right_labels_of_clear_classes_are_no_suspects() -> None:
    features, labels = blobs(100, 20, 5)
    found = find(labels, mine(features))
    assert not found.is_suspect.any()
    assert (found.score < 0.5).all()


def test_the_only_image_of_a_class_is_not_judged_nor_suggested() -> None:
    features, labels = blobs(60, 60)
    labels[0] = 7
    found = find(labels, mine(features))
    assert not found.is_suspect.any()
    assert (found.score[0], found.suggested[0]) == (0, -1)
    assert (found.suggested != 7).all()


@pytest.mark.parametrize("label", [-1, 0, 5])
def test_nothing_is_said_of_one_class_or_none(label: int) -> None:
    features, labels = blobs(20, 20)
    found = find(np.full_like(labels, label), mine(features))
    assert not found.is_suspect.any()
    assert (found.score == 0).all()
    assert (found.suggested == -1).all()


def test_images_without_labels_nearby_are_not_judged() -> None:
    features, labels = blobs(40, 40, 40)
    labels[81:] = -1
    found = find(labels, mine(features))
    assert (found.suggested[80:] == -1).all()
    assert (found.suggested[:80] == labels[:80]).all()


def test_three_images_and_images_that_are_all_the_same_do_not_fail() -> None:
    three = find(np.array([0, 0, 1]), mine(np.eye(3, 4, dtype=np.float32), 2))
    assert not three.is_suspect.any()
    indices = (np.arange(6)[:, None] + np.arange(4)) % 6
    same = find_suspects(np.array([0, 0, 0, 1, 1, 1]), indices, np.zeros((6, 4)))
    assert np.isfinite(same.score).all()


def test_permuted_images_give_permuted_suspects() -> None:
    features, labels = blobs(80, 50, 30, spread=1.5)
    labels[::17] = 0
    order = np.random.default_rng(0).permutation(len(labels))
    plain, permuted = find(labels, mine(features)), find(labels[order], mine(features[order]))
    for value, other in zip(plain, permuted, strict=True):
        np.testing.assert_allclose(value[order], other, rtol=1e-9, atol=1e-12)


def test_scaled_features_have_the_same_suspects() -> None:
    features, labels = blobs(80, 50, 30, spread=1.5)
    labels[::17] = 0
    plain, scaled = find(labels, mine(features)), find(labels, mine(8 * features))
    for value, other in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(value, other)


def test_names_of_classes_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(80, 50, 30, spread=1.5)
    labels[::17] = 0
    mined, names = mine(features), np.array([40, 3, 11])
    plain = find(labels, mined)
    monkeypatch.setattr(suspects, "_BLOCK", 21)
    renamed = find(names[labels], mined)
    np.testing.assert_allclose(plain.score, renamed.score)
    assert (names[plain.suggested] == renamed.suggested).all()
    assert (plain.is_suspect == renamed.is_suspect).all()


def test_what_is_wrong_is_refused() -> None:
    features, labels = blobs(20, 20)
    mined = mine(features)
    with pytest.raises(ValueError, match=r"shape \(40,\), got int64 of shape \(39,\)"):
        find(labels[1:], mined)
    with pytest.raises(ValueError, match="at least -1, got -2 to 1"):
        find(np.where(labels == 0, -2, labels), mined)
    with pytest.raises(ValueError, match="got 1 in row 0"):
        find_suspects(labels, np.roll(mined.indices, -1, axis=0), mined.distances)
