"""Images in the panel of a figure, each in a frame."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from unic.report.contact_sheets import fill_cell

_CELL = 96  # pixels
_GAP = 0.04  # of a cell


def draw_images(
    axes: Axes,
    images: Sequence[NDArray[np.uint8]],
    *,
    colors: Sequence[str],
    n_columns: int,
    n_rows: int = 1,
    marked: Sequence[bool] = (),
) -> None:
    """Draw images row by row; the panel has room for all rows, however few images there are.

    Args:
        axes: The panel.
        images: Each of shape ``(h, w, 3)``, uint8 RGB, of which the middle square is shown.
        colors: Of the frame of each.
        n_columns: Images of a row.
        n_rows: Rows.
        marked: Which images have a cross in the corner of their frame.
    """
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    for number, (image, color) in enumerate(zip(images, colors, strict=True)):
        row, column = divmod(number, n_columns)
        left, right = column + _GAP, column + 1 - _GAP
        top, bottom = row + _GAP, row + 1 - _GAP
        cell = np.asarray(fill_cell(image, _CELL))
        axes.imshow(cell, extent=(left, right, bottom, top), interpolation="nearest")
        size = 1 - 2 * _GAP
        axes.add_patch(Rectangle((left, top), size, size, fill=False, ec=color, lw=1.4))
        if number < len(marked) and marked[number]:
            corner = Rectangle((left, top), 0.3, 0.3, fc="w", ec=color, lw=1.0)
            axes.add_patch(corner)
            axes.plot(left + 0.15, top + 0.15, "x", color=color, ms=3.5, mew=1.3)
    axes.set_xlim(0, n_columns)
    axes.set_ylim(n_rows, 0)
    axes.set_aspect("equal", anchor="W")
