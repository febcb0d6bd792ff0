"""Neighbors by faiss: flat on a CPU or GPU, inverted lists or graphs for many millions."""

import logging
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from unic.neighbors.exact.ranking import ExactRows

logger = logging.getLogger(__name__)

FaissEngine = Literal["faiss_flat", "faiss_ivf", "faiss_hnsw"]

_SEARCHED = 4096  # rows searched for at a time
_PROBED_LISTS = 32  # of about 4 sqrt(n)
_TRAINING_ROWS = 64  # for each list
_LINKS, _BUILD_BEAM, _SEARCH_BEAM = 32, 80, 128  # of HNSW: recall above 0.98 on clustered features


def search(
    features: NDArray[np.float32],
    n_neighbors: int,
    *,
    engine: FaissEngine,
    device: str | torch.device,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Find neighbors, order them by float64 distance and index, the image itself first.

    Args:
        features: Shape ``(n, d)``, checked.
        n_neighbors: tau_1 of the paper.
        engine: Kind of the index.
        device: Where the index lies; ``faiss_hnsw`` is always on the CPU, which is logged.

    Returns:
        Indices ``(n, k)`` int64, distances ``(n, k)`` float32, and the rows ``(m,)`` for which
        faiss found too few images; theirs are not filled.

    Raises:
        ValueError: If there is no such engine, or the device is a GPU that faiss cannot use.
    """
    if engine not in get_args(FaissEngine):
        raise ValueError(f"engine must be exact or one of {get_args(FaissEngine)}, got {engine}")
    centered = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)  # (n, d)
    index = _build(centered, engine, torch.device(device))
    n_images = len(features)
    indices = np.empty((n_images, n_neighbors), dtype=np.int64)
    distances = np.empty((n_images, n_neighbors), dtype=np.float32)
    missing = [np.empty(0, dtype=np.int64)]
    exact = ExactRows(features)
    for start in range(0, n_images, _SEARCHED):
        rows = np.arange(start, min(start + _SEARCHED, n_images))  # (b,)
        # One more than sought: with duplicates about, the image itself may not be among the first.
        found = index.search(centered[rows], min(n_neighbors + 1, n_images))[1]  # (b, k + 1)
        found[found == rows[:, None]] = -1
        found = np.concatenate([rows[:, None], found], axis=1)  # (b, k + 2)
        is_short = (found >= 0).sum(axis=1) < n_neighbors  # (b,)
        missing.append(rows[is_short])
        kept = rows[~is_short]
        indices[kept], distances[kept] = exact.order(kept, found[~is_short], n_neighbors)
    return indices, distances, np.concatenate(missing)


def _build(features: NDArray[np.float32], engine: FaissEngine, device: torch.device) -> Any:
    import faiss  # optional, and slow to import

    faiss.omp_set_num_threads(torch.get_num_threads())
    n_images, n_dims = features.shape
    index: Any
    if engine == "faiss_hnsw":
        if device.type != "cpu":
            logger.info("faiss_hnsw has no form for a GPU: its graph is searched on the CPU")
        index = faiss.IndexHNSWFlat(n_dims, _LINKS)
        index.hnsw.efConstruction = _BUILD_BEAM
        index.hnsw.efSearch = _SEARCH_BEAM
    elif engine == "faiss_ivf":
        n_lists = max(1, min(int(4 * n_images**0.5), n_images // 39))
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(n_dims), n_dims, n_lists)
        index.nprobe = min(_PROBED_LISTS, n_lists)
    else:
        index = faiss.IndexFlatL2(n_dims)
    if device.type == "cuda" and engine != "faiss_hnsw":
        if not hasattr(faiss, "StandardGpuResources"):
            raise ValueError(
                f"engine must be exact, or the device cpu, where faiss is built for CPUs alone, "
                f"got {engine} on {device}"
            )
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index)
    if not index.is_trained:
        stride = max(1, n_images // (_TRAINING_ROWS * n_lists))
        index.train(np.ascontiguousarray(features[::stride]))
    index.add(features)
    return index
