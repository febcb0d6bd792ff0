"""Pixels as features, for a baseline without a network."""

import numpy as np
from numpy.typing import NDArray

from unic.images.images import Images
from unic.images.loaders import ViewLoader, split_rows
from unic.images.views import View


def extract_pixels(images: Images, view: View, *, n_workers: int = 1) -> NDArray[np.float32]:
    """Pixels of the evaluation view, normalized and flattened: shape ``(n, 3 s s)``, float32."""
    loader = ViewLoader(images, view, n_workers=n_workers, is_read_once=True)
    batches = loader.batches(split_rows(len(images), 256), np.random.default_rng(0))
    return np.concatenate([pixels.flatten(1).numpy() for pixels in batches])
