"""Pictures of images for the page: small ones side by side, and single ones."""

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unic.images.datasets import open_images
from unic.images.images import Images
from unic.inspection.neighbors import find_source
from unic.report.contact_sheets import fill_cell

N_COLUMNS = 16  # cells of a row of an atlas
MAX_CELLS = 256
SIZES = (32, 64, 96)  # pixels of a cell
MAX_SIDE = 1024  # pixels of a single picture
_MISSING = "#b0b0b0"


class Pictures:
    """The images of a run, decoded when they are asked for; the latest small ones are kept.

    Args:
        index: ``images.parquet`` of the run.
        image_ids: Of its training images.
        n_kept: Small pictures that are kept, about 12 KB each of 64 pixels.

    Raises:
        ValueError: If the index does not say where the images are.
    """

    def __init__(self, index: Path, image_ids: Sequence[str], *, n_kept: int = 8192) -> None:
        source = find_source(index)
        self._images: Images = open_images(source.name, image_ids, root=source.root)
        self._kept: OrderedDict[tuple[int, int], Image.Image] = OrderedDict()
        self._n_kept = n_kept
        self._lock = threading.Lock()

    def draw_atlas(self, rows: Sequence[int], *, size: int) -> bytes:
        """Small pictures of some images, row by row in cells of :data:`N_COLUMNS` a line.

        An image that cannot be read is a gray cell with a cross.

        Args:
            rows: At most :data:`MAX_CELLS`.
            size: Of a cell, one of :data:`SIZES`.

        Returns:
            JPEG.

        Raises:
            ValueError: If there are none or too many, one is no row, or the size is another.
        """
        if not 1 <= len(rows) <= MAX_CELLS:
            raise ValueError(f"rows must be 1 to {MAX_CELLS}, got {len(rows)}")
        if size not in SIZES:
            raise ValueError(f"size must be one of {SIZES}, got {size}")
        for row in rows:
            self._check(row)
        n_lines = -(-len(rows) // N_COLUMNS)
        atlas = Image.new("RGB", (min(len(rows), N_COLUMNS) * size, n_lines * size), "white")
        for i, row in enumerate(rows):
            line, column = divmod(i, N_COLUMNS)
            atlas.paste(self._shrink(row, size), (column * size, line * size))
        return _encode(atlas)

    def draw_picture(self, row: int) -> bytes:
        """One image, whole, at most :data:`MAX_SIDE` pixels wide and high; PNG where it is tiny.

        Raises:
            ValueError: If there is no such row, or the image cannot be decoded.
            FileNotFoundError: If the image is no longer where it was indexed.
        """
        self._check(row)
        picture = Image.fromarray(self._images[row])
        if max(picture.size) <= SIZES[-1]:
            return _encode(picture, "PNG")
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        return _encode(picture)

    def _check(self, row: int) -> None:
        if not 0 <= row < len(self._images):
            raise ValueError(f"row must be in 0 to {len(self._images) - 1}, got {row}")

    def _shrink(self, row: int, size: int) -> Image.Image:
        key = row, size
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        cell = _fill(self._images, row, size)
        with self._lock:
            self._kept[key] = cell
            while len(self._kept) > self._n_kept:
                self._kept.popitem(last=False)
        return cell


def _fill(images: Images, row: int, size: int) -> Image.Image:
    try:
        pixels: NDArray[np.uint8] = images[row]
    except (OSError, ValueError):  # moved or damaged since it was indexed
        cell = Image.new("RGB", (size, size), _MISSING)
        pen = ImageDraw.Draw(cell)
        pen.line((0, 0, size, size), fill="white")
        pen.line((0, size, size, 0), fill="white")
        return cell
    return fill_cell(pixels, size)


def _encode(picture: Image.Image, kind: str = "JPEG") -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return content.getvalue()
