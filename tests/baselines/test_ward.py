import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.baselines.blobs import (
    is_same_partition,
    permute,
    run,
    three_blobs,
)
from unic.baselines import ward
from unic.baselines.ward import cluster, merge, project, ward_of_sample


def random_points(n_points: int, n_dims: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(n_points, n_dims)).astype(np.float32)


def reference_merge(points: NDArray[np.float32], n_clusters: int) -> NDArray[np.int64]:
    """Unite the pair of clusters that raises the sum of squares least, over and over."""

    def spread(rows: list[int]) -> float:
        own = points[rows].astype(np.float64)
        return float(np.square(own - own.mean(axis=0)).sum())

    clusters = [[row] for row in range(len(points))]
    while len(clusters) > n_clusters:
        pairs = [(i, j) for i in range(len(clusters)) for j in range(i)]
        i, j = min(
            pairs,
            key=lambda p: (
                spread(clusters[p[0]] + clusters[p[1]])
                - spread(clusters[p[0]])
                - spread(clusters[p[1]])
            ),
        )
        clusters[j] += clusters.pop(i)
    labels = np.empty(len(points), dtype=np.int64)
    for number, rows in enumerate(sorted(clusters, key=min)):
        labels[rows] = number
    return labels


@pytest.mark.parametrize("n_clusters", [2, 3, 7, 24, 25])
def test_merges_as_plain_loops_do(n_clusters: int) -> None:
    points = random_points(25)
    np.testing.assert_array_equal(merge(points, n_clusters), reference_merge(points, n_clusters))


def test_there_are_k_clusters_among_equal_points_too() -> None:
    points = np.ones((30, 2), dtype=np.float32)
    for n_clusters in (2, 5, 30):
        assert set(merge(points, n_clusters)) == set(range(n_clusters))


def test_coarser_clusters_are_unions_of_finer_ones() -> None:
    points = random_points(200)
    coarse, fine = merge(points, 5), merge(points, 20)
    assert len(set(zip(coarse.tolist(), fine.tolist(), strict=True))) == 20


def test_directions_are_those_of_a_full_decomposition() -> None:
    points = random_points(300, 80) * np.linspace(1, 3, 80, dtype=np.float32)
    found = project({"train": points, "test": points[:20] + np.float32(1)})
    assert found["train"].shape == (300, 64)
    centered = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    basis = np.linalg.svd(centered, full_matrices=False)[2][:64]
    shifted = points[:20] + np.float32(1) - points.mean(axis=0, dtype=np.float64)
    for ours, theirs in ((found["train"], centered @ basis.T), (found["test"], shifted @ basis.T)):
        # The same up to the sign of a direction.
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)


def test_the_rest_of_many_images_goes_to_the_nearest_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, truth = three_blobs()
    monkeypatch.setattr(ward, "MAX_FITTED", 50)
    found = run(cluster, inputs)
    for split in truth:
        assert is_same_partition(found[split][0], truth[split])


def test_refuses_more_clusters_than_it_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward, "MAX_FITTED", 50)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="n_clusters must be at most 50 for Ward, got 51"):
        ward_of_sample(
            {"train": random_points(90)}, n_clusters=51, generator=generator, device="cpu"
        )


# Laws


def test_permuting_images_permutes_the_result() -> None:
    inputs, _ = three_blobs(std=4.0)
    order = np.random.default_rng(1).permutation(240)
    found, permuted = run(cluster, inputs, 7), run(cluster, permute(inputs, order), 7)
    assert is_same_partition(found["train"][0][order], permuted["train"][0])


def test_clusters_of_every_number_up_to_n_are_found() -> None:
    inputs, _ = three_blobs()
    assert sorted(run(cluster, inputs, 240)["train"][0]) == list(range(240))
