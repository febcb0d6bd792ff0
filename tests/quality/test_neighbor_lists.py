import re

import numpy as np
import pytest

from unic.quality.neighbor_lists import check_distances, read_neighbors

INDICES = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]])
DISTANCES = np.array([[0, 1, 3], [0, 1, 2], [0, 2, 3]], dtype=np.float32)


def test_images_are_left_out_of_their_own_lists() -> None:
    lists = read_neighbors(INDICES, DISTANCES)
    assert lists.indices.tolist() == [[1, 2], [0, 2], [1, 0]]
    assert lists.distances.dtype == np.float64
    assert lists.rounding == pytest.approx(1e-3 * np.quantile([3, 2, 3], 0.9))


@pytest.mark.parametrize(
    ("indices", "distances", "message"),
    [
        (INDICES[:, :2], DISTANCES, "indices must be int64 of the shape of distances, (3, 3)"),
        (INDICES + 1, DISTANCES, "indices must be at least 0 and below n=3, got 1 to 3"),
        (INDICES[[1, 0, 2]], DISTANCES, "each image itself in column 0, got 1 in row 0"),
        (INDICES, DISTANCES[:, ::-1].copy(), "distances must ascend in each row"),
        (INDICES, -DISTANCES, "distances must be finite and at least 0"),
        (INDICES[:, :1], DISTANCES[:, :1], "at least 1 row and 2 columns, got shape (3, 1)"),
    ],
)
def test_refuses_what_was_not_mined(
    indices: np.ndarray, distances: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_neighbors(indices, distances)


def test_counts_rows() -> None:
    assert check_distances(DISTANCES, n_columns=3) == 3
    with pytest.raises(ValueError, match=re.escape("must be floats of shape (n, k), got int64")):
        check_distances(INDICES, n_columns=1)
