from collections import Counter

import numpy as np
import torch

from tests.baselines.blobs import three_blobs
from unic.baselines.assignment import assign_by_probs, assign_to_means, class_means, vote


def test_means_equal_plain_sums() -> None:
    inputs, truth = three_blobs()
    means = class_means(inputs.features["train"], truth["train"], 3)
    for cluster in range(3):
        rows = [
            r for r, t in zip(inputs.features["train"], truth["train"], strict=True) if t == cluster
        ]
        np.testing.assert_allclose(means[cluster], np.mean(np.float64(rows), axis=0), atol=1e-6)


def test_fitted_rows_keep_their_cluster_and_others_go_to_the_nearest_mean() -> None:
    points = np.float32([[0], [1], [9], [10], [5.4], [5.6]])
    splits = {"train": points, "test": np.float32([[-3], [20]])}
    found = assign_to_means(splits, np.array([0, 1, 1, 0]), np.array([0, 1, 2, 3]), 2, device="cpu")
    assert found["train"][0].tolist()[:4] == [0, 1, 1, 0]
    found = assign_to_means(splits, np.array([1, 1, 0, 0]), np.array([0, 1, 2, 3]), 2, device="cpu")
    assert found["train"][0].tolist() == [1, 1, 0, 0, 0, 0]
    assert found["test"][0].tolist() == [1, 0]
    assert found["test"][1].tolist() == [1.0, 1.0]


def test_votes_equal_plain_counts() -> None:
    rng = np.random.default_rng(0)
    voters, asking = rng.normal(size=(50, 4)), rng.normal(size=(20, 4))
    clusters = rng.integers(5, size=50)
    winners, shares = vote(np.float32(asking), np.float32(voters), clusters, 5, device="cpu")
    for row, image in enumerate(asking):
        cosines = [image @ v / np.linalg.norm(image) / np.linalg.norm(v) for v in voters]
        nearest = sorted(range(50), key=lambda j: -cosines[j])[:10]
        counts = Counter(int(clusters[j]) for j in nearest)
        most = max(counts.values())
        assert winners[row] == min(c for c, count in counts.items() if count == most)
        assert shares[row] == np.float32(most / 10)


def test_fewer_voters_than_ten_all_vote() -> None:
    voters = np.float32([[1, 0], [0, 1], [0.1, 1]])
    winners, shares = vote(voters[:1], voters, np.array([0, 1, 1]), 2, device="cpu")
    assert winners.tolist() == [1]
    assert shares.tolist() == [np.float32(2 / 3)]


def test_the_likeliest_cluster_and_its_probability_are_taken() -> None:
    logits = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    found = assign_by_probs({"train": logits}, lambda rows: rows.softmax(dim=1))
    probs = logits.double().softmax(dim=1).numpy()
    assert found["train"][0].tolist() == probs.argmax(axis=1).tolist()
    np.testing.assert_allclose(found["train"][1], probs.max(axis=1), rtol=1e-6)


def test_a_split_may_be_empty() -> None:
    none = np.empty((0, 2), dtype=np.float32)
    clusters, confidence = vote(none, np.eye(2, dtype=np.float32), np.arange(2), 2, device="cpu")
    assert len(clusters) == len(confidence) == 0
    found = assign_by_probs({"test": torch.empty(0, 3)}, lambda rows: rows.softmax(dim=1))
    assert len(found["test"][0]) == 0
    assert found["test"][0].dtype == np.int64
