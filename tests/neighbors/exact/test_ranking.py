"""Rows ranked in float64, against a full sort."""

import numpy as np
import pytest
import torch

from tests.rank_reference import random_features
from unic.neighbors.exact.ranking import ExactRows


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_screening_stays_within_its_slack(offset: float, device: str) -> None:
    features = (random_features(100, 48) * 10 + offset).astype(np.float32)
    rows = torch.arange(100, device=device)
    exact = np.square(features.astype(np.longdouble)[:, None] - features).sum(axis=2)
    blocks = ExactRows(features, device=device)
    screened, slack = blocks.screen(rows).cpu().numpy(), blocks.slack(rows).cpu().numpy()
    error = np.abs(screened - exact)[~np.eye(100, dtype=bool)].reshape(100, 99)
    assert (error <= slack).all()
    assert (slack < 1e-9 * exact.max()).all()
