"""Images that are read one by one."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images.files import write_image
from unic.images.datasets import open_images
from unic.images.images import ArrayImages, FileImages


@pytest.mark.parametrize("kept", [0, 10, 200])
def test_names_a_corrupt_image(kept: int, tmp_path: Path) -> None:
    write_image(tmp_path / "whole.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:kept])
    images = open_images("folder", ["whole.jpg", "broken.jpg"], root=str(tmp_path))
    assert images[0].shape == (4, 6, 3)
    with pytest.raises(ValueError, match=f"cannot decode {tmp_path}/broken.jpg"):
        images[1]


def test_names_an_image_too_large_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"huge\.png: Image size .24 pixels. exceeds limit"):
        open_images("folder", ["huge.png"], root=str(tmp_path))[0]


def test_names_an_image_that_has_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        open_images("folder", ["gone.png"], root=str(tmp_path))[0]


def test_image_files_are_told_apart_by_their_size_and_times(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(b"first")
    images = FileImages(["0.png"], str(tmp_path))
    before, found = path.stat(), images.fingerprint()
    assert images.fingerprint() == found
    path.write_bytes(b"other")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FileImages(["0.png"], str(tmp_path)).fingerprint() != found
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        images.fingerprint()


def test_images_in_memory_are_told_apart_by_their_pixels() -> None:
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    found = ArrayImages(["0", "1"], pixels).fingerprint()
    assert ArrayImages(["0", "1"], np.broadcast_to(pixels[:1], pixels.shape)).fingerprint() == found
    pixels[1, 3, 3, 2] = 1
    assert ArrayImages(["0", "1"], pixels).fingerprint() != found
