"""Images in folders, against torchvision."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from tests.images.files import write_image
from tests.tiny import write_herbarium19
from unic.images.datasets import list_images, read_labels
from unic.images.readers.folders import read_herbarium


def write_images(root: Path, *image_ids: str) -> str:
    for image_id in image_ids:
        write_image(root / image_id)
    return str(root)


def write_label_file(path: Path, labels: Mapping[str, str]) -> str:
    rows = [f"{image_id},{label}" for image_id, label in labels.items()]
    path.write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return str(path)


# Folders


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_reads_train_and_test_folders(held_out: str, tmp_path: Path) -> None:
    root = write_images(tmp_path, f"{held_out}/b/3.png", "train/b/2.png", "train/a/1.png")
    ids = list_images("folder", root=root)
    assert ids == {"train": ["train/a/1.png", "train/b/2.png"], "test": [f"{held_out}/b/3.png"]}
    annotations = read_labels("folder", ids, label_file=None)
    assert annotations is not None
    assert annotations.class_names == ["a", "b"]
    assert {s: rows.tolist() for s, rows in annotations.labels.items()} == {
        "train": [0, 1],
        "test": [1],
    }


def test_prefers_the_test_folder_to_the_validation_folder(tmp_path: Path) -> None:
    root = write_images(tmp_path, "train/1.png", "test/2.png", "val/3.png")
    assert list_images("folder", root=root) == {"train": ["train/1.png"], "test": ["test/2.png"]}


def test_one_folder_is_all_training(tmp_path: Path) -> None:
    root = write_images(tmp_path, "b/1.png", "a/2.png")
    ids = list_images("folder", root=root)
    assert ids == {"train": ["a/2.png", "b/1.png"]}
    annotations = read_labels("folder", ids, label_file=None)
    assert annotations is not None
    assert annotations.labels["train"].tolist() == [0, 1]
    assert annotations.labels["train"].dtype == np.int64


@pytest.mark.parametrize("image_ids", [["1.png", "2.png"], ["train/1.png", "test/2.png"]])
def test_flat_folders_have_no_labels(image_ids: list[str], tmp_path: Path) -> None:
    ids = list_images("folder", root=write_images(tmp_path, *image_ids))
    assert read_labels("folder", ids, label_file=None) is None


def test_images_beside_class_folders_leave_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = list_images("folder", root=write_images(tmp_path, "a/1.png", "b/2.png", "stray.png"))
    assert read_labels("folder", ids, label_file=None) is None
    assert "1 do not (first stray.png)" in caplog.text


def test_takes_suffixes_in_any_case_and_nothing_but_images(tmp_path: Path) -> None:
    root = write_images(tmp_path, "1.PNG", "2.JpEg", "3.webp", "4.tiff")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    assert list_images("folder", root=root) == {"train": ["1.PNG", "2.JpEg", "3.webp", "4.tiff"]}


@pytest.mark.parametrize("split", ["", "train/"])
def test_nested_images_belong_to_the_first_class_folder(split: str, tmp_path: Path) -> None:
    image_ids = [f"{split}cat/2.png", f"{split}cat/old/1.png", f"{split}dog/old/1.png"]
    root = write_images(tmp_path, *image_ids)
    ids = list_images("folder", root=root)
    annotations = read_labels("folder", ids, label_file=None)
    assert annotations is not None
    assert ids["train"] == image_ids
    assert annotations.class_names == ["cat", "dog"]
    assert annotations.labels["train"].tolist() == [0, 0, 1]


def test_order_and_labels_are_those_of_torchvision(tmp_path: Path) -> None:
    names = ["a/x.png", "a b/y.png", "B/2.png", "B/10.png", "B/Z/1.png", "a/X.png", "a/b/0.png"]
    root = write_images(tmp_path, *names)
    expected = ImageFolder(root)
    ids = list_images("folder", root=root)
    annotations = read_labels("folder", ids, label_file=None)
    assert annotations is not None
    assert ids["train"] == [Path(p).relative_to(root).as_posix() for p, _ in expected.samples]
    assert annotations.labels["train"].tolist() == expected.targets
    assert annotations.class_names == expected.classes


def test_follows_links_to_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", "1.png")
    root = write_images(tmp_path / "root", "dog/2.png")
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere")
    assert list_images("folder", root=root) == {"train": ["cat/1.png", "dog/2.png"]}


LOOPS = {  # links below the root, and those of them that lead back
    "to itself": ({"a/back": "."}, ["a/back"]),
    "to the root": ({"a/back": ".."}, ["a/back"]),
    "above the root": ({"back": "../.."}, ["back"]),
    "by an absolute path": ({"a/b/back": "{root}/a"}, ["a/b/back"]),
    "through each other": ({"a/to_c": "../c", "c/to_a": "../a"}, ["a/to_c/to_a", "c/to_a/to_c"]),
    "by a link to a link": ({"a/back": "other", "a/other": "."}, ["a/back", "a/other"]),
    "from outside": ({"a/out": "../../outside", "../outside/in": "../root"}, ["a/out/in"]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_link_into_a_folder_it_lies_in_is_not_followed(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    links, loops = LOOPS[name]
    root = Path(write_images(tmp_path / "root", "a/1.png", "a/b/2.png", "c/3.png"))
    (tmp_path / "outside").mkdir()
    for link, target in links.items():
        Path(root, link).symlink_to(target.format(root=root))
    expected = ["a/1.png", "a/b/2.png", "c/3.png"]
    if name == "through each other":
        expected = sorted([*expected, "a/to_c/3.png", "c/to_a/1.png", "c/to_a/b/2.png"])
    with caplog.at_level(logging.INFO, logger="unic"):
        assert list_images("folder", root=str(root)) == {"train": expected}
    (line,) = [record.message for record in caplog.records]
    assert line == (
        "links that lead back into a folder they lie in are not followed, "
        f"{len(loops)} do (first {root}/{loops[0]})"
    )


def test_two_links_to_one_folder_are_two_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "elsewhere", "1.png", "deep/2.png")
    root = write_images(tmp_path / "root", "dog/3.png")
    for name in ("cat", "cow"):
        (tmp_path / "root" / name).symlink_to("../elsewhere")
    (tmp_path / "root" / "cow_again").symlink_to("cow")
    expected = [f"{c}/{i}.png" for c in ("cat", "cow", "cow_again") for i in ("1", "deep/2")]
    assert list_images("folder", root=root) == {"train": [*expected, "dog/3.png"]}
    assert [Path(p).relative_to(root).as_posix() for p, _ in ImageFolder(root).samples] == [
        *expected,
        "dog/3.png",
    ]
    assert caplog.records == []


def test_the_order_of_creation_changes_nothing(tmp_path: Path) -> None:
    names = [f"{folder}/{number}.png" for folder in "cab" for number in (3, 1, 2)]
    first = list_images("folder", root=write_images(tmp_path / "1", *names))
    assert first == list_images("folder", root=write_images(tmp_path / "2", *reversed(names)))
    assert first["train"] == sorted(names)


def test_refuses_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is none at {tmp_path}/absent"):
        list_images("folder", root=str(tmp_path / "absent"))


@pytest.mark.parametrize(("folders", "split"), [([], "train"), (["train", "test"], "train")])
def test_refuses_empty_folders(folders: list[str], split: str, tmp_path: Path) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match=f"the {split} split must have images .*{tmp_path}"):
        list_images("folder", root=str(tmp_path))


def test_refuses_an_empty_test_folder(tmp_path: Path) -> None:
    root = write_images(tmp_path, "train/1.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="the test split must have images"):
        list_images("folder", root=root)


def test_refuses_test_classes_without_training_images() -> None:
    ids = {"train": ["train/a/1.png"], "test": ["test/a/2.png", "test/c/3.png", "test/b/4.png"]}
    with pytest.raises(ValueError, match=re.escape("test split must have training images, 2 have")):
        read_labels("folder", ids, label_file=None)


# Label files


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_label_file_precedes_class_folders(mark: str, tmp_path: Path) -> None:
    ids = {"train": ["b/1.png", "a/2.png"], "test": ["a/3.png"]}
    labels = tmp_path / "labels.csv"
    text = 'label,split,path\nzebra,x,b/1.png\n"ant, red",y,a/2.png\nzebra,z,a/3.png\n'
    labels.write_text(mark + text, encoding="utf-8")
    annotations = read_labels("folder", ids, label_file=str(labels))
    assert annotations is not None
    assert annotations.class_names == ["ant, red", "zebra"]
    assert annotations.labels["train"].tolist() == [1, 0]
    assert annotations.labels["test"].tolist() == [1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"1.png": "a"}, "1 images have no label (first 2.png), 0 labels have no image"),
        ({"1.png": "a", "2.png": ""}, "1 images have no label (first 2.png)"),
        (
            {"1.png": "a", "2.png": "b", "4.png": "c", "3.png": "c"},
            "0 images have no label, 2 labels have no image (first 3.png)",
        ),
        ({"./1.png": "a", "2.png": "b"}, "1 labels have no image (first ./1.png)"),
    ],
)
def test_refuses_labels_that_do_not_fit(
    labels: dict[str, str], message: str, tmp_path: Path
) -> None:
    label_file = write_label_file(tmp_path / "labels.csv", labels)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_labels("folder", {"train": ["1.png", "2.png"]}, label_file=label_file)


def test_refuses_two_labels_of_one_image(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n1.png,a\n1.png,b\n")
    with pytest.raises(ValueError, match=re.escape("1 are twice (first 1.png)")):
        read_labels("folder", {"train": ["1.png"]}, label_file=str(labels))


@pytest.mark.parametrize(
    ("text", "got"), [("file,label\n1.png,a\n", "['file', 'label']"), ("", "None")]
)
def test_refuses_other_columns(text: str, got: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"columns path and label, got {got}")):
        read_labels("folder", {"train": ["1.png"]}, label_file=str(labels))


def test_refuses_a_missing_label_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"label_file must be .*absent\.csv"):
        read_labels("folder", {"train": ["1.png"]}, label_file=str(tmp_path / "absent.csv"))


def test_herbarium_classes_are_sorted_as_text(tmp_path: Path) -> None:
    write_herbarium19(tmp_path)
    annotations = read_herbarium(tmp_path).annotations
    assert annotations is not None
    assert annotations.class_names == ["0", "1", "10", "11", "2"]
