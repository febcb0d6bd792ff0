from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unic.inference.given import open_given


def test_ids_are_paths_or_numbers(photos: Path, pixels: NDArray[np.uint8]) -> None:
    given = open_given([pixels[7], photos / "more", pixels[8:10], str(photos / "0.png")])
    assert list(given.ids) == [
        *("0", str(photos / "more/4.png"), str(photos / "more/5.png"), "3", "4"),
        str(photos / "0.png"),
    ]
    rows = [7, 4, 5, 8, 9, 0]
    assert len(given) == 6
    assert all((given[at] == pixels[row]).all() for at, row in enumerate(rows))


def test_one_image_is_one(photos: Path, pixels: NDArray[np.uint8]) -> None:
    for one in (pixels[0], pixels[:1], Image.fromarray(pixels[0]), photos / "0.png"):
        given = open_given(one)
        assert len(given) == 1
        assert (given[0] == pixels[0]).all()


def test_what_is_in_a_folder_and_no_image_is_left_out(photos: Path) -> None:
    (photos / "notes.txt").touch()
    assert len(open_given(photos)) == 6


def test_a_file_needs_no_suffix(photos: Path, pixels: NDArray[np.uint8]) -> None:
    (photos / "0.png").rename(photos / "zero")
    assert (open_given(photos / "zero")[0] == pixels[0]).all()


def test_faults_are_errors_or_noted(photos: Path) -> None:
    (photos / "0.png").write_text("no image")
    with pytest.raises(ValueError, match=r"images must be readable, cannot read .*0\.png"):
        open_given(photos / "0.png")[0]
    given = open_given([photos / "0.png", photos / "1.png"], is_lenient=True)
    assert given[0].shape == (1, 1, 3)
    assert given[1].shape == (8, 8, 3)
    assert list(given.faults) == [0]
    (photos / "1.png").unlink()  # it vanished in between
    assert given[1].shape == (1, 1, 3)
    assert "FileNotFoundError" in given.faults[1]


def test_pictures_of_32_bits_are_refused(pixels: NDArray[np.uint8]) -> None:
    picture = Image.fromarray(pixels[0][..., 0].astype(np.float32))
    with pytest.raises(ValueError, match=r"cannot read 0: .* got 32 \(mode F\)"):
        open_given(picture)[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there must be at least 1 image, got none"),
        ("absent.png", "there is none at absent.png"),
        (np.zeros((8, 8, 3), np.float32), r"uint8 of shape .* got float32 of shape \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"got uint8 of shape \(8, 8\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"got uint8 of shape \(2, 3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"got uint8 of shape \(0, 8, 3\)"),
        ([3], "images must be paths, pictures of Pillow or uint8 arrays, got int"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_given(images)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder must have images .* found none below"):
        open_given(tmp_path)
