"""Operands, whose products stay within the bounds that are proven."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.rank_reference import (
    PRECISIONS,
    clustered_features,
    duplicated_features,
    random_features,
)
from unic.neighbors.exact import operand as operands
from unic.neighbors.exact.operand import BASE, Operand
from unic.neighbors.exact.threads import Room
from unic.neighbors.exact.vectors import LARGEST


def aligned_features(n_images: int, n_dims: int) -> NDArray[np.float32]:
    """All that digits of a byte leave out lies in the direction of the features themselves."""
    signs = np.random.default_rng(1).choice([-1, 1], size=100 * n_dims)
    row = np.where(np.arange(len(signs)) == 0, 127, 19.51 * signs)
    return (np.where(np.arange(n_images) % 2, 1, -1)[:, None] * row).astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "make", [random_features, clustered_features, duplicated_features, aligned_features]
)
def test_products_stay_within_the_bound(make, precision: str) -> None:
    n_images = 8 if make is aligned_features else 300
    features = make(n_images, 200)
    if make is not aligned_features:
        features += np.float32(3)
        features[5] = features.mean(axis=0)
        features[6] *= 20
    operand = Operand(features, np.random.default_rng(0).permutation(n_images), precision)
    every = slice(0, n_images)
    high, low = operand.products(every, every, Room(n_images**2))
    digits = high.numpy().astype(np.float32)
    if low.numel():
        digits += np.float32(1 / BASE) * low.numpy().astype(np.float32)
    scales, half_norms, tops, norms, errors = operand.sides
    products = (scales[:, None] * scales) * digits
    estimates, bounds = half_norms - products, tops - products
    spreads = errors[:, None] * norms + norms[:, None] * errors
    centered = features[operand.order].astype(np.longdouble)
    centered -= features.mean(axis=0, dtype=np.float64)
    centered *= np.sqrt(2 * operand.half_scale)
    truth = np.square(centered).sum(axis=1) / 2 - centered @ centered.T
    assert (estimates - spreads <= truth).all()
    assert (truth <= estimates + spreads + 8 * 2.0**-24 * operand.half_norms).all()
    assert (truth <= bounds + spreads).all()
    assert (np.abs(estimates - truth).max(axis=1) <= operand.slacks(np.arange(n_images)) / 2).all()


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_products_of_digits_are_exact_where_those_of_a_library_saturate(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operands, "has_int8", lambda: False)
    monkeypatch.setattr(operands, "_PREPARED_ROWS", 7)
    features = np.random.default_rng(0).choice([-1, 1], size=(20, 2500)).astype(np.float32)
    features[10:] = features[:10]  # of the largest digits, all of one sign in a product
    operand = Operand(features, np.arange(20), precision)
    coarse, fine = np.split(operand.matrix.numpy().astype(np.int64), [2500], axis=1)
    assert np.abs(coarse).max() == LARGEST
    high, low = operand.products(torch.arange(3, 8), slice(2, 19), Room(5 * 17))
    np.testing.assert_array_equal(high.numpy(), coarse[3:8] @ coarse[2:19].T)
    if precision == "int16":
        expected = coarse[3:8] @ fine[2:19].T + fine[3:8] @ coarse[2:19].T
        np.testing.assert_array_equal(low.numpy(), expected)
