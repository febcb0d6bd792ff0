"""Machine code of the compiled loops of the map, made ahead of their first use."""

import numpy as np

from unic.maps.layout import map_images
from unic.maps.trustworthiness import score_map


def compile_map_loops() -> None:
    """Compile all loops of the map on a CPU, and cache them.

    What is there already is kept: :func:`unic.neighbors.compilation.compile_loops`, which goes
    first, throws away all that the package has.
    """
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    distances = np.square(features[:, None] - features).sum(axis=2)  # (n, n)
    indices = distances.argsort(axis=1)[:, :6].astype(np.int64)
    positions = map_images(indices, features, seed=0)
    score_map(positions, indices, features)
