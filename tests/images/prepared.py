"""Images of noise, and views prepared of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.images.augmentations import choose_augmentation
from unic.images.views import View, prepare_image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def view(size: int = 32, crop_pct: float = 0.875) -> View:
    return View(size, crop_pct, MEAN, STD)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)


def prepare(
    pixels: NDArray[np.uint8], augmentation: str | None, seed: int = 0, made_for: View | None = None
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return prepare_image(pixels, made_for or view(), choose_augmentation(augmentation), generator)
