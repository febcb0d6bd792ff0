"""Sources of images, against data sets opened by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unic.images.datasets import open_images
from unic.images.decoded import decode_images
from unic.images.source import ImageSource
from unic.images.views import View

IDS = {"train": ["7", "0", "12"], "test": ["4", "9"]}
VIEW = {"image_size": 8, "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.2] * 3}
SETTINGS: dict[str, Any] = {"name": "digits", "root": None, "view": VIEW}


def decode(header: Path) -> str:
    images = ImageSource.parse(SETTINGS, decoded=None).open_splits(IDS)
    decode_images(header, images, size=8, n_workers=1, parameters={})
    return str(header)


def test_a_source_is_parsed_from_the_parameters_of_a_rule() -> None:
    expected = ImageSource("digits", None, View(8, 1.0, [0.5] * 3, [0.2] * 3), "decoded.json")
    assert ImageSource.parse(SETTINGS, decoded="decoded.json") == expected
    assert SETTINGS["view"] is VIEW  # and left alone


@pytest.mark.parametrize("is_decoded", [False, True])
def test_images_are_those_of_the_data_set(is_decoded: bool, tmp_path: Path) -> None:
    decoded = decode(tmp_path / "decoded.json") if is_decoded else None
    source = ImageSource.parse(SETTINGS, decoded=decoded)
    splits = source.open_splits(IDS)
    assert list(splits) == list(IDS)
    for split, ids in IDS.items():
        expected = open_images("digits", ids, root=None)
        for images in (splits[split], source.open(ids)):
            assert list(images.ids) == ids
            for row in range(len(ids)):
                np.testing.assert_array_equal(images[row], expected[row])


def test_decoded_images_are_read_in_place_of_the_files(tmp_path: Path) -> None:
    source = ImageSource.parse(SETTINGS, decoded=decode(tmp_path / "decoded.json"))
    elsewhere = ImageSource("folder", str(tmp_path / "gone"), source.view, source.decoded)
    np.testing.assert_array_equal(elsewhere.open(IDS["test"])[1], source.open(IDS["test"])[1])


def test_refuses_settings_that_no_source_has() -> None:
    with pytest.raises(TypeError, match="crop"):
        ImageSource.parse(SETTINGS | {"crop": 1}, decoded=None)


def test_refuses_decoded_images_that_are_not_there_or_others(tmp_path: Path) -> None:
    source = ImageSource.parse(SETTINGS, decoded=str(tmp_path / "decoded.json"))
    with pytest.raises(FileNotFoundError, match=r"decoded\.json"):
        source.open(IDS["train"])
    decode(tmp_path / "decoded.json")
    with pytest.raises(ValueError, match="must hold the 2 images of the split, it holds others"):
        source.open(["4", "10"])
