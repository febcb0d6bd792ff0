"""Operands, whose products stay within the bounds that are proven."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.rank_reference import (
    PRECISIONS,
    clustered_features,
    duplicated_features,
    random_features,
)
from unic.neighbors.exact.operand import Operand
from unic.neighbors.exact.threads import Room


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
        digits += np.float32(1 / 254) * low.numpy().astype(np.float32)
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
