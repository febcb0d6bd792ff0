import numpy as np
from matplotlib.figure import Figure

from unic.report.image_grids import draw_images

IMAGES = [np.full((8, 12, 3), 20 * number, dtype=np.uint8) for number in range(5)]


def test_images_are_drawn_row_by_row_in_their_frames() -> None:
    axes = Figure().subplots()
    colors = ["#0072B2", "#D55E00", "#0072B2", "#0072B2", "#0072B2"]
    draw_images(axes, IMAGES, colors=colors, n_columns=3, n_rows=2)
    assert len(axes.images) == len(axes.patches) == 5
    for number, (image, frame) in enumerate(zip(axes.images, axes.patches, strict=True)):
        row, column = divmod(number, 3)
        left, right, bottom, top = image.get_extent()
        assert column < left < right < column + 1
        assert row < top < bottom < row + 1
        assert (np.asarray(image.get_array()) == 20 * number).all()
        assert frame.get_xy() == (left, top)
    assert axes.get_xlim() == (0, 3)
    assert axes.get_ylim() == (2, 0)


def test_marked_images_have_a_cross() -> None:
    axes = Figure().subplots()
    marked = [False, True, False, False, True]
    draw_images(axes, IMAGES, colors=5 * ["k"], n_columns=5, marked=marked)
    crosses = [line.get_xdata()[0] for line in axes.lines]
    assert [int(x) for x in crosses] == [1, 4]
    assert all(line.get_marker() == "x" for line in axes.lines)


def test_no_image_leaves_an_empty_panel() -> None:
    axes = Figure().subplots()
    draw_images(axes, [], colors=[], n_columns=4)
    assert (len(axes.images), axes.get_xlim()) == (0, (0, 4))
