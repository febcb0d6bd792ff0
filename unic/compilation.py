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
    from unic.cleaning import reciprocity, union_sizes  # compiled code is looked up on import
    from unic.far_sets import FarSampler
    from unic.mining import mine_neighbors

    features = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    for far_bound in (False, True):
        mined = mine_neighbors(features, n_neighbors=4, far_rank=20, far_bound=far_bound)
        sampler = FarSampler(
            features,
            mined.far_radius,
            far_rank=20,
            known_labels=np.full(64, -1, dtype=np.int64),
            is_bound=far_bound,
        )
        sampler.draw(np.arange(64), 2, np.random.default_rng(0))
    union_sizes(mined.indices)
    reciprocity(mined.indices)
