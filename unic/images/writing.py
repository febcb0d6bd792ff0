"""Views of handwriting: bent, blurred, partly erased."""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

ROTATION, SHIFT, SHEAR = math.radians(15), 0.12, math.radians(10)
SCALE, ASPECT = (0.8, 1.25), 0.1
BEND = 0.06  # std of the elastic displacement at 4 x 4 nodes, in half sides
BLUR, STROKE, NOISE = 0.6, 0.5, 0.05
ERASED, ERASED_SIDE = 0.3, (0.16, 0.36)


def writing_views(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change each image of a batch as a writer might: posture, bend, stroke, blots.

    Rotation within 15 degrees, shift within 12 % of the side, scale 0.8 to 1.25, shear within 10
    degrees, a smooth elastic bend, blur, thinner or thicker strokes (a power of the brightness),
    one erased square, noise. What comes in from outside is black.

    Args:
        pixels: Shape ``(b, 3, s, s)``, float32 in [0, 1].
        generator: On the CPU, source of every draw.

    Returns:
        Shape ``(b, 3, s, s)``, float32, about [0, 1].
    """
    n, side = len(pixels), pixels.shape[-1]
    pixels = grid_sample(pixels, _writing_grid(n, side, generator), align_corners=False)
    blur = _uniform(n, generator) * (_uniform(n, generator) < BLUR)
    pixels = pixels + blur * (avg_pool2d(pixels, 5, 1, 2) - pixels)
    pixels = pixels.clamp(1e-4, 1) ** torch.exp(_signed(n, generator) * STROKE)
    pixels = pixels * ~_erased(n, side, generator)
    noise = torch.randn(n, 1, side, side, generator=generator) * NOISE
    return pixels + noise * _uniform(n, generator)


def _writing_grid(n: int, side: int, generator: torch.Generator) -> Tensor:
    """Where each output pixel is taken from, ``(n, s, s, 2)``: affine and elastic."""
    angle = _signed(n, generator).view(n) * ROTATION
    slant = torch.tan(_signed(n, generator).view(n) * SHEAR)
    low, high = map(math.log, SCALE)
    scale = torch.exp(low + (high - low) * _uniform(n, generator)).view(n)
    aspect = torch.exp(_signed(n, generator).view(n) * ASPECT)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    turn = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    stretch = torch.stack([aspect / scale, slant, zero, 1 / (scale * aspect)], 1).view(n, 2, 2)
    shift = (torch.rand(n, 2, 1, generator=generator) * 2 - 1) * SHIFT * 2
    theta = torch.cat([turn @ stretch, shift], 2)  # (n, 2, 3)
    grid = affine_grid(theta, [n, 3, side, side], align_corners=False)
    nodes = torch.randn(n, 2, 4, 4, generator=generator) * BEND
    bend = interpolate(nodes, (side, side), mode="bicubic", align_corners=False)
    return grid + bend.permute(0, 2, 3, 1)


def _erased(n: int, side: int, generator: torch.Generator) -> Tensor:
    """The erased square of some images, ``(n, 1, s, s)`` bool."""
    low, high = ERASED_SIDE
    radius = side * (low + (high - low) * _uniform(n, generator)) / 2
    center = torch.rand(n, 2, 1, 1, generator=generator) * side
    is_erased = _uniform(n, generator) < ERASED
    line = torch.arange(side)
    rows = (line.view(1, 1, side, 1) - center[:, :1]).abs() < radius
    columns = (line.view(1, 1, 1, side) - center[:, 1:]).abs() < radius
    return is_erased & rows & columns


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator)


def _signed(n: int, generator: torch.Generator) -> Tensor:
    return _uniform(n, generator) * 2 - 1
