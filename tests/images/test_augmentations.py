"""Augmentations, against torchvision with the same numbers drawn."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import (
    Grayscale,
    InterpolationMode,
    RandomHorizontalFlip,
    Resize,
    functional,
)

from tests.images.prepared import noise, prepare, view
from unic.images.augmentations import CROP_RATIO, CROP_SCALE, WARP_SHIFT, draw_warps, warp_batch


def coordinates(size: int = 256) -> NDArray[np.uint8]:
    """An image whose red is the column, and green the row."""
    rows, columns = np.mgrid[:size, :size] * 255 / (size - 1)
    return np.rint(np.stack([columns, rows, 0 * rows], axis=2)).astype(np.uint8)


def is_flipped(image: Tensor) -> bool:
    return bool(image[0, :, 0].float().mean() > image[0, :, -1].float().mean())


# Laws of random crops


@pytest.mark.parametrize("augmentation", ["gcd", "scan"])
def test_the_seed_decides_the_view(augmentation: str | None) -> None:
    pixels = noise(80, 60)
    views = [prepare(pixels, augmentation, seed=seed) for seed in (1, 1, 2, 3)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert not torch.equal(views[2], views[3])


@pytest.mark.parametrize("augmentation", ["gcd", "scan"])
def test_views_do_not_touch_the_global_generator(augmentation: str | None) -> None:
    before = torch.get_rng_state()
    prepare(noise(40, 40), augmentation)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("augmentation", ["gcd", "scan"])
def test_half_of_the_views_are_flipped(augmentation: str | None) -> None:
    pixels = np.ascontiguousarray(coordinates(64)[:, :, [0, 0, 0]])  # gray: colors keep the order
    flips = sum(is_flipped(prepare(pixels, augmentation, seed=seed)) for seed in range(400))
    assert abs(flips - 200) < 5 * math.sqrt(400 / 4)


# Crops of GCD and SCAN

ADJUSTMENTS = {
    "brightness": functional.adjust_brightness,
    "contrast": functional.adjust_contrast,
    "saturation": functional.adjust_saturation,
    "hue": functional.adjust_hue,
}
SHAPES = [(50, 81), (83, 51), (33, 33), (37, 121), (201, 45), (9, 13)]


class Draws:
    """The numbers of a view, drawn again in the order in which the view draws them."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        drawn = torch.rand((), generator=self.generator, dtype=torch.float64)
        return low + (high - low) * float(drawn)

    def below(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self.generator))


def expected_gcd(pixels: NDArray[np.uint8], seed: int, *, size: int, resized: int) -> Tensor:
    """Resize to 256, random crop of 224, flip (GCD, SimGCD), here for other sizes."""
    draws = Draws(seed)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    image = Resize(resized, InterpolationMode.BICUBIC, antialias=True)(image)
    top, left = (draws.below(side - size + 1) for side in image.shape[1:])
    image = functional.crop(image, top, left, size, size)
    return RandomHorizontalFlip(float(draws.uniform(0, 1) < 0.5))(image)


def expected_scan(pixels: NDArray[np.uint8], seed: int, *, size: int) -> Tensor:
    """Random resized crop (0.2, 1), flip, jitter (.4, .4, .4, .1) p .8, gray p .2 (SCAN)."""
    draws = Draws(seed)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    top, left, height, width = draw_box(draws, *pixels.shape[:2])
    image = functional.crop(image, top, left, height, width)
    image = Resize((size, size), InterpolationMode.BICUBIC, antialias=True)(image)
    image = RandomHorizontalFlip(float(draws.uniform(0, 1) < 0.5))(image)
    if draws.uniform(0, 1) < 0.8:
        names = list(ADJUSTMENTS)
        for index in torch.randperm(4, generator=draws.generator).tolist():
            low, high = (-0.1, 0.1) if names[index] == "hue" else (0.6, 1.4)
            factor = draws.uniform(low, high)  # ColorJitter would round it to float32
            image = ADJUSTMENTS[names[index]](image, factor)
    return Grayscale(3)(image) if draws.uniform(0, 1) < 0.2 else image


def draw_box(draws: Draws, height: int, width: int) -> tuple[int, int, int, int]:
    """The box of torchvision's RandomResizedCrop: area, then ratio, ten times; else a center."""
    for _ in range(10):
        area = height * width * draws.uniform(0.2, 1)
        ratio = math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return draws.below(height - h + 1), draws.below(width - w + 1), h, w
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return draws.below(height - h + 1), draws.below(width - w + 1), h, w


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("size", "resized"), [(32, 37), (28, 32), (33, 37)])
def test_gcd_views_equal_torchvision(
    shape: tuple[int, int], seed: int, size: int, resized: int
) -> None:
    pixels = noise(*shape)
    made_for = view(size, size / resized)
    expected = expected_gcd(pixels, seed, size=size, resized=resized)
    assert torch.equal(prepare(pixels, "gcd", seed, made_for), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(24))
def test_scan_views_equal_torchvision(shape: tuple[int, int], seed: int) -> None:
    pixels = noise(*shape)
    expected = expected_scan(pixels, seed, size=33)
    assert torch.equal(prepare(pixels, "scan", seed, view(33)), expected)


