"""Levels of centers above those of semi-supervised k-means; laws of all methods: test_methods."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.baselines.blobs import is_same_partition
from unic.baselines.hierarchical_kmeans import add_levels, cluster
from unic.baselines.methods import MethodInputs


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def four_in_two() -> NDArray[np.float32]:
    """Two pairs of near directions, far from each other."""
    return unit(np.array([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [0.0, 0.1, 1.0], [0.0, -0.1, 1.0]]))


def test_levels_equal_the_written_sum() -> None:
    centers = four_in_two()
    pairs = unit(np.stack([centers[:2].mean(axis=0), centers[2:].mean(axis=0)]).astype(np.float64))
    expected = centers + 0.5 * pairs[[0, 0, 1, 1]]
    np.testing.assert_allclose(add_levels(centers, generator=seeded()), expected, rtol=1e-6)


@pytest.mark.parametrize("n_centers", [2, 3])
def test_two_or_three_centers_have_no_level_above(n_centers: int) -> None:
    centers = four_in_two()[:n_centers]
    np.testing.assert_allclose(add_levels(3 * centers, generator=seeded()), centers, rtol=1e-6)


def test_labeled_images_keep_their_cluster_and_name_it() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 4
    points = (10 * np.eye(4, 9)[truth] + rng.normal(scale=0.5, size=(120, 9))).astype(np.float32)
    known = np.where((truth < 2) & (np.arange(120) < 60), 1 - truth, -1)
    known[0] = 1 - known[0]  # a wrong label is kept, too
    neighbors = np.stack([np.arange(120), (np.arange(120) + 4) % 120], axis=1)
    inputs = MethodInputs({"train": points}, neighbors, known)
    clusters = cluster(inputs, n_clusters=4, generator=seeded(), device="cpu")["train"][0]
    assert clusters[known >= 0].tolist() == known[known >= 0].tolist()
    assert is_same_partition(clusters[1:], truth[1:])
    assert clusters[5] == 0
