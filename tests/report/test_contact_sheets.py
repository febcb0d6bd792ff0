"""Contact sheets, against cells resized one by one."""

import numpy as np
import pytest
from PIL import Image

from unic.report.contact_sheets import contact_sheet


class TestContactSheet:
    def test_cells_equal_the_resized_images(self):
        rng = np.random.default_rng(0)
        images = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(4)]
        images.append(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
        sheet = contact_sheet(images, n_columns=3, cell_size=24)
        assert sheet.size == (72, 48)
        pixels = np.asarray(sheet)
        for i, image in enumerate(images):
            cell = pixels[24 * (i // 3) :, 24 * (i % 3) :][:24, :24]
            if i < 4:
                expected = image.repeat(3, 0).repeat(3, 1)
            else:
                expected = Image.fromarray(image).resize((24, 24), Image.Resampling.LANCZOS)
            np.testing.assert_array_equal(cell, expected)
        assert (pixels[24:, 48:] == 255).all()

    def test_the_middle_square_is_shown(self):
        image = np.zeros((4, 10, 3), np.uint8)
        image[:, 3:7] = 200
        sheet = contact_sheet([image], n_columns=6, cell_size=4)
        assert sheet.size == (4, 4)
        assert (np.asarray(sheet) == 200).all()

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((4, 4), np.uint8), r"uint8 of shape \(4, 4\)"),
            (np.zeros((4, 4, 3), np.float32), "got float32"),
            (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        ],
    )
    def test_other_arrays_are_refused(self, image, message):
        with pytest.raises(ValueError, match=message):
            contact_sheet([image], n_columns=1, cell_size=4)

    def test_no_image_and_no_cell_are_refused(self):
        with pytest.raises(ValueError, match="got none"):
            contact_sheet([], n_columns=1, cell_size=4)
        with pytest.raises(ValueError, match="got 0 and 4"):
            contact_sheet([np.zeros((4, 4, 3), np.uint8)], n_columns=0, cell_size=4)
