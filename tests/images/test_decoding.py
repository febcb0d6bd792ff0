from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unic.images.decoding import decode_image


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def transparent(image: Image.Image) -> Image.Image:
    palette = image.quantize(8)
    palette.info["transparency"] = bytes(range(0, 256, 32))
    return palette


COLORS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "rgb": lambda image: image,
    "rgba": lambda image: image.convert("RGBA"),
    "palette": lambda image: image.quantize(8),
    "transparent palette": transparent,
}


# Against Pillow


@pytest.mark.parametrize("kind", COLORS)
def test_decodes_every_kind_of_color_image(kind: str, tmp_path: Path) -> None:
    image = COLORS[kind](Image.fromarray(noise(5, 7, 3)))
    image.save(tmp_path / "image.png")
    expected = np.asarray(image.convert("RGBA"))[..., :3]
    pixels = decode_image(tmp_path / "image.png")
    assert (pixels.shape, pixels.dtype) == ((5, 7, 3), np.uint8)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 10, "progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decodes_jpeg_files(options: dict[str, Any], mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(noise(21, 33, 3)).convert(mode).save(path, **options)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(path), expected)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif", "image.webp"])
def test_images_are_turned_upright(name: str, orientation: int, tmp_path: Path) -> None:
    path, exif = tmp_path / name, Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(16, 24, 3)).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == ((24, 16, 3) if 5 <= orientation <= 8 else (16, 24, 3))
    np.testing.assert_array_equal(decode_image(path), expected)


def test_deep_and_transparent_images_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    gray = noise(5, 7)
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    palette = transparent(Image.fromarray(noise(5, 7, 3)))
    deep.save(tmp_path / "deep.png", exif=exif)
    palette.save(tmp_path / "palette.png", exif=exif)
    expected = np.repeat(np.rot90(gray, -1)[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(tmp_path / "deep.png"), expected)
    expected = np.rot90(np.asarray(palette.convert("RGBA")), -1)[..., :3]
    np.testing.assert_array_equal(decode_image(tmp_path / "palette.png"), expected)


@pytest.mark.parametrize("name", ["image.png", "image.pgm", "image.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_decodes_gray_images_of_8_and_16_bits(name: str, dtype: type, tmp_path: Path) -> None:
    gray = noise(5, 7)
    bits = gray if dtype is np.uint8 else gray.astype(np.uint16) * 257
    Image.fromarray(bits).save(tmp_path / name)
    pixels = decode_image(tmp_path / name)
    np.testing.assert_array_equal(pixels, np.repeat(gray[..., None], 3, axis=2))


def test_decodes_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "image.jpg", quality=100)
    pixels = decode_image(tmp_path / "image.jpg")
    red = np.broadcast_to([255, 0, 0], (8, 8, 3))
    np.testing.assert_allclose(pixels.astype(int), red, atol=3)


# Refusals


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_refuses_pixels_without_a_known_range(dtype: type, tmp_path: Path) -> None:
    Image.fromarray(noise(5, 7).astype(dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match="pixels must have 8 or 16 bits, got 32"):
        decode_image(tmp_path / "deep.tif")
