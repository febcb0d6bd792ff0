"""Every data set, from its own file formats to the labels that training may know."""

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import WRITERS, write_fgvc_aircraft
from unic.images.datasets import DATASETS, list_images, open_images, read_labels
from unic.images.splits import draw_labeled, split_labels
from unic.storage.known_labels import UNKNOWN


@pytest.mark.parametrize("layout", WRITERS)
def test_from_files_to_known_labels(layout: str, tmp_path: Path) -> None:
    tiny = WRITERS[layout](tmp_path / "data")
    ids = list_images(tiny.name, root=tiny.root, manifest=tiny.manifest)
    assert {split: len(found) for split, found in ids.items()} == {
        split: len(labels) for split, labels in tiny.labels.items()
    }
    assert list(ids) == ["train", "test"]
    for split, split_ids in ids.items():
        images = open_images(tiny.name, split_ids, root=tiny.root)
        assert (len(images), list(images.ids)) == (len(split_ids), split_ids)
        for row, color in enumerate(tiny.colors[split]):
            assert images[row].dtype == np.uint8
            assert np.abs(images[row].mean((0, 1)) - color).max() < 3  # of JPEG
    annotations = read_labels(tiny.name, ids, root=tiny.root, manifest=tiny.manifest)
    assert annotations is not None
    assert annotations.class_names == tiny.class_names
    assert {s: found.tolist() for s, found in annotations.labels.items()} == tiny.labels
    gcd = {"old_classes": [2, 0], "labeled_fraction": 0.5, "split_seed": 0}
    split = split_labels(annotations, ids, gcd=gcd)
    train = np.array(tiny.labels["train"])
    old = np.flatnonzero(np.isin(train, [2, 0]))
    chosen = old[draw_labeled(len(old), labeled_fraction=0.5, split_seed=0)]
    assert set(np.flatnonzero(split.known_labels != UNKNOWN)) == set(chosen)
    np.testing.assert_array_equal(split.known_labels[chosen] == 0, train[chosen] == 2)


def test_every_data_set_has_a_small_copy() -> None:
    assert {layout.split()[0] for layout in WRITERS} | {"digits"} == set(DATASETS)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits", "folder", "manifest"}))
def test_says_what_is_missing_and_how_it_must_lie(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name} needs .*{tmp_path}") as raised:
        list_images(name, root=str(tmp_path))
    assert f"Expected layout:\n  {tmp_path}/" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "root", "manifest", "message"),
    [
        ("cars", "data", None, "one of folder, .*, got cars"),
        ("cifar10", None, None, "data.root must be set for data.name cifar10"),
        ("cifar10", "data", "list.csv", "set for manifest and no other, got cifar10"),
        ("manifest", "data", None, "set for manifest and no other, got manifest"),
    ],
)
def test_refuses_what_no_data_set_needs(
    name: str, root: str | None, manifest: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        list_images(name, root=root, manifest=manifest)


@pytest.mark.parametrize("layout", ["cub200", "stanford_cars", "fgvc_aircraft"])
def test_a_listed_image_must_be_there(layout: str, tmp_path: Path) -> None:
    tiny = WRITERS[layout](tmp_path)
    gone = list_images(tiny.name, root=tiny.root)["train"][3]
    (tmp_path / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"{layout} needs 1 more .*, first {gone}"):
        list_images(tiny.name, root=tiny.root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_split_may_be_empty(split: str, tmp_path: Path) -> None:
    write_fgvc_aircraft(tmp_path)
    name = "trainval" if split == "train" else "test"
    (tmp_path / f"fgvc-aircraft-2013b/data/images_variant_{name}.txt").write_text("")
    with pytest.raises(ValueError, match=f"the {split} split of fgvc_aircraft must have images"):
        list_images("fgvc_aircraft", root=str(tmp_path))


@pytest.mark.parametrize("layout", ["cifar10", "cub200", "manifest"])
def test_labels_are_of_the_images_of_the_index(layout: str, tmp_path: Path) -> None:
    tiny = WRITERS[layout](tmp_path)
    ids = list_images(tiny.name, root=tiny.root, manifest=tiny.manifest)
    few = {"train": ids["train"][::-3], "test": ids["test"][:2]}
    annotations = read_labels(tiny.name, few, root=tiny.root, manifest=tiny.manifest)
    assert annotations is not None
    assert annotations.labels["train"].tolist() == tiny.labels["train"][::-3]
    with pytest.raises(ValueError, match=r"1 are gone \(first train/99\)"):
        read_labels(tiny.name, {"train": ["train/99"]}, root=tiny.root, manifest=tiny.manifest)
