"""Views: what is done to an image before the backbone sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision


@dataclass(frozen=True)
class View:
    """Geometry and color statistics shared by all views of a data set.

    Args:
        image_size: Side of the square that the backbone sees, pixels.
        crop_pct: The shorter side is resized to ``image_size / crop_pct`` before cropping.
        mean: Channel means of images in [0, 1].
        std: Channel standard deviations.
    """

    image_size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8, or floats in [0, 255], of shape ``(b, 3, s, s)`` into network input."""
        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=pixels.device).view(shape)
        std = torch.tensor(self.std, device=pixels.device).view(shape)
        return (pixels.float() / 255 - mean) / std


class Augmentation(NamedTuple):
    """What makes views of an image differ from its evaluation view, and from each other.

    Either a crop in place of the central one, image by image, where images may differ in size; or
    a change of whole batches of central crops. Neither leaves the evaluation view.
    """

    # From uint8 (3, h, w), the view and a generator to uint8 (3, s, s).
    crop: Callable[[Tensor, View, torch.Generator], Tensor] | None = None
    # From a number of images and a generator to what the change of each needs, (b, ...).
    draw: Callable[[int, torch.Generator], Tensor] | None = None
    # From (b, 3, s, s) and what was drawn to (b, 3, s, s), in the range of the input.
    change: Callable[[Tensor, Tensor], Tensor] | None = None


UNCHANGED = Augmentation()  # the evaluation view


def prepare_image(
    pixels: NDArray[np.uint8],
    view: View,
    augmentation: Augmentation = UNCHANGED,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The part of a view that is made image by image, where images may differ in size.

    Args:
        pixels: uint8, shape ``(h, w, 3)``.
        view: Sizes.
        augmentation: Whose crop is taken in place of the central one of evaluation.
        generator: Source of all that is random in the crop; needed where there is one.

    Returns:
        uint8, shape ``(3, image_size, image_size)``.
    """
    image = torch.tensor(pixels).permute(2, 0, 1)  # (3, h, w)
    if augmentation.crop is not None and generator is not None:
        return augmentation.crop(image, view, generator)
    return vision.center_crop(resize_for(image, view), [view.image_size, view.image_size])


def resize_for(image: Tensor, view: View) -> Tensor:
    """Resize an image ``(3, h, w)`` to what the evaluation view is cropped from, bicubic."""
    return _resize_shorter(image, round(view.image_size / view.crop_pct))


def crop_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the shorter side of an image and take the center: uint8, ``(size, size, 3)``."""
    image = _resize_shorter(torch.tensor(pixels).permute(2, 0, 1), size)
    square = vision.center_crop(image, [size, size])  # (3, size, size)
    return square.permute(1, 2, 0).contiguous().numpy()


def _resize_shorter(image: Tensor, size: int) -> Tensor:
    return vision.resize(image, [size], interpolation=InterpolationMode.BICUBIC, antialias=True)
