"""Machine code of the compiled loops of maps, made ahead of their first use."""

import numpy as np


def compile_map_loops() -> None:
    """Compile all loops of maps on a CPU, and cache them.

    What is there already is kept: :func:`unic.neighbors.compilation.compile_loops`, which goes
    first, throws away all that the package has.
    """
    # Compiled code is looked up on import.
    from unic.maps.layout import map_images
    from unic.maps.trustworthiness import score_map

    for n_images in (40, 1100):  # few, whose pairs are summed one by one, and more
        features = np.random.default_rng(0).normal(size=(n_images, 3)).astype(np.float32)
        indices = (np.arange(n_images)[:, None] + np.arange(4)) % n_images  # (n, 4)
        score_map(map_images(indices, features, seed=0), indices, features)
