"""All loops are compiled ahead, for the types that k-means has."""

import numpy as np
import torch
from numba.core.dispatcher import Dispatcher

from unic.baselines import kmeans_loops
from unic.baselines.compilation import compile_kmeans_loops
from unic.baselines.kmeans import assign_clusters, fit_kmeans
from unic.runtime.devices import has_int8


def compiled() -> dict[str, int]:
    """How many machine codes each loop has."""
    found = vars(kmeans_loops).items()
    loops = {name: loop for name, loop in found if isinstance(loop, Dispatcher)}
    outer = {name for name in loops if not name.startswith("_") and name != "squared_distance"}
    return {name: len(loops[name].signatures) for name in outer}


def test_every_loop_is_compiled_and_needs_no_other_code() -> None:
    compile_kmeans_loops()
    before = compiled()
    of_digits = {"round_to_digits", "square_digits"}
    assert min(n for name, n in before.items() if has_int8() or name not in of_digits) > 0
    generator = np.random.default_rng(0)
    for n_points, n_dims, n_clusters in ((90, 2, 5), (700, 300, 60)):
        features = generator.normal(size=(n_points, n_dims)).astype(np.float32)
        features[40:80] = features[0]
        features.flags.writeable = False
        known = np.where(np.arange(n_points) < 20, np.arange(n_points) % 3, -1)
        known.flags.writeable = False
        for labels in (None, known):
            found = fit_kmeans(
                features,
                n_clusters=n_clusters,
                known_labels=labels,
                n_restarts=2,
                generator=torch.Generator().manual_seed(0),
            )
        found.centers.flags.writeable = False
        assign_clusters(features, found.centers)
    assert compiled() == before
