"""Augmentations: random changes by which the views of an image differ."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from unic.images.views import UNCHANGED, Augmentation, View, resize_for

CROP_SCALE = (0.2, 1.0)  # SCAN
CROP_RATIO = (3 / 4, 4 / 3)
JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}  # SCAN
JITTER_PROBABILITY, GRAY_PROBABILITY, FLIP_PROBABILITY = 0.8, 0.2, 0.5
WARP_DEGREES, WARP_SHIFT, WARP_SCALE, WARP_SHEAR = 12.0, 0.08, (0.85, 1.15), 0.15


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


def _crop_as_gcd(image: Tensor, view: View, generator: torch.Generator) -> Tensor:
    """Resize, random crop, flip (protocol of GCD)."""
    cropped = _random_crop(resize_for(image, view), view.image_size, generator)
    return _random_flip(cropped, generator)


def _crop_as_scan(image: Tensor, view: View, generator: torch.Generator) -> Tensor:
    """Random resized crop, flip, color jitter, gray (protocol of SCAN)."""
    cropped = _random_resized_crop(image, view.image_size, generator)
    return _recolor(_random_flip(cropped, generator), generator)


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


AUGMENTATIONS = {
    "gcd": Augmentation(crop=_crop_as_gcd),
    "scan": Augmentation(crop=_crop_as_scan),
    "warp": Augmentation(draw=draw_warps, change=warp_batch),
}


def choose_augmentation(name: str | None) -> Augmentation:
    """The augmentation of a name: ``gcd``, ``scan`` or ``warp``; None leaves the evaluation view.

    Raises:
        ValueError: If there is none of that name.
    """
    if name is None:
        return UNCHANGED
    if name not in AUGMENTATIONS:
        known = ", ".join(AUGMENTATIONS)
        raise ValueError(f"augmentation must be {known} or null, got {name}")
    return AUGMENTATIONS[name]
