"""True classes as the files give them, against plain loops."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.images.readers.annotations import (
    Annotations,
    Catalog,
    Entry,
    check_ids,
    find_labels,
    first_of,
    make_catalog,
    number_classes,
)

ENTRIES = [
    Entry("b/2.jpg", 1, "train"),
    Entry("z.jpg", 0, "test"),
    Entry("a/1.jpg", 0, "train"),
    Entry("a/3.jpg", 2, "test"),
    Entry("a/0.jpg", 1, "train"),
]
NAMES = ["crow", "wren", "gull"]


def catalog_in(root: Path, entries: list[Entry] = ENTRIES) -> Catalog:
    for entry in entries:
        (root / entry.image_id).parent.mkdir(parents=True, exist_ok=True)
        (root / entry.image_id).touch()
    return make_catalog("cub200", root, entries, NAMES)


# Against plain loops


def test_a_catalog_has_the_entries_of_each_split_in_their_order(tmp_path: Path) -> None:
    catalog = catalog_in(tmp_path)
    assert catalog.annotations is not None
    for split in ("train", "test"):
        expected = [(entry.image_id, entry.label) for entry in ENTRIES if entry.split == split]
        labels = catalog.annotations.labels[split]
        assert labels.dtype == np.int64
        assert list(zip(catalog.ids[split], labels.tolist(), strict=True)) == expected
    assert catalog.annotations.class_names == NAMES


def test_labels_are_found_image_by_image(tmp_path: Path) -> None:
    label_of = {entry.image_id: entry.label for entry in ENTRIES}
    ids = {"train": ["z.jpg", "a/0.jpg"], "test": ["b/2.jpg"], "other": []}
    found = find_labels(catalog_in(tmp_path), ids)
    assert found is not None
    for split, split_ids in ids.items():
        assert found.labels[split].tolist() == [label_of[i] for i in split_ids]
        assert found.labels[split].dtype == np.int64


def test_classes_are_numbered_in_the_sorted_order_of_their_names() -> None:
    names = {"train": ["10", "2", "10", "B", "a"], "test": ["a", "2"]}
    annotations = number_classes(names, "labels.csv")
    assert annotations.class_names == ["10", "2", "B", "a"]
    for split, split_names in names.items():
        numbers = annotations.labels[split]
        assert [annotations.class_names[number] for number in numbers] == split_names


# Laws


def test_without_annotations_there_are_no_labels() -> None:
    assert find_labels(Catalog({"train": ["1.png"]}, None), {"train": ["1.png"]}) is None


@pytest.mark.parametrize("image_id", ["a..b/1.png", "..a", "a/..b", "./1.png", "ä ö/1.png"])
def test_dots_within_a_name_stay_below_the_root(image_id: str) -> None:
    check_ids([image_id, "other.png"], "the list")


def test_the_first_of_names_is_told_where_there_is_one() -> None:
    assert first_of(["b", "a"]) == " (first b)"
    assert first_of([]) == ""


# Refusals


@pytest.mark.parametrize("image_id", ["/a/1.png", "../1.png", "a/../../1.png", "a/..", "", "a\0b"])
def test_refuses_paths_that_leave_the_root(image_id: str) -> None:
    message = (
        f"the list must have relative paths that stay below data.root, 1 do not (first {image_id})"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_ids(["a/1.png", image_id], "the list")


def test_refuses_images_that_are_named_twice() -> None:
    message = "the list must name an image once, 2 are named more than once (first a.png)"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_ids(["c.png", "b.png", "a.png", "b.png", "a.png", "a.png"], "the list")


def test_refuses_an_image_of_both_splits(tmp_path: Path) -> None:
    twice = [*ENTRIES, Entry("z.jpg", 0, "train")]
    with pytest.raises(ValueError, match=r"the lists of cub200 in .* more than once .first z\.jpg"):
        catalog_in(tmp_path, twice)


def test_refuses_an_image_that_is_not_there(tmp_path: Path) -> None:
    catalog_in(tmp_path)
    (tmp_path / "a" / "3.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"cub200 needs 1 more .*, first a/3\.jpg"):
        make_catalog("cub200", tmp_path, ENTRIES, NAMES)


@pytest.mark.parametrize(("label", "got"), [(3, "[3]"), (-1, "[-1]")])
def test_refuses_a_class_that_does_not_exist(label: int, got: str, tmp_path: Path) -> None:
    entries = [*ENTRIES, Entry("new.jpg", label, "test")]
    with pytest.raises(ValueError, match=re.escape(f"numbers below 3, counted from 0, got {got}")):
        catalog_in(tmp_path, entries)


def test_refuses_images_that_are_gone() -> None:
    labels: dict[str, NDArray[np.int64]] = {"train": np.array([0])}
    catalog = Catalog({"train": ["1.png"]}, Annotations(labels, ["a"]))
    with pytest.raises(ValueError, match=re.escape("2 are gone (first 2.png); run again")):
        find_labels(catalog, {"train": ["1.png", "2.png"], "test": ["3.png"]})


def test_refuses_classes_without_a_training_image() -> None:
    names = {"train": ["a"], "test": ["c", "a", "b"]}
    message = "labels.csv: every class of the test split must have training images, 2 have none"
    with pytest.raises(ValueError, match=re.escape(f"{message} (first b)")):
        number_classes(names, "labels.csv")
