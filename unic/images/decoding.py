"""Pixels of image files."""

import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Told by content and not by name. Pillow knows more, some of which it hands to other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF")
Image.init()
FORMATS = tuple(name for name in _FORMATS if name in Image.OPEN)  # some builds lack the last


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file and turn it upright, as its EXIF orientation says.

    Args:
        path: Image file of one of :data:`FORMATS`, whatever its suffix. 16-bit gray is scaled to 8
            bits, transparency is dropped, and the first picture of several is taken.

    Returns:
        uint8, shape ``(h, w, 3)``, RGB.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If pixels have 32 bits, or it is a pipe or the like.
        Exception: Any other of Pillow's, if the file cannot be decoded.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
        raise ValueError("it must be a regular file")
    with Image.open(path, formats=FORMATS) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return take_pixels(image)


def take_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of an open image: uint8, shape ``(h, w, 3)``, RGB, see :func:`decode_image`.

    Raises:
        ValueError: If pixels have 32 bits.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        gray = (np.asarray(image) >> 8).astype(np.uint8)  # (h, w), Pillow would make it white
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels must have 8 or 16 bits, got 32 (mode {image.mode})")
    if image.mode == "RGB":
        return np.asarray(image)  # convert would copy
    if image.mode == "P":  # the palette may be transparent, which RGB cannot say
        return np.asarray(image.convert("RGBA").convert("RGB"))
    return np.asarray(image.convert("RGB"))
