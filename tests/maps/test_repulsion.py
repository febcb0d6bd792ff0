"""The field of pushes by a grid, against the sum over all pairs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.maps import loops
from unic.maps.repulsion import Repulsion


def by_pairs(positions: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    values, slopes = np.empty(len(positions)), np.empty_like(positions)
    loops.measure_pairs(positions, values, slopes)
    return values - 1.0, slopes


def place(n_images: int, spread: float) -> NDArray[np.float32]:
    generator = np.random.default_rng(0)
    centers = spread * generator.uniform(-1, 1, size=(10, 2))
    return (
        centers[generator.integers(10, size=n_images)]
        + min(spread, 4.0) * generator.normal(size=(n_images, 2))
    ).astype(np.float32)


@pytest.mark.parametrize("spread", [1.0, 30.0, 150.0])
def test_a_grid_gives_nearly_the_sums_over_pairs(spread: float) -> None:
    positions = place(3000, spread)
    values, slopes = Repulsion().measure(positions)
    expected, expected_slopes = by_pairs(positions)
    np.testing.assert_allclose(values, expected, rtol=0.02)
    assert values.sum() == pytest.approx(expected.sum(), rel=1e-3)
    errors = np.linalg.norm(slopes - expected_slopes, axis=1)
    lengths = np.linalg.norm(expected_slopes, axis=1)
    assert errors.max() < 0.04 * lengths.max()
    assert np.median(errors) < 0.02 * np.median(lengths)


def test_images_within_a_cell_push_each_other_about_as_far() -> None:
    positions = place(3000, 1e-4)
    values, slopes = Repulsion().measure(positions)
    expected, expected_slopes = by_pairs(positions)
    np.testing.assert_allclose(values, expected, rtol=0.03)
    np.testing.assert_allclose(slopes, 0.74 * expected_slopes, rtol=0.02, atol=0.01)


def test_a_few_images_are_summed_exactly() -> None:
    positions = place(1000, 20.0)
    values, slopes = Repulsion().measure(positions)
    expected, expected_slopes = by_pairs(positions)
    assert values.tolist() == expected.tolist()
    assert slopes.tolist() == expected_slopes.tolist()


def test_a_wide_map_has_wider_cells_and_far_images_hardly_push() -> None:
    positions = place(2000, 5.0)
    positions[:2] = [[-4e4, 0], [4e4, 100]]
    values, slopes = Repulsion().measure(positions)
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert values[:2] == pytest.approx(0, abs=0.3)


def test_images_in_one_place_do_not_push() -> None:
    values, slopes = Repulsion().measure(np.full((2000, 2), 7.0, dtype=np.float32))
    assert values == pytest.approx(1999, rel=0.03)
    assert np.abs(slopes).max() < 1e-6 * 2000


def test_what_was_measured_before_changes_nothing() -> None:
    used, positions = Repulsion(), place(1500, 10.0)
    for spread in (1.0, 100.0, 10.0):
        used.measure(place(1500, spread))
    np.testing.assert_array_equal(used.measure(positions)[1], Repulsion().measure(positions)[1])
