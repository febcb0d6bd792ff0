import re

import numpy as np
import pytest

from tests.maps.made import blobs, rank_all
from unic.maps.graph import check_indices, join_both_ways, list_neighbors, renumber


def test_images_are_joined_to_those_they_list_and_those_that_list_them() -> None:
    indices = rank_all(blobs(60), 6)
    listed = list_neighbors(indices, n_neighbors=4)
    assert listed.dtype == np.int32
    graph = join_both_ways(listed)
    for image in range(60):
        found = graph.neighbors[graph.starts[image] : graph.starts[image + 1]].tolist()
        those = [other for other in range(60) for _ in np.flatnonzero(listed[other] == image)]
        assert found == indices[image, 1:5].tolist() + those
    assert graph.starts[-1] == len(graph.neighbors) == 2 * listed.size


def test_short_lists_are_taken_whole() -> None:
    indices = rank_all(blobs(20), 3)
    assert list_neighbors(indices, n_neighbors=9).tolist() == indices[:, 1:].tolist()


def test_renumbered_lists_join_the_same_images() -> None:
    listed = list_neighbors(rank_all(blobs(40), 4), n_neighbors=3)
    order = np.random.default_rng(1).permutation(40)
    renumbered = renumber(listed, order)
    assert order[renumbered].tolist() == listed[order].tolist()
    assert renumbered.dtype == np.int32
    assert renumbered.flags.c_contiguous


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (np.zeros((3, 2)), "int64 array of shape (n, m), n and m at least 2, got float64"),
        (np.zeros(3, dtype=np.int64), "got int64 of shape (3,)"),
        (np.arange(3)[:, None], "n and m at least 2, got int64 of shape (3, 1)"),
        (np.array([[0, 1]]), "got int64 of shape (1, 2)"),
        (np.array([[0, 1], [1, 2]]), "indices must be from 0 to 1, got 0 to 2"),
        (np.array([[0, 1], [1, -1]]), "got -1 to 1"),
        (
            np.array([[0, 1], [0, 1]]),
            "must be the image itself, got 0 in row 1",
        ),
    ],
)
def test_refuses_other_lists(indices: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_indices(indices)
