import gzip
import hashlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from tests.tiny import (
    Tiny,
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_pickle,
    write_stl10,
)
from unic.images.readers.arrays import open_rows, read_rows


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def known_to_torchvision(kind: type, folder: Path) -> type:
    """torchvision's own reader, told that the small files are the right ones."""
    sums = {list_name: getattr(kind, list_name, ()) for list_name in ("train_list", "test_list")}
    changed: dict[str, Any] = {
        list_name: [[name, md5(folder / name)] for name, _ in entries]
        for list_name, entries in sums.items()
        if all((folder / name).is_file() for name, _ in entries)
    }
    if hasattr(kind, "meta"):
        meta = kind.meta
        changed["meta"] = meta | {"md5": md5(folder / meta["filename"])}
    return type(kind.__name__, (kind,), changed)


def cifar10(root: Path, split: str) -> Any:
    kind = known_to_torchvision(datasets.CIFAR10, root / "cifar-10-batches-py")
    return kind(root, train=split == "train")


def cifar100(root: Path, split: str) -> Any:
    kind = known_to_torchvision(datasets.CIFAR100, root / "cifar-100-python")
    return kind(root, train=split == "train")


def stl10(root: Path, split: str) -> Any:
    folder = root / "stl10_binary"
    kind = known_to_torchvision(datasets.STL10, folder)
    kind.train_list = kind.train_list[:2]  # type: ignore[attr-defined]
    kind._check_integrity = lambda _: True  # type: ignore[attr-defined]
    return kind(root, split)


def fashion_mnist(root: Path, split: str) -> Any:
    return datasets.FashionMNIST(root, train=split == "train")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("write", "read"),
    [
        (write_cifar10, cifar10),
        (write_cifar100, cifar100),
        (write_stl10, stl10),
        (write_fashion_mnist, fashion_mnist),
    ],
)
def test_reads_what_torchvision_reads(
    write: Callable[[Path], Tiny], read: Callable[[Path, str], Any], split: str, tmp_path: Path
) -> None:
    tiny = write(tmp_path)
    expected = read(tmp_path, split)
    catalog = read_rows(tiny.name, tmp_path)
    images = open_rows(tiny.name, catalog.ids[split], tmp_path)
    assert catalog.annotations is not None
    assert len(images) == len(expected) > 0
    assert catalog.annotations.class_names == list(expected.classes)
    for row, (image, label) in enumerate(expected):
        np.testing.assert_array_equal(images[row], np.asarray(image.convert("RGB")))
        assert catalog.annotations.labels[split][row] == int(label)


def test_opens_chosen_rows_of_both_splits(tmp_path: Path) -> None:
    tiny = write_cifar10(tmp_path)
    images = open_rows("cifar10", ["test/3", "train/29", "train/0"], tmp_path)
    places = (("test", 3), ("train", 29), ("train", 0))
    for row, (split, place) in enumerate(places):
        np.testing.assert_allclose(images[row].mean((0, 1)), tiny.colors[split][place])


# Refusals


class Thief:
    """Runs a command when it is loaded by pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    stolen = tmp_path / "stolen"
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.write_bytes(pickle.dumps({"labels": Thief(stolen)}))
    with pytest.raises(ValueError, match=r"test_batch must be a batch .* nothing but arrays, got"):
        read_rows("cifar10", tmp_path)
    assert not stolen.exists()
    pickle.loads(batch.read_bytes())
    assert stolen.exists()  # so the file is one that would have run code


@pytest.mark.parametrize("kept", [0, 100])
def test_names_a_damaged_batch(kept: int, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"data_batch_3 must be a batch of cifar10"):
        read_rows("cifar10", tmp_path)


def test_names_a_missing_batch(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    message = "cifar10 needs 1 more files or folders .* first cifar-10-batches-py/data_batch_4"
    with pytest.raises(FileNotFoundError, match=message):
        read_rows("cifar10", tmp_path)


def test_refuses_labels_of_other_classes(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    meta = tmp_path / "cifar-10-batches-py" / "batches.meta"
    write_pickle(meta, {"label_names": ["cat", "dog"]})
    with pytest.raises(ValueError, match=r"must be of 2 classes, got \[0, 1, 2, 3"):
        read_rows("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\x08\x03" + bytes(20), "must begin with 00 00 08 01, got 00 00 08 03"),
        (b"\0\0", "must begin with 00 00 08 01, got 00 00"),
        (b"\0\0\x08\x01\0\0\0\x05abc", "must hold 5 values, has 3"),
    ],
)
def test_refuses_what_is_no_idx_file(content: bytes, message: str, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_rows("fashion_mnist", tmp_path)


@pytest.mark.parametrize("kept", [10, 40])
def test_names_a_damaged_archive(kept: int, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, compressed=True)
    path = tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"ubyte\.gz must be compressed by gzip"):
        read_rows("fashion_mnist", tmp_path)


def test_plain_files_precede_compressed_ones(tmp_path: Path) -> None:
    tiny = write_fashion_mnist(tmp_path)
    path = tmp_path / "FashionMNIST/raw/train-labels-idx1-ubyte"
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(b"other"))
    annotations = read_rows("fashion_mnist", tmp_path).annotations
    assert annotations is not None
    assert annotations.labels["train"].tolist() == tiny.labels["train"]


def test_refuses_a_part_of_an_image(tmp_path: Path) -> None:
    write_stl10(tmp_path)
    with (tmp_path / "stl10_binary/train_X.bin").open("ab") as file:
        file.write(b"rest")
    with pytest.raises(ValueError, match=r"train_X\.bin must hold images .*, has 829,444"):
        open_rows("stl10", ["train/0"], tmp_path)


def test_refuses_rows_that_have_gone(tmp_path: Path) -> None:
    write_stl10(tmp_path)
    with pytest.raises(ValueError, match=r"must have the images of the index, not train/30"):
        open_rows("stl10", ["train/29", "train/30"], tmp_path)
