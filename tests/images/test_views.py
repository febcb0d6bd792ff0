import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import CenterCrop, InterpolationMode, Resize

from tests.images.prepared import MEAN, STD, noise, prepare, view

AUGMENTATIONS = [None, "gcd", "scan", "warp"]


# Evaluation view, against torchvision


@pytest.mark.parametrize("shape", [(50, 80), (80, 50), (20, 20), (37, 37), (36, 200)])
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_evaluation_view_equals_torchvision(shape: tuple[int, int], crop_pct: float) -> None:
    pixels = noise(*shape)
    resize = Resize(round(32 / crop_pct), InterpolationMode.BICUBIC, antialias=True)
    expected = CenterCrop(32)(resize(torch.from_numpy(pixels).permute(2, 0, 1)))
    assert torch.equal(prepare(pixels, None, made_for=view(crop_pct=crop_pct)), expected)


@pytest.mark.parametrize("shape", [(375, 500), (501, 333), (97, 101)])
def test_the_papers_evaluation_view_equals_torchvision(shape: tuple[int, int]) -> None:
    pixels = noise(*shape)
    resize = Resize(256, InterpolationMode.BICUBIC, antialias=True)
    expected = CenterCrop(224)(resize(torch.from_numpy(pixels).permute(2, 0, 1)))
    assert torch.equal(prepare(pixels, None, made_for=view(224)), expected)


def test_an_image_of_the_right_size_passes_unchanged() -> None:
    pixels = noise(32, 32)
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    assert torch.equal(prepare(pixels, None, made_for=view(crop_pct=1.0)), expected)


def test_warped_images_are_prepared_as_in_evaluation() -> None:
    pixels = noise(40, 60)
    assert torch.equal(prepare(pixels, "warp", seed=5), prepare(pixels, None))


# Laws of all views


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 90), (90, 5), (32, 32), (60, 41)])
def test_views_have_the_promised_shape_and_dtype(
    augmentation: str | None, shape: tuple[int, int]
) -> None:
    image = prepare(noise(*shape), augmentation)
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_views_leave_the_image_alone(augmentation: str | None) -> None:
    pixels = noise(40, 60)
    pixels.flags.writeable = False
    prepare(pixels, augmentation)
    np.testing.assert_array_equal(pixels, noise(40, 60))


# Normalization


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_normalizes_channel_by_channel(dtype: torch.dtype) -> None:
    pixels = torch.from_numpy(noise(8, 16)).view(2, 8, 8, 3).permute(0, 3, 1, 2)
    normalized = view(8).normalize(pixels.to(dtype))
    assert normalized.dtype == torch.float32
    for channel in range(3):
        expected = (pixels[:, channel].double() / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(normalized[:, channel].double(), expected, rtol=1e-5, atol=1e-6)
