from itertools import permutations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.recipe.consensus import (
    average,
    match_clusters,
    measure_agreements,
    order_by_labels,
    smooth,
)


def random_probs(
    n_images: int = 40, n_heads: int = 3, n_clusters: int = 4, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_images, n_heads, n_clusters, generator=generator, dtype=torch.float64)
    return (3.0 * logits).softmax(2)


def random_orders(n_heads: int, n_clusters: int, seed: int = 0) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n_clusters) for _ in range(n_heads)])


def rename(probs: Tensor, orders: NDArray[np.int64]) -> Tensor:
    """Cluster ``j`` of each head gets the name ``orders[head, j]``."""
    renamed = torch.empty_like(probs)
    for head, order in enumerate(orders):
        renamed[:, head, order] = probs[:, head]
    return renamed


def reference_orders(probs: Tensor) -> list[list[int]]:
    """Of all permutations the one of the highest shared probability, head by head."""
    n_images, n_heads, n_clusters = probs.shape
    orders = [list(range(n_clusters))]
    for head in range(1, n_heads):
        mean = [
            [
                sum(float(probs[i, former, orders[former][j]]) for former in range(head))
                for j in range(n_clusters)
            ]
            for i in range(n_images)
        ]

        def shared(
            order: tuple[int, ...], head: int = head, mean: list[list[float]] = mean
        ) -> float:
            return sum(
                mean[i][j] * float(probs[i, head, order[j]])
                for i in range(n_images)
                for j in range(n_clusters)
            )

        orders.append(list(max(permutations(range(n_clusters)), key=shared)))
    return orders


def reference_agreements(clusters: NDArray[np.int64], n_clusters: int) -> NDArray[np.float64]:
    """Of clusters ``(n, h)``, by all ways to rename those of one of two heads."""
    n_images, n_heads = clusters.shape
    shares = np.empty((n_heads, n_heads))
    for pair in np.ndindex(n_heads, n_heads):
        one, other = (clusters[:, head].tolist() for head in pair)
        best = max(
            sum(order[left] == right for left, right in zip(one, other, strict=True))
            for order in permutations(range(n_clusters))
        )
        shares[pair] = best / n_images
    return shares