def test_gcd_crops_are_every_window_of_the_resized_image() -> None:
    pixels = coordinates(36)  # of the size that is cropped, so nothing is resized
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    windows = {
        image[:, top : top + 32, left : left + 32].numpy().tobytes(): (top, left)
        for top in range(5)
        for left in range(5)
    }
    found = set()
    for seed in range(400):
        crop = prepare(pixels, "gcd", seed=seed, made_for=view(crop_pct=32 / 36))
        crop = crop.flip(-1) if is_flipped(crop) else crop
        found.add(windows[crop.numpy().tobytes()])
    assert found == set(windows.values())


@pytest.mark.parametrize(("height", "width", "largest"), [(256, 256, 1.0), (128, 256, 2 / 3)])
def test_scan_crops_keep_to_their_area_and_ratio(
    height: int, width: int, largest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.images.augmentations.JITTER_PROBABILITY", 0)
    monkeypatch.setattr("unic.images.augmentations.GRAY_PROBABILITY", 0)
    pixels = np.ascontiguousarray(coordinates()[:height, :width])
    areas, ratios = [], []
    for seed in range(150):
        crop = prepare(pixels, "scan", seed=seed).float()
        w, h = (  # 32 pixels have 31 steps between them
            float((crop[channel].amax() - crop[channel].amin()) * 32 / 31) for channel in (0, 1)
        )
        areas.append(w * h / (height * width))
        ratios.append(w / h)
    assert CROP_SCALE[0] - 0.03 < min(areas) < CROP_SCALE[0] + 0.1
    assert largest - 0.2 < max(areas) < largest + 0.05
    assert abs(float(np.mean(areas)) - (CROP_SCALE[0] + largest) / 2) < 0.15
    assert CROP_RATIO[0] - 0.05 < min(ratios) < 0.85
    assert 1.15 < max(ratios) < CROP_RATIO[1] + 0.05


@pytest.mark.parametrize("shape", [(20, 2000), (2000, 20)])
def test_scan_falls_back_to_the_largest_allowed_crop(shape: tuple[int, int]) -> None:
    image = prepare(noise(*shape), "scan")
    assert image.shape == (3, 32, 32)
    assert image.float().std() > 20  # it is not one line of pixels drawn wide


def test_scan_makes_a_fifth_of_the_views_gray() -> None:
    pixels = noise(16, 16)
    grays = 0
    for seed in range(400):
        image = prepare(pixels, "scan", seed=seed)
        grays += bool((image == image[:1]).all())
    assert abs(grays - 80) < 5 * math.sqrt(400 * 0.2 * 0.8)


def test_scan_jitters_colors_four_times_in_five() -> None:
    pixels = np.full((16, 16, 3), (200, 120, 60), dtype=np.uint8)
    original = torch.tensor([200, 120, 60], dtype=torch.uint8)
    gray = torch.tensor([round(0.2989 * 200 + 0.587 * 120 + 0.114 * 60)] * 3).to(torch.uint8)
    kept = 0
    for seed in range(400):
        color = prepare(pixels, "scan", seed=seed)[:, 8, 8]
        kept += bool(torch.equal(color, original) or (color.int() - gray.int()).abs().max() <= 1)
    assert abs(kept - 80) < 5 * math.sqrt(400 * 0.2 * 0.8)


# Warps


def warp(pixels: Tensor, seed: int = 0) -> Tensor:
    return warp_batch(pixels, draw_warps(len(pixels), torch.Generator().manual_seed(seed)))


def gradients(n_images: int) -> Tensor:
    """Images whose red is the column and green the row, in half sides from the center."""
    steps = (torch.arange(64) - 31.5) / 32
    image = torch.stack([steps.expand(64, 64), steps[:, None].expand(64, 64), torch.zeros(64, 64)])
    return image.expand(n_images, 3, 64, 64)


def test_warps_move_the_center_by_no_more_than_they_say_and_by_zero_on_average() -> None:
    center = warp(gradients(2000))[:, :2, 31:33, 31:33].mean((2, 3))  # (n, 2)
    limit = 2 * WARP_SHIFT
    assert center.abs().max() <= limit + 1e-4
    assert center.abs().max() > 0.95 * limit
    tolerance = 5 * limit / math.sqrt(3 * 2000)  # five standard errors of a uniform draw
    assert center.mean(0).abs().max() < tolerance


def test_warps_displace_no_pixel_on_average() -> None:
    # All but the frame, which the border repeats; 1 / scale is 1.008 on average, cos 0.993.
    moved = (warp(gradients(2000)) - gradients(1)).mean(0)[:2, 16:48, 16:48]
    assert moved.abs().max() < 0.02


def test_warps_do_not_flip() -> None:
    warped = warp(gradients(500))[:, :, 8:56, 8:56]
    assert (warped[:, 0].diff(dim=2) >= 0).all()
    assert (warped[:, 1].diff(dim=1) >= -1e-6).all()
    assert (warped[:, 0, 24, -1] > warped[:, 0, 24, 0] + 0.8).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_warps_keep_the_range(dtype: torch.dtype) -> None:
    pixels = torch.from_numpy(noise(20 * 24, 24)).view(20, 24, 24, 3).permute(0, 3, 1, 2).to(dtype)
    warped = warp(pixels)
    assert (warped.shape, warped.dtype) == (pixels.shape, torch.float32)
    assert warped.min() >= 0
    assert warped.max() <= 255 + 1e-3
    constant = torch.full((5, 3, 24, 24), 77, dtype=dtype)
    torch.testing.assert_close(warp(constant), constant.float())


def test_the_generator_decides_the_warp() -> None:
    first, again, other = (warp(gradients(3), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
