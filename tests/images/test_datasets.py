"""Data sets through their one door: the subsets of ImageNet."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from tests.images.files import write_image
from unic.images.datasets import list_images, read_labels


def wnids(name: str) -> list[str]:
    return files("unic.images.readers").joinpath(f"class_lists/{name}.txt").read_text().split()


def write_imagenet(root: Path, classes: list[str]) -> str:
    for wnid in classes:
        write_image(root / "train" / wnid / f"{wnid}_1.JPEG")
        write_image(root / "val" / wnid / f"ILSVRC2012_val_{wnid}.JPEG")
    return str(root)


def test_reads_the_classes_of_a_subset_in_the_order_of_their_wnids(tmp_path: Path) -> None:
    classes = wnids("imagenet50")
    root = write_imagenet(tmp_path, [*reversed(classes), "n01440764"])  # the last is in no subset
    ids = list_images("imagenet50", root=root)
    annotations = read_labels("imagenet50", ids, label_file=None)
    assert annotations is not None
    assert ids["train"] == [f"train/{wnid}/{wnid}_1.JPEG" for wnid in classes]
    assert ids["test"] == [f"val/{wnid}/ILSVRC2012_val_{wnid}.JPEG" for wnid in classes]
    assert annotations.class_names == classes
    for split in ("train", "test"):
        assert annotations.labels[split].tolist() == list(range(50))


@pytest.mark.parametrize("folder", ["train", "val"])
def test_names_missing_imagenet_classes_and_the_layout(folder: str, tmp_path: Path) -> None:
    classes = wnids("imagenet50")
    root = write_imagenet(tmp_path, classes)
    for wnid in (classes[3], classes[7]):
        (tmp_path / folder / wnid).rename(tmp_path / f"removed_{wnid}")
    message = f"2 of its 50 class folders are missing in {root}/{folder}, first {classes[3]}, "
    with pytest.raises(FileNotFoundError, match=re.escape(message)) as raised:
        list_images("imagenet50", root=root)
    assert f"{root}/train/n01440764/n01440764_10026.JPEG" in str(raised.value)


def test_names_a_missing_imagenet_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"200 of its 200 .* {tmp_path}/absent/train"):
        list_images("imagenet200", root=str(tmp_path / "absent"))
