from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unic.images.decoded import decode_images, open_decoded
from unic.images.images import FileImages
from unic.images.loaders import ViewLoader, split_rows
from unic.images.source import ImageSource
from unic.images.views import View

SIZES = [(40, 60), (61, 37), (32, 32), (20, 90), (33, 32)]  # height and width
IDS = {"train": ["0.png", "1.png", "2.png"], "test": ["3.png", "4.png"]}


@pytest.fixture
def root(tmp_path: Path) -> str:
    generator = np.random.default_rng(0)
    for row, (height, width) in enumerate(SIZES):
        pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
    return str(tmp_path)


def decode(header: Path, root: str, *, size: int = 32, n_workers: int = 1) -> None:
    images = {split: FileImages(ids, root) for split, ids in IDS.items()}
    decode_images(header, images, size=size, n_workers=n_workers, parameters={"size": size})


def views(ids: list[str], root: str, decoded: str | None) -> list[np.ndarray]:
    view = View(image_size=28, crop_pct=28 / 32, mean=(0.5,) * 3, std=(0.2,) * 3)
    images = ImageSource("folder", root, view, decoded).open(ids)
    loader = ViewLoader(images, view)
    rows = split_rows(len(images), 2)
    return [batch.numpy() for batch in loader.batches(rows, np.random.default_rng(0))]


@pytest.mark.parametrize("split", IDS)
def test_evaluation_views_of_decoded_images_are_those_of_the_files(
    split: str, root: str, tmp_path: Path
) -> None:
    header = tmp_path / "out" / "decoded.json"
    decode(header, root)
    found = views(IDS[split], root, str(header))
    for batch, expected in zip(found, views(IDS[split], root, None), strict=True):
        np.testing.assert_array_equal(batch, expected)


def test_a_square_image_of_the_size_is_kept(root: str, tmp_path: Path) -> None:
    header = tmp_path / "out" / "decoded.json"
    decode(header, root)
    images = open_decoded(str(header), IDS["train"])
    assert (len(images), images[0].shape, images[0].dtype) == (3, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(images[2], FileImages(["2.png"], root)[0])


def test_small_images_are_enlarged(root: str, tmp_path: Path) -> None:
    decode(tmp_path / "out" / "decoded.json", root, size=64)
    header = str(tmp_path / "out" / "decoded.json")
    assert open_decoded(header, IDS["test"])[0].shape == (64, 64, 3)


def test_the_number_of_workers_changes_nothing(root: str, tmp_path: Path) -> None:
    for n_workers in (1, 3):
        decode(tmp_path / str(n_workers) / "decoded.json", root, n_workers=n_workers)
    for name in ("decoded.json", "decoded.bin"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_names_an_image_that_cannot_be_decoded(root: str, tmp_path: Path) -> None:
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"cannot decode {tmp_path}/3.png"):
        decode(tmp_path / "out" / "decoded.json", root, n_workers=2)
    assert not (tmp_path / "out" / "decoded.json").exists()


def test_refuses_other_images_and_damaged_ones(root: str, tmp_path: Path) -> None:
    header = tmp_path / "out" / "decoded.json"
    decode(header, root)
    with pytest.raises(ValueError, match="must hold the 2 images of the split, it holds others"):
        open_decoded(str(header), ["0.png", "1.png"])
    content = bytearray(header.with_suffix(".bin").read_bytes())
    content[100] ^= 1
    header.with_suffix(".bin").write_bytes(content)
    for split, ids in IDS.items():
        images = open_decoded(str(header), ids)
        with pytest.raises(ValueError, match="is damaged: its checksum differs at images 0 to 4"):
            images[len(IDS[split]) - 1]


def test_images_have_the_rows_of_their_split(root: str, tmp_path: Path) -> None:
    header = tmp_path / "out" / "decoded.json"
    decode(header, root)
    images = open_decoded(str(header), IDS["test"])
    np.testing.assert_array_equal(images[-1], images[1])
    for row in (2, -3):
        with pytest.raises(IndexError):
            images[row]
