"""All loops are compiled ahead, for the types that maps are made with."""

import numpy as np
from numba.core.dispatcher import Dispatcher

from tests.maps.made import blobs, rank_all
from unic.maps import loops
from unic.maps.compilation import compile_map_loops
from unic.maps.layout import map_images
from unic.maps.trustworthiness import score_map


def compiled() -> dict[str, int]:
    """How many machine codes each loop has."""
    found = {name: loop for name, loop in vars(loops).items() if isinstance(loop, Dispatcher)}
    outer = {name: loop for name, loop in found.items() if not name.startswith("_")}
    return {name: len(loop.signatures) for name, loop in outer.items()}


def test_every_loop_is_compiled_and_needs_no_other_code() -> None:
    compile_map_loops()
    before = compiled()
    assert min(before.values()) > 0
    for n_images in (30, 1300):
        features = blobs(n_images, n_dims=12)
        features.flags.writeable = False
        indices = rank_all(features, 9)
        indices.flags.writeable = False
        score_map(map_images(indices, features, seed=1), indices, features)
        score_map(np.asarray(features[:, :2], order="C"), indices, features)
    assert compiled() == before
