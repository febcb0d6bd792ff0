"""Pixels of image files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def decode_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file and turn it upright, as its EXIF orientation says.

    Args:
        path: Image file of any format that Pillow reads. 16-bit gray is scaled to 8 bits,
            transparency is dropped.

    Returns:
        uint8, shape ``(h, w, 3)``, RGB.

    Raises:
        ValueError: If pixels have 32 bits.
        Exception: Any other of Pillow's, if the file cannot be decoded.
    """
    with Image.open(path) as image:
        ImageOps.exif_transpose(image, in_place=True)
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
