"""Neighbors by faiss, against the exact ones."""

import numpy as np
import pytest
import torch

from tests.rank_reference import clustered_features
from unic.neighbors.faiss import search
from unic.neighbors.mining import mine_neighbors


@pytest.mark.parametrize("engine", ["faiss_flat", "faiss_ivf", "faiss_hnsw"])
def test_faiss_finds_what_its_recall_says(engine: str) -> None:
    pytest.importorskip("faiss")
    features = clustered_features(2000, 32)
    features[100:110] = features[0]
    mined = mine_neighbors(features, n_neighbors=10, far_rank=200, engine=engine)
    exact = mine_neighbors(features, n_neighbors=10, far_rank=200)
    np.testing.assert_array_equal(mined.indices[:, 0], np.arange(2000))
    np.testing.assert_array_equal(mined.far_radius, exact.far_radius)
    assert mined.stats.record()["engine"] == engine
    pairs = zip(mined.indices, exact.indices, strict=True)
    recall = np.mean([len(np.intersect1d(found, true)) / 10 for found, true in pairs])
    assert abs(mined.stats.recall - recall) < 0.05
    assert mined.stats.recall > (0.999 if engine == "faiss_flat" else 0.8)
    assert (np.diff(mined.distances, axis=1) >= 0).all()


def test_faiss_built_for_cpus_takes_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("faiss is built for GPUs")
    features, device = clustered_features(200, 8), torch.device("cuda")
    with pytest.raises(ValueError, match="built for CPUs alone, got faiss_flat on cuda"):
        search(features, 5, engine="faiss_flat", device=device)
    with caplog.at_level("INFO", "unic"):
        found = search(features, 5, engine="faiss_hnsw", device=device)
    assert "faiss_hnsw has no form for a GPU" in caplog.text
    expected = search(features, 5, engine="faiss_hnsw", device="cpu")
    np.testing.assert_array_equal(found[0], expected[0])
