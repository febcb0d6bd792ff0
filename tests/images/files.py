"""Image files of noise."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(4, 6, 3)).save(path)


def write_images(root: Path, *image_ids: str) -> str:
    for image_id in image_ids:
        (root / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / image_id)
    return str(root)
