"""Known labels, and what is refused of them."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.storage.known_labels import UNKNOWN, check_known_labels, labels_told_apart


@pytest.mark.parametrize("labels", [[], [-1, -1], [0, 3, -1], [5, 5]])
def test_labels_that_are_known_or_not_pass(labels: list[int]) -> None:
    known_labels = np.array(labels, dtype=np.int64)
    check_known_labels(known_labels, len(labels))
    check_known_labels(known_labels, len(labels), n_clusters=6)


@pytest.mark.parametrize("is_excluded", [True, False])
def test_negatives_are_told_apart_by_known_labels_or_by_none(is_excluded: bool) -> None:
    known_labels = np.array([2, -1, 0, 2], dtype=np.int64)
    found = labels_told_apart(known_labels, exclude_known_same_label=is_excluded)
    expected = [label if is_excluded else UNKNOWN for label in known_labels.tolist()]
    assert (found.tolist(), found.dtype) == (expected, np.int64)
    np.testing.assert_array_equal(known_labels, [2, -1, 0, 2])  # left alone


@pytest.mark.parametrize(
    ("known_labels", "got"),
    [
        (np.zeros(3, dtype=np.int64), "int64 of shape (3,)"),
        (np.zeros((2, 1), dtype=np.int64), "int64 of shape (2, 1)"),
        (np.zeros(2), "float64 of shape (2,)"),
        (np.zeros(2, dtype=np.int32), "int32 of shape (2,)"),
    ],
)
def test_refuses_what_is_no_label_of_each_image(known_labels: NDArray[np.int64], got: str) -> None:
    message = f"known_labels must be an int64 array of shape (2,), got {got}"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_known_labels(known_labels, 2)


@pytest.mark.parametrize(
    ("labels", "n_clusters", "message"),
    [
        ([0, -2], None, "must be at least -1, got -2 to 0"),
        ([0, -2], 4, "must be at least -1 and below n_clusters=4, got -2 to 0"),
        ([4, 1], 4, "must be at least -1 and below n_clusters=4, got -1 to 4"),
    ],
)
def test_refuses_labels_out_of_range(
    labels: list[int], n_clusters: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_known_labels(np.array(labels, dtype=np.int64), 2, n_clusters=n_clusters)
