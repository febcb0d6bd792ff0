"""Machine code of the compiled loops, made ahead of their first use."""

from pathlib import Path

import numpy as np

import unic


def compile_loops() -> None:
    """Compile all loops that mining, cleaning and drawing negatives run on a CPU, and cache them.

    numba compiles a loop when it first runs and keeps the machine code beside the source, or in
    the user's cache folder where that cannot be written. What is there already is thrown away:
    numba does not see changes of what a loop calls in other files.
    """
    package = Path(unic.__file__).parent
    for cached in [*package.rglob("*.nbi"), *package.rglob("*.nbc")]:
        cached.unlink()
    # Compiled code is looked up on import.
    from unic.neighbors.cleaning import reciprocity, union_sizes
    from unic.neighbors.exact.ranking import ExactRows
    from unic.neighbors.far_sets import FarPool
    from unic.neighbors.mining import mine_neighbors

    features = np.random.default_rng(0).normal(size=(160, 4)).astype(np.float32)
    features[:30] = features[0]  # copies, and whole numbers that are equally far: each has loops
    features[30:] = features[30:].round(1)
    for far_bound in (False, True):
        mined = mine_neighbors(features, n_neighbors=4, far_rank=20, far_bound=far_bound)
        sampler = FarPool(
            features,
            mined.far_radius,
            far_rank=20,
            known_labels=np.full(160, -1, dtype=np.int64),
            is_bound=far_bound,
        )
        sampler.draw(np.arange(160), 9, np.random.default_rng(0))
    # In many dims all are about equally far, and most products in doubt.
    hard = np.random.default_rng(0).normal(size=(160, 1024)).astype(np.float32)
    mine_neighbors(hard, n_neighbors=4, far_rank=20)
    ExactRows(features).nearest(np.arange(160), n_neighbors=4, far_rank=20)
    union_sizes(mined.indices)
    reciprocity(mined.indices)
