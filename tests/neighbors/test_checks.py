import re

import numpy as np
import pytest

from unic.neighbors.checks import check_neighbors

NEIGHBORS = np.array([[0, 1], [1, 2], [2, 0]])


def test_passes_neighbors_of_all_images() -> None:
    check_neighbors(NEIGHBORS, 3)


@pytest.mark.parametrize(
    ("neighbors", "message"),
    [
        (NEIGHBORS[:2], "must be an int64 array of shape (n=3, k), got int64 of shape (2, 2)"),
        (NEIGHBORS.astype(np.int32), "must be an int64 array of shape (n=3, k), got int32"),
        (NEIGHBORS[:, :1], "must hold another image beside each image, got shape (3, 1)"),
        (NEIGHBORS + 1, "must be at least 0 and below n=3, got 1 to 3"),
        (NEIGHBORS[:, ::-1], "must have each image itself in column 0, got another there"),
    ],
)
def test_refuses_what_is_none(neighbors: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_neighbors(neighbors, 3)
