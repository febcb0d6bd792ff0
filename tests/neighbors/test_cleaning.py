import re
from itertools import pairwise

import numba
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.rank_reference import digits_lists, unlabeled
from unic.neighbors.cleaning import (
    _sort_unions,
    clean_neighbors,
    reciprocity,
    union_size_quantile,
    union_sizes,
)
from unic.training.pairs import PositiveSampler


def random_lists(n_images: int, n_neighbors: int) -> NDArray[np.int64]:
    """Lists of distinct images, the image itself first, drawn from the 2 k that follow it."""
    generator = np.random.default_rng(0)
    steps = [
        generator.choice(2 * n_neighbors, n_neighbors - 1, replace=False) for _ in range(n_images)
    ]
    others = (np.arange(n_images)[:, None] + 1 + np.array(steps)) % n_images
    return np.column_stack([np.arange(n_images), others])


def reference_unions(indices: NDArray[np.int64]) -> list[set[int]]:
    lists = indices.tolist()
    return [set().union(*(lists[j] for j in row)) for row in lists]


# Against sets


@pytest.mark.parametrize("indices", [random_lists(200, 8), random_lists(50, 2), digits_lists()])
def test_union_sizes_equal_those_of_sets(indices: NDArray[np.int64]) -> None:
    sizes = union_sizes(indices)
    assert sizes.dtype == np.int32
    assert sizes.tolist() == [len(union) for union in reference_unions(indices)]


