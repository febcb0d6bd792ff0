import numpy as np
import pytest
from numpy.typing import NDArray

from unic.baselines.kmeans_loops import (
    move_members,
    round_to_digits,
    square_digits,
)
from unic.baselines.lloyd import describe
from unic.neighbors.exact.vectors import measure_pairs


def draw(n_rows: int, n_dims: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((n_rows, n_dims)).astype(np.float32)


SHAPES = [(1, 1), (63, 5), (130, 64), (70, 131)]


@pytest.mark.parametrize(("n_rows", "n_dims"), SHAPES)
def test_measures_pairs_and_lengths_in_float64(n_rows: int, n_dims: int) -> None:
    left, right = draw(n_rows, n_dims), draw(7, n_dims)[::-1].copy()
    chosen = np.arange(n_rows) % 7
    difference = left.astype(np.float64) - right[chosen]
    expected = np.square(difference).sum(axis=1)
    found = measure_pairs(left, np.arange(n_rows), right, chosen)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    squares = describe(left, is_int8=False).squares
    np.testing.assert_allclose(squares, np.square(left, dtype=np.float64).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize(("n_rows", "n_dims"), SHAPES)
def test_digits_leave_out_half_a_unit_at_most(n_rows: int, n_dims: int) -> None:
    rows = draw(n_rows, n_dims)
    rows[0] = 0.0
    digits = np.empty(rows.shape, dtype=np.int8)
    scales, residuals = np.empty(n_rows, dtype=np.float32), np.empty(n_rows)
    round_to_digits(rows, digits, scales, residuals)
    assert np.abs(digits.astype(int)).max() <= 127
    np.testing.assert_array_equal(digits[0], 0)
    left_out = rows - (digits * scales[:, None]).astype(np.float64)
    assert (np.abs(left_out) <= 0.5001 * scales[:, None]).all()
    np.testing.assert_allclose(residuals, np.linalg.norm(left_out, axis=1), rtol=1e-4, atol=1e-9)
    lengths = np.empty(n_rows, dtype=np.float32)
    square_digits(digits, scales, lengths)
    expected = np.square(digits * scales[:, None], dtype=np.float64).sum(axis=1)
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)


@pytest.mark.parametrize(("n_points", "n_dims"), SHAPES)
def test_sums_follow_points_that_move(n_points: int, n_dims: int) -> None:
    points, sums = draw(n_points, n_dims), np.zeros((5, n_dims))
    generator = np.random.default_rng(0)
    members = np.full(n_points, -1)
    for _ in range(10):
        labels = generator.integers(5, size=n_points)
        labels[: n_points // 2] = 3
        move_members(points, sums, members, labels)
        members = labels
        expected = [points[labels == c].sum(axis=0, dtype=np.float64) for c in range(5)]
        np.testing.assert_allclose(sums, expected, atol=1e-12 * n_points)
