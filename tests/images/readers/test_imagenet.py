from pathlib import Path

import pytest

from tests.tiny import write_flat_imagenet, write_imagenet
from unic.images.readers.classes import read_wnids
from unic.images.readers.imagenet import SYNSET_LABELS, label_imagenet, list_imagenet


def test_flat_images_have_the_labels_of_class_folders(tmp_path: Path) -> None:
    """The same images, sorted into class folders by hand, give the same test split."""
    write_flat_imagenet("imagenet50", tmp_path)
    flat = list_imagenet("imagenet50", tmp_path)
    labels = label_imagenet("imagenet50", flat, tmp_path).labels["test"]
    wnids = read_wnids("imagenet50")
    for image_id, label in zip(flat["test"], labels.tolist(), strict=True):
        folder = tmp_path / "val" / wnids[label]
        folder.mkdir(exist_ok=True)
        (tmp_path / image_id).rename(folder / Path(image_id).name)
    sorted_ids = list_imagenet("imagenet50", tmp_path)
    assert [Path(i).name for i in sorted_ids["test"]] == [Path(i).name for i in flat["test"]]
    again = label_imagenet("imagenet50", sorted_ids, tmp_path).labels["test"]
    assert again.tolist() == labels.tolist() == [n for n in range(50) for _ in range(2)]


def test_flat_images_without_their_truth(tmp_path: Path) -> None:
    write_flat_imagenet("imagenet50", tmp_path, truth="list")
    (tmp_path / SYNSET_LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=r"classes of the images that lie flat in .*t12"):
        list_imagenet("imagenet50", tmp_path)


def test_flat_images_beyond_their_truth(tmp_path: Path) -> None:
    write_flat_imagenet("imagenet50", tmp_path, truth="list")
    (tmp_path / "val/ILSVRC2012_val_00000007.JPEG").rename(
        tmp_path / "val/ILSVRC2012_val_00000103.JPEG"
    )
    with pytest.raises(ValueError, match=r"to ILSVRC2012_val_00000102\.JPEG, .*_00000103"):
        list_imagenet("imagenet50", tmp_path)


def test_classes_without_a_flat_image(tmp_path: Path) -> None:
    write_flat_imagenet("imagenet50", tmp_path, truth="list")
    ids = list_imagenet("imagenet50", tmp_path)["test"]
    for image_id in ids[:2]:  # all of the first class
        (tmp_path / image_id).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"1 of its 50 .* first {read_wnids('imagenet50')[0]}"
    ):
        list_imagenet("imagenet50", tmp_path)


def test_empty_class_folders(tmp_path: Path) -> None:
    write_imagenet("imagenet50", tmp_path)
    for file in (tmp_path / "val").rglob("*.JPEG"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="imagenet50 needs images in its test split"):
        list_imagenet("imagenet50", tmp_path)