@pytest.mark.parametrize("indices", [random_lists(200, 8), random_lists(50, 2), digits_lists()])
@pytest.mark.parametrize("block_size", [1, 33, None])
def test_sorted_unions_equal_those_of_sets(
    indices: NDArray[np.int64], block_size: int | None
) -> None:
    sizes = _sort_unions(indices, torch.device("cpu"), block_size)
    assert sizes.dtype == np.int32
    assert sizes.tolist() == [len(union) for union in reference_unions(indices)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("n_neighbors", [1, 2, 50, 200])
def test_a_gpu_counts_the_same_unions(n_neighbors: int) -> None:
    indices = random_lists(30_000, n_neighbors)
    np.testing.assert_array_equal(union_sizes(indices, device="cuda"), union_sizes(indices))


def test_cleaning_keeps_small_unions_and_leaves_the_rest_to_themselves() -> None:
    indices = digits_lists()
    positives = clean_neighbors(indices, max_union_size=30, known_labels=unlabeled(600))
    for i, union in enumerate(reference_unions(indices)):
        assert positives.union_size[i] == len(union)
        assert positives.is_clean[i] == (len(union) <= 30)
        expected = indices[i].tolist() if len(union) <= 30 else [i] * 10
        assert positives.indices[i].tolist() == expected
    np.testing.assert_array_equal(positives.reciprocity, reciprocity(indices))
    assert positives.max_union_size == 30
    assert 0 < positives.is_clean.sum() < 600


# Laws


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_change_nothing(n_threads: int) -> None:
    indices = random_lists(700, 8)  # more rows than a byte counts
    before = numba.get_num_threads()
    numba.set_num_threads(min(n_threads, before))
    try:
        sizes = union_sizes(indices)
    finally:
        numba.set_num_threads(before)
    assert sizes.tolist() == [len(union) for union in reference_unions(indices)]


def test_one_neighbor_is_a_union_of_one() -> None:
    assert union_sizes(np.arange(5)[:, None]).tolist() == [1] * 5


def test_a_closed_group_has_a_union_of_its_own_size() -> None:
    groups = np.arange(20).reshape(4, 5)
    indices = np.array([np.roll(groups[i // 5], -(i % 5)) for i in range(20)])
    assert union_sizes(indices).tolist() == [5] * 20


def test_a_larger_eta_keeps_more() -> None:
    indices, labels = digits_lists(), unlabeled(600)
    kept = [
        clean_neighbors(indices, max_union_size=eta, known_labels=labels).is_clean
        for eta in (1, 20, 30, 40, 100)
    ]
    assert all((small <= large).all() for small, large in pairwise(kept))
    assert not kept[0].any()
    assert kept[-1].all()


def test_known_labels_do_not_change_the_cleaning() -> None:
    indices = digits_lists()
    labeled = np.arange(600, dtype=np.int64) % 7 - 1
    ours = clean_neighbors(indices, max_union_size=30, known_labels=labeled)
    theirs = clean_neighbors(indices, max_union_size=30, known_labels=unlabeled(600))
    np.testing.assert_array_equal(ours.indices, theirs.indices)


@pytest.mark.parametrize("quantile", [0.01, 0.25, 0.5, 0.9, 1.0])
def test_the_quantile_is_the_least_size_that_keeps_the_share(quantile: float) -> None:
    sizes = union_sizes(digits_lists())
    eta = union_size_quantile(sizes, quantile)
    assert (sizes <= eta).mean() >= quantile
    assert (sizes < eta).mean() < quantile


@pytest.mark.parametrize("quantile", [0.1, 0.8, 1.0])
def test_cleaning_by_quantile_is_cleaning_by_the_eta_it_chooses(quantile: float) -> None:
    indices, labels = digits_lists(), unlabeled(600)
    chosen = clean_neighbors(indices, quantile=quantile, known_labels=labels)
    eta = union_size_quantile(union_sizes(indices), quantile)
    given = clean_neighbors(indices, max_union_size=eta, known_labels=labels)
    assert chosen.max_union_size == eta
    assert chosen.is_clean.mean() >= quantile
    for name, array in chosen.arrays().items():
        np.testing.assert_array_equal(array, given.arrays()[name])


def test_reciprocity_counts_the_neighbors_that_agree() -> None:
    indices = digits_lists()
    lists = [set(row) for row in indices.tolist()]
    expected = [sum(i in lists[j] for j in row[1:]) / 9 for i, row in enumerate(indices.tolist())]
    np.testing.assert_allclose(reciprocity(indices), expected, rtol=1e-6)
    groups = np.arange(20).reshape(4, 5)
    closed = np.array([np.roll(groups[i // 5], -(i % 5)) for i in range(20)])
    np.testing.assert_array_equal(reciprocity(closed), 1.0)
    np.testing.assert_array_equal(reciprocity(np.arange(5)[:, None]), 1.0)


# Refusals


@pytest.mark.parametrize("max_union_size", [0, -3])
def test_refuses_an_eta_below_1(max_union_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"max_union_size must be at least 1, got {max_union_size}"
    ):
        clean_neighbors(
            random_lists(20, 3), max_union_size=max_union_size, known_labels=unlabeled(20)
        )


@pytest.mark.parametrize(("eta", "quantile"), [(None, None), (30, 0.8)])
def test_refuses_both_ways_to_eta_and_none(eta: int | None, quantile: float | None) -> None:
    message = f"exactly one of max_union_size and quantile must be given, got {eta} and {quantile}"
    with pytest.raises(ValueError, match=message):
        clean_neighbors(
            random_lists(20, 3),
            max_union_size=eta,
            quantile=quantile,
            known_labels=unlabeled(20),
        )


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.array([[0, 1], [1, 2]]), "must be from 0 to 1, got [1, 2] in row 1"),
        (np.array([[0, -1], [1, 0]]), "must be from 0 to 1, got [0, -1] in row 0"),
        (np.array([[0, 1], [0, 1]]), "must be the image itself, got 0 in row 1"),
        (np.array([0, 1]), "got int64 of shape (2,)"),
        (np.array([[0.0, 1.0]]), "got float64 of shape (1, 2)"),
        (np.empty((0, 3), dtype=np.int64), "not empty, got int64 of shape (0, 3)"),
    ],
)
def test_refuses_broken_lists(indices: NDArray[np.int64], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        union_sizes(indices)
    with pytest.raises(ValueError, match=re.escape(message)):
        clean_neighbors(indices, max_union_size=3, known_labels=unlabeled(len(indices)))


def test_refuses_labels_of_other_images() -> None:
    indices = random_lists(20, 3)
    with pytest.raises(ValueError, match=re.escape("shape (20,), got int64 of shape (21,)")):
        clean_neighbors(indices, max_union_size=3, known_labels=unlabeled(21))
    positives = clean_neighbors(indices, max_union_size=3, known_labels=unlabeled(20))
    with pytest.raises(ValueError, match=re.escape("shape (20,), got float64 of shape (20,)")):
        PositiveSampler(positives.indices, np.zeros(20))


@pytest.mark.parametrize("quantile", [0.0, -0.1, 1.01])
def test_refuses_a_quantile_out_of_range(quantile: float) -> None:
    with pytest.raises(ValueError, match=f"at most 1, got {quantile}"):
        union_size_quantile(np.ones(3, dtype=np.int32), quantile)