@pytest.mark.parametrize("n_clusters", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_orders_are_the_best_of_all_permutations(n_clusters: int, seed: int) -> None:
    probs = random_probs(20, 4, n_clusters, seed)
    assert match_clusters(probs).tolist() == reference_orders(probs)


@pytest.mark.parametrize(("n_heads", "n_clusters"), [(2, 2), (3, 4), (4, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_agreement_equals_the_best_of_all_permutations(
    n_heads: int, n_clusters: int, seed: int
) -> None:
    probs = random_probs(25, n_heads, n_clusters, seed)
    expected = reference_agreements(probs.argmax(2).numpy(), n_clusters)
    np.testing.assert_allclose(measure_agreements(probs), expected, atol=1e-12)


def test_average_equals_plain_loops() -> None:
    probs, orders = random_probs(), random_orders(3, 4)
    expected = np.zeros((40, 4))
    for image, head, cluster in np.ndindex(40, 3, 4):
        expected[image, cluster] += float(probs[image, head, orders[head, cluster]]) / 3
    np.testing.assert_allclose(average(probs, orders), expected, rtol=1e-12)


def test_smoothing_equals_plain_loops() -> None:
    probs, training = random_probs(30)[:, 0], random_probs(50, seed=1)[:, 0]
    neighbors = np.random.default_rng(0).integers(50, size=(30, 6))
    expected = np.zeros((30, 4))
    for image, cluster in np.ndindex(30, 4):
        expected[image, cluster] = 0.5 * float(probs[image, cluster])
        for neighbor in neighbors[image]:
            expected[image, cluster] += 0.5 * float(training[neighbor, cluster]) / 6
    np.testing.assert_allclose(smooth(probs, training, neighbors), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_labels_have_the_best_of_all_orders(seed: int) -> None:
    probs = random_probs(n_heads=1, seed=seed)[:, 0]  # (n, c)
    known = np.where(np.arange(40) % 3 == 0, 2 * (np.arange(40) % 2), -1)  # of 0 and 2
    order = order_by_labels(probs, known)
    labeled = np.flatnonzero(known >= 0)

    def share(order: tuple[int, ...]) -> float:
        return float(sum(probs[row, order[known[row]]] for row in labeled))

    assert share(tuple(order)) == pytest.approx(max(map(share, permutations(range(4)))))
    assert order[1] < order[3]  # those of no label, as they were
    assert sorted(order) == [0, 1, 2, 3]


# Laws


def test_copies_of_one_head_under_other_names_are_recovered() -> None:
    one = random_probs(50, 1, 8)
    orders = random_orders(6, 8)
    orders[0] = np.arange(8)
    probs = rename(one.expand(-1, 6, -1), orders)
    found = match_clusters(probs)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, orders)
    np.testing.assert_allclose(average(probs, found), one[:, 0], rtol=1e-12)
    assert (measure_agreements(probs) == 1.0).all()


@pytest.mark.parametrize("seed", range(3))
def test_names_of_the_clusters_of_later_heads_do_not_matter(seed: int) -> None:
    probs, orders = random_probs(seed=seed), random_orders(3, 4, seed)
    orders[0] = np.arange(4)
    renamed = rename(probs, orders)
    found = average(renamed, match_clusters(renamed))
    np.testing.assert_allclose(found, average(probs, match_clusters(probs)), rtol=1e-12)


def test_other_names_of_the_first_head_rename_the_consensus() -> None:
    probs, order = random_probs(), np.array([2, 0, 3, 1])
    renamed = rename(probs, np.stack([order, *random_orders(2, 4)]))
    found = average(renamed, match_clusters(renamed))
    expected = average(probs, match_clusters(probs))
    np.testing.assert_allclose(found[:, order], expected, rtol=1e-12)


def test_agreements_know_no_names_and_follow_the_order() -> None:
    probs = random_probs(n_heads=4)
    expected = measure_agreements(probs)
    assert expected.mean() < 0.8
    renamed = rename(probs, random_orders(4, 4))
    np.testing.assert_allclose(measure_agreements(renamed), expected, rtol=1e-12)
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(
        measure_agreements(probs[:, order]), expected[np.ix_(order, order)]
    )


def test_duplicates_of_all_images_change_nothing() -> None:
    probs = random_probs()
    twice = probs.repeat_interleave(2, dim=0)
    np.testing.assert_array_equal(match_clusters(twice), match_clusters(probs))
    np.testing.assert_allclose(measure_agreements(twice), measure_agreements(probs), rtol=1e-12)


def test_orders_are_permutations_also_of_clusters_that_are_empty() -> None:
    probs = random_probs(n_clusters=5)
    probs[:, 1:, 3:] = 0.0
    assert np.sort(match_clusters(probs), axis=1).tolist() == [list(range(5))] * 3


def test_a_single_head_is_its_own_consensus() -> None:
    probs = random_probs(n_heads=1)
    orders = match_clusters(probs)
    assert orders.tolist() == [[0, 1, 2, 3]]
    assert average(probs, orders).equal(probs[:, 0])
    assert measure_agreements(probs).tolist() == [[1.0]]


def test_a_cluster_that_one_head_lacks_costs_its_images() -> None:
    one = torch.eye(3)[torch.arange(30) % 3]
    other = torch.eye(3)[(torch.arange(30) % 3).clamp(max=1)]
    found = measure_agreements(torch.stack([one, other], dim=1))
    np.testing.assert_allclose(found, [[1, 2 / 3], [2 / 3, 1]])


def test_consensus_and_smoothing_are_distributions() -> None:
    probs = random_probs()
    mean = average(probs, match_clusters(probs))
    neighbors = np.random.default_rng(0).integers(40, size=(40, 5))
    for each in (mean, smooth(mean, mean, neighbors)):
        assert each.min() >= 0.0
        np.testing.assert_allclose(each.sum(1), 1.0, rtol=1e-12)


def test_neighbors_like_the_image_itself_change_nothing() -> None:
    probs = random_probs()[:, 0]
    own = np.repeat(np.arange(40)[:, None], 3, axis=1)
    np.testing.assert_allclose(smooth(probs, probs, own), probs, rtol=1e-12)


def test_inputs_are_left_alone() -> None:
    probs, orders = random_probs(), random_orders(3, 4)
    before = probs.clone()
    match_clusters(probs)
    measure_agreements(probs)
    smooth(average(probs, orders), probs[:, 0], np.zeros((40, 2), dtype=np.int64))
    assert probs.equal(before)


# Refusals


def test_refuses_neighbors_that_are_no_training_images() -> None:
    probs = random_probs()[:, 0]
    with pytest.raises(IndexError, match=r"index 40 is out of bounds"):
        smooth(probs, probs, np.full((40, 2), 40))


def test_refuses_orders_of_clusters_that_are_not() -> None:
    with pytest.raises(RuntimeError, match=r"index 4 is out of bounds"):
        average(random_probs(), np.full((3, 4), 4))
