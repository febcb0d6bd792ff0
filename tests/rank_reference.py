"""Slow and plain: ranks by a full sort in float64, and draws epoch by epoch."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from unic.neighbors.exact.operand import has_fast_digits
from unic.neighbors.exact.ranking import ExactRows
from unic.neighbors.exact.vectors import has_microkernel
from unic.neighbors.mining import MiningStats, Neighbors, mine_neighbors
from unic.training.pairs import NegativeSampler

PRECISIONS = ("int8", "int16", "float32") if has_fast_digits() else ("float32",)
needs_microkernel = pytest.mark.skipif(not has_microkernel(), reason="neither VNNI nor AVX2")
needs_int8 = pytest.mark.skipif(not has_fast_digits(), reason="no fast int8 products")


def random_features(n_images: int, n_dims: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(n_images, n_dims)).astype(np.float32)


def clustered_features(n_images: int, n_dims: int, n_clusters: int = 20) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(n_clusters, n_dims))
    noise = 0.5 * generator.normal(size=(n_images, n_dims))
    return (centers[generator.integers(n_clusters, size=n_images)] + noise).astype(np.float32)


def duplicated_features(n_images: int, n_dims: int) -> NDArray[np.float32]:
    return np.repeat(random_features(-(-n_images // 7), n_dims), 7, axis=0)[:n_images]


def unlabeled(n_images: int) -> NDArray[np.int64]:
    return np.full(n_images, -1, dtype=np.int64)


def ranks(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rank ``(n, n)`` of image j in the list of image i: by itself, float64 distance, index."""
    exact = features.astype(np.float64)
    n_images = len(exact)
    result = np.empty((n_images, n_images), dtype=np.int64)
    for i in range(n_images):
        row = np.square(exact[i] - exact).sum(axis=1)
        order = np.lexsort((np.arange(n_images), row, np.arange(n_images) != i))
        result[i, order] = np.arange(n_images)
    return result


def redraw(sampler: NegativeSampler, n_images: int, n_epochs: int) -> NDArray[np.int64]:
    """Negatives ``(n, e)`` of all images, whose order changes from epoch to epoch."""
    generator = np.random.default_rng(7)
    drawn = np.empty((n_images, n_epochs), dtype=np.int64)
    for epoch in range(n_epochs):
        anchors = generator.permutation(n_images)
        drawn[anchors, epoch] = sampler.sample(anchors, generator)
    return drawn


def reference(features: NDArray[np.float32], n_neighbors: int, far_rank: int) -> Neighbors:
    """Sort all float64 distances of each image by (itself, distance, index)."""
    exact, n_images = features.astype(np.float64), len(features)
    ranked = []
    for i in range(n_images):
        squared = np.square(exact - exact[i]).sum(axis=1)
        order = np.lexsort((np.arange(n_images), squared, np.arange(n_images) != i))
        distances = np.sqrt(squared[order]).astype(np.float32)
        ranked.append((order[:n_neighbors], distances[:n_neighbors], distances[far_rank]))
    columns = [np.array(column) for column in zip(*ranked, strict=True)]
    return Neighbors(*columns, MiningStats("exact", "float64", 0, 0, 0, 1.0, 0, 0))


def assert_same(mined: Neighbors, expected: Neighbors) -> None:
    """Every index and distance is the same."""
    np.testing.assert_array_equal(mined.indices, expected.indices)
    np.testing.assert_array_equal(mined.distances, expected.distances)
    np.testing.assert_array_equal(mined.far_radius, expected.far_radius)


def assert_exact(mined: Neighbors, features: NDArray[np.float32], far_rank: int | None) -> None:
    """Compare up to 800 rows with those by float64, which tests of mining check by a full sort."""
    exact = ExactRows(features)
    for rows in np.array_split(np.arange(len(features))[:: -(-len(features) // 800)], 4):
        n_neighbors = mined.indices.shape[1]
        indices, distances, far_radius = exact.nearest(
            rows, n_neighbors=n_neighbors, far_rank=far_rank
        )
        np.testing.assert_array_equal(mined.indices[rows], indices)
        np.testing.assert_array_equal(mined.distances[rows], distances)
        if far_rank is not None:
            np.testing.assert_array_equal(mined.far_radius[rows], far_radius)


def digits_lists() -> NDArray[np.int64]:
    features = load_digits().data[:600].astype(np.float32)
    return mine_neighbors(features, n_neighbors=10, far_rank=300).indices
