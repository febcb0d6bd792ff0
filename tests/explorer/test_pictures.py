import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.experiment import N_IMAGES, ROOT
from tests.explorer.exhibits import write_exhibit
from unic.explorer.exhibits import open_exhibit
from unic.explorer.pictures import Pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_exhibit(tmp_path / "results" / "toy")


def make(folder: Path, **options: int) -> Pictures:
    exhibit = open_exhibit(folder)
    return Pictures(exhibit.artifacts.images, exhibit.image_ids, **options)


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_an_atlas_has_its_images_in_order(folder: Path) -> None:
    rows = list(range(N_IMAGES))
    atlas = read(make(folder).draw_atlas(rows, size=32))
    assert atlas.shape == (3 * 32, 16 * 32, 3)
    for i, row in enumerate(rows):
        middle = atlas[i // 16 * 32 + 16, i % 16 * 32 + 16].astype(int)
        assert np.abs(middle - [5 * row, 255 - 5 * row, 128]).max() < 8


def test_pictures_are_kept_but_not_all(folder: Path) -> None:
    pictures = make(folder, n_kept=2)
    first = pictures.draw_atlas([0, 1, 2], size=32)
    for path in (folder.parents[1] / ROOT).rglob("*.png"):
        path.unlink()
    assert pictures.draw_atlas([1, 2], size=32) != b""
    assert read(pictures.draw_atlas([2], size=32))[16, 16, 0] == pytest.approx(10, abs=8)
    gone = read(pictures.draw_atlas([0, 1, 2], size=32))
    assert gone.shape == read(first).shape
    assert gone[4, 16].tolist() == pytest.approx([176, 176, 176], abs=12)  # gray, with a cross


def test_a_picture_is_whole_and_not_too_large(folder: Path) -> None:
    pictures = make(folder)
    tiny = pictures.draw_picture(0)
    assert tiny.startswith(b"\x89PNG")
    assert read(tiny).shape == (30, 20, 3)
    path = folder.parents[1] / ROOT / open_exhibit(folder).image_ids[1]
    Image.new("RGB", (3000, 1500), "red").save(path)
    assert read(pictures.draw_picture(1)).shape == (512, 1024, 3)


def test_refuses_what_is_no_row(folder: Path) -> None:
    pictures = make(folder)
    for row in (-1, N_IMAGES):
        with pytest.raises(ValueError, match="row must be in 0 to 39"):
            pictures.draw_picture(row)
        with pytest.raises(ValueError, match="row must be in 0 to 39"):
            pictures.draw_atlas([0, row], size=32)
    with pytest.raises(ValueError, match="rows must be 1 to 256, got 0"):
        pictures.draw_atlas([], size=32)
    with pytest.raises(ValueError, match="size must be one of"):
        pictures.draw_atlas([0], size=4096)
    (folder.parents[1] / ROOT / open_exhibit(folder).image_ids[3]).unlink()
    with pytest.raises(FileNotFoundError):
        pictures.draw_picture(3)
