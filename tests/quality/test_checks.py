import re

import numpy as np
import pytest

from unic.quality.checks import beyond_chance, check_confidence, count_images, find_directed


def test_counts_empty_clusters_too() -> None:
    assert count_images(np.array([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]


def test_features_of_zeros_have_no_direction() -> None:
    rows = np.float32([[0, 0], [0, -1e-40], [1, 0]])
    assert find_directed(rows, 3).tolist() == [False, True, True]


def test_chance_is_zero_and_all_is_one() -> None:
    found = beyond_chance(
        np.array([0.2, 1.0, np.nan, 1.0]), np.array([0.2, 0.2, 0.5, 1.0]), empty=0.0
    )
    np.testing.assert_array_equal(found, [0.0, 1.0, np.nan, 0.0])


@pytest.mark.parametrize(
    ("clusters", "n_clusters", "message"),
    [
        (np.array([0, 3]), 3, "at least 0 and below n_clusters=3, got 0 to 3"),
        (np.array([0.0]), 3, "clusters must be integers of shape (n,), at least one, got float64"),
        (np.array([0]), 0, "n_clusters must be at least 1, got 0"),
    ],
)
def test_refuses_other_clusters(clusters: np.ndarray, n_clusters: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        count_images(clusters, n_clusters)


def test_refuses_rows_and_confidences_out_of_range() -> None:
    rows = np.ones((3, 2), dtype=np.float32)
    rows[1] = np.nan
    with pytest.raises(ValueError, match=r"got 1 rows that are not, the first is row 1"):
        find_directed(rows, 3)
    with pytest.raises(ValueError, match=r"must not be 0 in all of the 3 rows"):
        find_directed(np.zeros((3, 2), dtype=np.float32), 3)
    with pytest.raises(ValueError, match=r"confidence must be in \[0, 1\], got 0.5 to 1.5"):
        check_confidence(np.float32([0.5, 1.5]), 2)
