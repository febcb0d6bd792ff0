from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from tests.baselines.blobs import is_same_partition
from unic.baselines.spectral import join_neighbors
from unic.recipe.graphs import count_connections, merge_clusters


def random_graph(n_images: int = 30, seed: int = 0) -> NDArray[np.float64]:
    """Symmetric, a third of all pairs connected, no two weights equal."""
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.uniform(0.5, 2.0, size=(n_images, n_images)), 1)
    weights *= rng.random((n_images, n_images)) < 1 / 3
    return weights + weights.T


def random_clusters(n_clusters: int, n_images: int = 30, seed: int = 1) -> NDArray[np.int64]:
    """No cluster is empty."""
    return np.random.default_rng(seed).permutation(np.arange(n_images) % n_clusters)


def cliques(*sizes: int) -> NDArray[np.float64]:
    """Components in which all are connected."""
    component = np.repeat(np.arange(len(sizes)), sizes)
    weights = (component[:, None] == component).astype(np.float64)
    np.fill_diagonal(weights, 0.0)
    return weights


def reference_merge(
    weights: NDArray[np.float64], clusters: list[int], n_clusters: int
) -> list[set[int]]:
    """Sets of images; all strengths anew, from the weights of single images, at every merge."""
    groups = [{i for i, c in enumerate(clusters) if c == part} for part in sorted(set(clusters))]

    def volume(group: set[int]) -> float:
        return sum(weights[i, j] for i in group for j in range(len(weights)))

    def strength(one: set[int], other: set[int]) -> float:
        between = sum(weights[i, j] for i in one for j in other)
        return between / min(volume(one), volume(other))

    while len(groups) > n_clusters:
        one, other = max(combinations(groups, 2), key=lambda pair: strength(*pair))
        groups = [group for group in groups if group not in (one, other)] + [one | other]
    return groups


def number_groups(groups: list[set[int]]) -> NDArray[np.int64]:
    numbers = {image: number for number, group in enumerate(groups) for image in group}
    return np.array([numbers[image] for image in range(len(numbers))])


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 30])
def test_connections_equal_plain_loops(n_clusters: int) -> None:
    weights, clusters = random_graph(), random_clusters(n_clusters)
    expected = np.zeros((n_clusters, n_clusters))
    for one, other in np.ndindex(weights.shape):
        expected[clusters[one], clusters[other]] += weights[one, other]
    found = count_connections(sp.csr_array(weights), clusters, n_clusters)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 6, 11, 12])
@pytest.mark.parametrize("seed", range(4))
def test_merging_equals_a_plain_greedy_loop(n_clusters: int, seed: int) -> None:
    weights, clusters = random_graph(seed=seed), random_clusters(12, seed=seed)
    found = merge_clusters(sp.csr_array(weights), clusters, n_clusters)
    expected = number_groups(reference_merge(weights, clusters.tolist(), n_clusters))
    assert found.dtype == np.int64
    assert set(found.tolist()) == set(range(n_clusters))
    assert is_same_partition(found, expected)


# Laws


def test_connections_are_symmetric_and_sum_to_volumes() -> None:
    weights, clusters = random_graph(), random_clusters(5)
    found = count_connections(sp.csr_array(weights), clusters, 5)
    np.testing.assert_allclose(found, found.T, rtol=1e-6)
    volumes = np.bincount(clusters, weights=weights.sum(axis=1))
    np.testing.assert_allclose(found.sum(axis=1), volumes, rtol=1e-6)


def test_an_empty_cluster_has_no_connections() -> None:
    clusters = random_clusters(3)
    clusters[clusters == 1] = 2
    found = count_connections(sp.csr_array(random_graph()), clusters, 4)
    assert not found[[1, 3]].any()
    assert not found[:, [1, 3]].any()


def test_merging_knows_no_names_of_parts() -> None:
    graph, clusters = sp.csr_array(random_graph()), random_clusters(10)
    renamed = np.random.default_rng(2).permutation(10)[clusters]
    found, expected = merge_clusters(graph, renamed, 3), merge_clusters(graph, clusters, 3)
    assert is_same_partition(found, expected)


def test_merges_are_nested() -> None:
    graph, clusters = sp.csr_array(random_graph()), random_clusters(12)
    finer = clusters
    for n_clusters in range(11, 0, -1):
        coarser = merge_clusters(graph, clusters, n_clusters)
        assert len(set(zip(finer.tolist(), coarser.tolist(), strict=True))) == n_clusters + 1
        finer = coarser


def test_as_many_parts_as_clusters_are_left_alone() -> None:
    clusters = random_clusters(4)
    found = merge_clusters(sp.csr_array(random_graph()), clusters, 4)
    np.testing.assert_array_equal(found, clusters)


def test_single_images_come_together_to_components_of_unequal_sizes() -> None:
    weights, truth = cliques(20, 5, 2), np.repeat([0, 1, 2], [20, 5, 2])
    order = np.random.default_rng(0).permutation(27)
    graph = sp.csr_array(weights[order][:, order])
    assert is_same_partition(merge_clusters(graph, np.arange(27), 3), truth[order])


def test_parts_of_a_large_class_come_together_before_a_small_class_is_lost() -> None:
    weights, truth = cliques(30, 4), np.repeat([0, 1], [30, 4])
    weights[0, 30] = weights[30, 0] = 1.0  # one connection between the two classes
    parts = np.where(truth == 1, 5, np.arange(34) % 5)
    assert is_same_partition(merge_clusters(sp.csr_array(weights), parts, 2), truth)


def test_merging_leaves_its_inputs_alone() -> None:
    graph, clusters = sp.csr_array(random_graph()), random_clusters(10)
    before = graph.data.tobytes(), clusters.tobytes()
    merge_clusters(graph, clusters, 3)
    assert before == (graph.data.tobytes(), clusters.tobytes())


# Refusals


def test_refuses_clusters_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"column index|exceeds"):
        count_connections(sp.csr_array(random_graph()), random_clusters(5), 4)


def test_refuses_clusters_of_other_images() -> None:
    with pytest.raises(ValueError, match=r"dimension mismatch|mismatch"):
        merge_clusters(sp.csr_array(random_graph()), random_clusters(5)[:-1], 4)


def test_empty_parts_are_not_merged() -> None:
    pairs = np.array([[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]])
    graph = join_neighbors(pairs)
    found = merge_clusters(graph, np.array([0, 0, 1, 1, 3, 3]), 3)
    assert found.tolist() == [0, 0, 1, 1, 2, 2]
