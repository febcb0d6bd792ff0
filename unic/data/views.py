"""What is done to an image before the backbone sees it: evaluation view and augmentations."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

CROP_SCALE = (0.2, 1.0)  # SCAN
CROP_RATIO = (3 / 4, 4 / 3)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}  # SCAN
JITTER_PROBABILITY, GRAY_PROBABILITY, FLIP_PROBABILITY = 0.8, 0.2, 0.5
WARP_DEGREES, WARP_SHIFT, WARP_SCALE, WARP_SHEAR = 12.0, 0.08, (0.85, 1.15), 0.15
RANDOM_CROPS = ("gcd", "scan")


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


def prepare_image(
    pixels: NDArray[np.uint8], view: View, augmentation: str, generator: torch.Generator
) -> Tensor:
    """The part of a view that is made image by image, where images may differ in size.

    ``none`` and ``warp``: resize and center crop, as in evaluation; ``gcd``: resize, random crop,
    flip; ``scan``: random resized crop, flip, color jitter, gray (protocols of GCD and SCAN).

    Args:
        pixels: uint8, shape ``(h, w, 3)``.
        view: Sizes.
        augmentation: ``none``, ``gcd``, ``scan`` or ``warp``.
        generator: Source of all that is random in the view.

    Returns:
        uint8, shape ``(3, image_size, image_size)``.
    """
    image = torch.tensor(pixels).permute(2, 0, 1)  # (3, h, w)
    if augmentation == "scan":
        image = _random_resized_crop(image, view.image_size, generator)
        return _recolor(_random_flip(image, generator), generator)
    image = _resize_shorter(image, round(view.image_size / view.crop_pct))
    if augmentation == "gcd":
        return _random_flip(_random_crop(image, view.image_size, generator), generator)
    return vision.center_crop(image, [view.image_size, view.image_size])


def crop_square(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the shorter side of an image and take the center: uint8, ``(size, size, 3)``."""
    image = _resize_shorter(torch.tensor(pixels).permute(2, 0, 1), size)
    square = vision.center_crop(image, [size, size])  # (3, size, size)
    return square.permute(1, 2, 0).contiguous().numpy()


def draw_warps(n_images: int, generator: torch.Generator) -> Tensor:
    """What :func:`warp_batch` needs for each of ``n`` images: ``(n, 6)``, uniform in [-1, 1)."""
    return torch.rand(n_images, 6, generator=generator) * 2 - 1


def warp_batch(pixels: Tensor, draws: Tensor) -> Tensor:
    """Rotate, shift, scale and shear each image of a batch a little, without flips.

    Angles within 12 degrees, shifts within 8 % of the side, scales 0.85 to 1.15 for each axis,
    shears within 0.15; bilinear, the border repeated.

    Args:
        pixels: Shape ``(b, 3, s, s)``, any dtype.
        draws: Shape ``(b, 6)``, of :func:`draw_warps`.

    Returns:
        float32, shape ``(b, 3, s, s)``, in the range of the input.
    """
    draws = draws.to(pixels.device)
    angle = draws[:, 0] * math.radians(WARP_DEGREES)
    shear = draws[:, 1] * WARP_SHEAR
    middle, half = sum(WARP_SCALE) / 2, (WARP_SCALE[1] - WARP_SCALE[0]) / 2
    scale = middle + draws[:, 2:4] * half  # (b, 2)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    linear = rotation / scale[:, None, :]  # (b, 2, 2)
    linear = torch.stack([linear[:, :, 0], linear[:, :, 1] + shear[:, None] * linear[:, :, 0]], 2)
    theta = torch.cat([linear, 2 * WARP_SHIFT * draws[:, 4:6, None]], 2)  # (b, 2, 3)
    grid = affine_grid(theta, list(pixels.shape), align_corners=False)
    return grid_sample(pixels.float(), grid, padding_mode="border", align_corners=False)


def _resize_shorter(image: Tensor, size: int) -> Tensor:
    return vision.resize(image, [size], interpolation=InterpolationMode.BICUBIC, antialias=True)


def _random_crop(image: Tensor, size: int, generator: torch.Generator) -> Tensor:
    top = _integer(image.shape[1] - size + 1, generator)
    left = _integer(image.shape[2] - size + 1, generator)
    return image[:, top : top + size, left : left + size]


def _random_resized_crop(image: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """As torchvision's RandomResizedCrop: ten tries, then the largest allowed center crop."""
    height, width = image.shape[1:]
    for _ in range(10):
        area = height * width * _uniform(*CROP_SCALE, generator)
        ratio = math.exp(_uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]), generator))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = min(width, round(height * CROP_RATIO[1]))
        h = min(height, round(width / CROP_RATIO[0]))
    top, left = _integer(height - h + 1, generator), _integer(width - w + 1, generator)
    return vision.resized_crop(
        image, top, left, h, w, [size, size], InterpolationMode.BICUBIC, antialias=True
    )


def _random_flip(image: Tensor, generator: torch.Generator) -> Tensor:
    return image.flip(-1) if _uniform(0, 1, generator) < FLIP_PROBABILITY else image


def _recolor(image: Tensor, generator: torch.Generator) -> Tensor:
    """Color jitter in random order, then gray, each with its probability."""
    if _uniform(0, 1, generator) < JITTER_PROBABILITY:
        for index in torch.randperm(len(JITTER), generator=generator).tolist():
            name, strength = list(JITTER.items())[index]
            middle = 0.0 if name == "hue" else 1.0
            factor = _uniform(middle - strength, middle + strength, generator)
            image = getattr(vision, f"adjust_{name}")(image, factor)
    if _uniform(0, 1, generator) < GRAY_PROBABILITY:
        image = vision.rgb_to_grayscale(image, num_output_channels=3)
    return image


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def _integer(high: int, generator: torch.Generator) -> int:
    return int(torch.randint(high, (), generator=generator))
