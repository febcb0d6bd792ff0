"""UMAP, then Ward's hierarchical clustering (Lowe et al., 2024); needs ``unic[rivals]``."""

import logging

import numpy as np
import torch
import umap
from numpy.typing import NDArray

from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs
from unic.baselines.ward import ward_of_sample

logger = logging.getLogger(__name__)

N_DIMS, N_NEIGHBORS, MIN_DIST = 50, 30, 0.0  # Lowe et al., 2024, README of the authors' code
_SEED_BITS = 31


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Reduce raw features to 50 dims by UMAP, merge by Ward's criterion down to K.

    What Lowe et al. (2024) recommend for clustering without training, with their settings:
    Euclidean neighbors of features as they are. UMAP ranks its own 30 neighbors, since those at
    hand may be fewer or by another metric. Known labels are not used.

    New images are placed by ``UMAP.transform`` and go to the nearest class mean among the 50
    dims, as do training images beyond the 20,000 that are merged: Ward's criterion is the growth
    of squared distances to class means. The paper clusters one set and assigns no new images.

    Of few images UMAP has fewer neighbors (``n - 1``) and dims (``n - 2``, which its start
    needs). A seeded UMAP runs on one core.

    Args:
        inputs: Features of all splits.
        n_clusters: K.
        generator: Source of the seed of UMAP.
        device: Where distances to the means are computed; the rest is done on the CPU.

    Returns:
        Clusters of all splits; confidence is 1.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`, or there are
            fewer than 4 training images.
    """
    train = check_inputs(inputs, n_clusters)
    if len(train) < 4:
        raise ValueError(f"n must be at least 4 training images for UMAP, got {len(train)}")
    seed = int(torch.randint(2**_SEED_BITS, (1,), generator=generator))
    reducer = make_reducer(len(train), seed)
    points = {"train": reducer.fit_transform(train).astype(np.float32)}  # (n, p)
    for split in inputs.features.keys() - {"train"}:
        points[split] = _place(reducer, inputs.features[split])
    splits = {split: points[split] for split in inputs.features}
    return ward_of_sample(splits, n_clusters=n_clusters, generator=generator, device=device)


def make_reducer(n_images: int, seed: int) -> umap.UMAP:
    """A UMAP with the settings of the paper, as far as so many images allow."""
    return umap.UMAP(
        n_components=min(N_DIMS, n_images - 2),
        n_neighbors=min(N_NEIGHBORS, n_images - 1),
        min_dist=MIN_DIST,
        metric="euclidean",
        random_state=seed,
        n_jobs=1,  # all that a seed allows
    )


def _place(reducer: umap.UMAP, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coordinates ``(n, p)`` of new images; UMAP does not take a split without any."""
    if not len(features):
        return np.empty((0, reducer.n_components), dtype=np.float32)
    return reducer.transform(features).astype(np.float32)
