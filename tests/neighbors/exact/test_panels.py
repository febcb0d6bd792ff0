"""Panels, against rows ranked in float64."""

import numpy as np
import pytest
import torch

from tests.rank_reference import (
    assert_exact,
    clustered_features,
    duplicated_features,
    random_features,
)
from unic.neighbors.exact.panels import rank_panels
from unic.neighbors.exact.ranking import Ranked
from unic.neighbors.exact.specials import find_specials
from unic.neighbors.mining import MiningStats, Neighbors

EXACT = MiningStats("exact", "float64", 0, 0, 0, 1.0, 0, 0)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-40, 1e18])
@pytest.mark.parametrize("make", [random_features, clustered_features, duplicated_features])
def test_panels_are_exact(make, scale: float, device: str) -> None:
    # On a CPU the same products in float32 stand in for those of tensor cores.
    features = ((make(700, 48) + 2) * scale).astype(np.float32)
    found: list[Ranked] = []
    rank_panels(
        features,
        np.arange(700),
        specials=find_specials(features),
        n_neighbors=20,
        far_rank=300,
        device=torch.device(device),
        block_size=64,
        keep=found.append,
    )
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    order = np.argsort(columns[0])
    mined = Neighbors(*(column[order] for column in columns[1:]), EXACT)
    assert_exact(mined, features, 300)
