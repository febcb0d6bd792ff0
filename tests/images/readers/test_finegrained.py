import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import FGVCAircraft

from tests.tiny import write_cub200, write_fgvc_aircraft, write_stanford_cars
from unic.images.readers.finegrained import read_aircraft, read_cars, read_cub


def test_aircraft_are_those_of_torchvision(tmp_path: Path) -> None:
    write_fgvc_aircraft(tmp_path)
    catalog = read_aircraft(tmp_path)
    assert catalog.annotations is not None
    for split, name in (("train", "trainval"), ("test", "test")):
        expected = FGVCAircraft(tmp_path, name, "variant")
        assert [str(tmp_path / i) for i in catalog.ids[split]] == expected._image_files
        assert catalog.annotations.labels[split].tolist() == expected._labels
    assert catalog.annotations.class_names == expected.classes


def test_the_devkit_of_cars_precedes_the_other_layout(tmp_path: Path) -> None:
    write_stanford_cars(tmp_path)
    savemat(tmp_path / "cars_annos.mat", {"annotations": np.zeros(0), "class_names": "none"})
    assert read_cars(tmp_path).ids["train"][0] == "cars_train/00001.jpg"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_refuses_lists_of_cub_that_differ(tmp_path: Path) -> None:
    write_cub200(tmp_path)
    replace(tmp_path / "CUB_200_2011/image_class_labels.txt", "\n17 ", "\n91 ")
    with pytest.raises(ValueError, match=r"image_class_labels\.txt of cub200 must have the images"):
        read_cub(tmp_path)


@pytest.mark.parametrize(("number", "got"), [("9", "[8]"), ("0", "[-1]")])
def test_refuses_class_numbers_that_do_not_exist(number: str, got: str, tmp_path: Path) -> None:
    write_cub200(tmp_path)
    path = tmp_path / "CUB_200_2011/image_class_labels.txt"
    path.write_text(re.sub(r"^17 \d+$", f"17 {number}", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(ValueError, match=re.escape(f"numbers below 5, counted from 0, got {got}")):
        read_cub(tmp_path)


def test_refuses_an_image_outside_the_root(tmp_path: Path) -> None:
    write_cub200(tmp_path)
    path = tmp_path / "CUB_200_2011/images.txt"
    path.write_text(re.sub(r"^17 .*$", "17 ../../../secret.jpg", path.read_text(), flags=re.M))
    with pytest.raises(ValueError, match=r"stay below data\.root, 1 do not .*\.\./secret\.jpg"):
        read_cub(tmp_path)


def test_refuses_an_image_that_is_listed_twice(tmp_path: Path) -> None:
    write_fgvc_aircraft(tmp_path)
    path = tmp_path / "fgvc-aircraft-2013b/data/images_variant_test.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"1 are named more than once \(first .*/0004000\.jpg"):
        read_aircraft(tmp_path)


def test_refuses_a_variant_that_is_not_listed(tmp_path: Path) -> None:
    write_fgvc_aircraft(tmp_path)
    path = tmp_path / "fgvc-aircraft-2013b/data/images_variant_test.txt"
    replace(path, "Boeing 717", "Boeing 718")
    with pytest.raises(ValueError, match=r"of the 5 variants in each line, got '\d+ Boeing 718'"):
        read_aircraft(tmp_path)


def test_names_the_annotations_of_cars_that_are_missing(tmp_path: Path) -> None:
    write_stanford_cars(tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 more .* first cars_test_annos_withlabels\.mat"):
        read_cars(tmp_path)
