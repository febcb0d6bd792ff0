import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_array
from sklearn.datasets import make_circles

from tests.baselines.blobs import (
    is_same_partition,
    permute,
    rank,
    run,
    three_blobs,
    with_features,
)
from unic.baselines.spectral import cluster, embed, join_neighbors


def random_neighbors(n_images: int, n_neighbors: int) -> NDArray[np.int64]:
    points = np.random.default_rng(0).normal(size=(n_images, 4)).astype(np.float32)
    return rank(points, n_neighbors)


def reference_laplacian(neighbors: NDArray[np.int64]) -> NDArray[np.float64]:
    """``I - D^-1/2 A D^-1/2`` of the union graph, entry by entry."""
    n = len(neighbors)
    lists = [set(row[1:].tolist()) for row in neighbors]
    joined = [[float(j in lists[i] or i in lists[j]) for j in range(n)] for i in range(n)]
    degrees = [sum(row) for row in joined]
    return np.array(
        [
            [float(i == j) - joined[i][j] / np.sqrt(degrees[i] * degrees[j]) for j in range(n)]
            for i in range(n)
        ]
    )


@pytest.mark.parametrize("n_images", [60, 300])  # all eigenvectors, and those of Lanczos
def test_spans_the_smallest_eigenvectors_of_the_laplacian(n_images: int) -> None:
    neighbors = random_neighbors(n_images, 7)
    laplacian = reference_laplacian(neighbors)
    values, vectors = np.linalg.eigh(laplacian)
    assert values[1] > 1e-3  # one component
    found = embed(join_neighbors(neighbors), 5)
    np.testing.assert_allclose(found @ found.T, vectors[:, :5] @ vectors[:, :5].T, atol=1e-6)
    np.testing.assert_allclose(laplacian @ found, found * values[:5], atol=1e-6)


def test_of_a_graph_in_parts_every_part_has_a_vector() -> None:
    parts = [join_neighbors(random_neighbors(n, 6)) for n in (300, 40, 250, 30)]
    graph = csr_array(block_diag(parts))
    found = embed(graph, 6)
    laplacian = np.eye(620) - _normalize(graph.toarray())
    values, vectors = np.linalg.eigh(laplacian)
    assert np.abs(values[:4]).max() < 1e-9
    np.testing.assert_allclose(found @ found.T, vectors[:, :6] @ vectors[:, :6].T, atol=1e-6)
    owner = np.repeat(np.arange(4), [300, 40, 250, 30])
    for column in found[:, :4].T:
        assert len(set(owner[np.abs(column) > 1e-9])) == 1


def _normalize(joined: NDArray[np.float64]) -> NDArray[np.float64]:
    scales = 1.0 / np.sqrt(joined.sum(axis=1))
    return scales[:, None] * joined * scales


def test_of_too_many_parts_the_largest_have_a_vector() -> None:
    parts = [join_neighbors(random_neighbors(n, 6)) for n in (20, 60, 10, 40)]
    found = embed(csr_array(block_diag(parts)), 2)
    owner = np.repeat(np.arange(4), [20, 60, 10, 40])
    assert set(owner[np.abs(found).sum(axis=1) > 0]) == {1, 3}


def test_an_image_without_neighbors_has_a_row_of_zeros() -> None:
    graph = csr_array(block_diag([join_neighbors(random_neighbors(30, 5)), csr_array((1, 1))]))
    found = embed(graph, 3)
    assert (found[30] == 0).all()
    np.testing.assert_allclose(np.square(found).sum(axis=0), 1.0)


def test_equal_neighbors_in_both_directions_count_once() -> None:
    graph = join_neighbors(np.array([[0, 1], [1, 0], [2, 0]]))
    assert graph.toarray().tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_finds_rings_that_k_means_cannot() -> None:
    points, truth = make_circles(n_samples=400, factor=0.4, noise=0.02, random_state=0)
    inputs = with_features(points[:300].astype(np.float32), points[300:].astype(np.float32))
    found = run(cluster, inputs, 2)
    assert is_same_partition(found["train"][0], truth[:300])


def test_images_of_parts_without_a_vector_are_voted_on() -> None:
    inputs, truth = three_blobs()
    # Six images of one blob that are neighbors of each other alone.
    chosen = np.flatnonzero(truth["train"] == 1)[:6]
    near, ranks = inputs.neighbors.copy(), rank(inputs.features["train"], 240)
    for row in range(240):
        is_chosen = row in chosen
        others = [j for j in ranks[row] if (j in chosen) == is_chosen]
        near[row, 1:] = np.resize(others[1:], near.shape[1] - 1)
    found = run(cluster, inputs._replace(neighbors=near), 3)
    assert is_same_partition(found["train"][0], truth["train"])
    assert (found["train"][1] == 1.0).all()


# Laws


@pytest.mark.parametrize("std", [0.5, 2.0])  # three components, and one
def test_permuting_images_permutes_the_result(std: float) -> None:
    inputs, _ = three_blobs(std)
    order = np.random.default_rng(1).permutation(240)
    found, permuted = run(cluster, inputs), run(cluster, permute(inputs, order))
    assert is_same_partition(found["train"][0][order], permuted["train"][0])


def test_global_random_numbers_do_not_matter() -> None:
    graph = join_neighbors(random_neighbors(300, 7))
    first = embed(graph, 4)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert first.tobytes() == embed(graph, 4).tobytes()
