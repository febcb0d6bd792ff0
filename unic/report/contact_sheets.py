"""Contact sheets: images of a cluster side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], *, n_columns: int, cell_size: int
) -> Image.Image:
    """Lay out images row by row in square cells, without gaps.

    The middle square of an image fills its cell. Enlarging repeats pixels, so that tiny images
    stay sharp; shrinking filters.

    Args:
        images: Each of shape ``(h, w, 3)``, uint8 RGB.
        n_columns: Cells in a row.
        cell_size: Side of a cell in pixels.

    Raises:
        ValueError: If there is no image, or one is not uint8 of shape ``(h, w, 3)``.
    """
    if not images:
        raise ValueError("images must hold at least one image, got none")
    if n_columns < 1 or cell_size < 1:
        raise ValueError(
            f"n_columns and cell_size must be at least 1, got {n_columns} and {cell_size}"
        )
    n_rows = -(-len(images) // n_columns)
    width = min(n_columns, len(images)) * cell_size
    sheet = Image.new("RGB", (width, n_rows * cell_size), "white")
    for i, pixels in enumerate(images):
        row, column = divmod(i, n_columns)
        sheet.paste(fill_cell(pixels, cell_size), (column * cell_size, row * cell_size))
    return sheet


def fill_cell(pixels: NDArray[np.uint8], cell_size: int) -> Image.Image:
    """Fill a square cell with the middle square of an image.

    Raises:
        ValueError: If the image is not uint8 of shape ``(h, w, 3)``.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"images must be uint8 of shape (h, w, 3), got {pixels.dtype} of shape {pixels.shape}"
        )
    enlarges = min(pixels.shape[:2]) <= cell_size
    method = Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS
    return ImageOps.fit(Image.fromarray(pixels), (cell_size, cell_size), method)
