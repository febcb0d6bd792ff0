"""Machine code of the compiled loops of k-means, made ahead of their first use."""

import numpy as np
import torch


def compile_kmeans_loops() -> None:
    """Compile all loops of k-means on a CPU, and cache them.

    What is there already is kept: :func:`unic.neighbors.compilation.compile_loops`, which goes
    first, throws away all that the package has.
    """
    # Compiled code is looked up on import.
    from unic.baselines.kmeans import fit_kmeans

    for n_dims in (3, 512):  # few, which are multiplied in float32, and more
        features = np.random.default_rng(0).normal(size=(200, n_dims)).astype(np.float32)
        generator = torch.Generator().manual_seed(0)
        fit_kmeans(features, n_clusters=20, n_restarts=1, generator=generator)
