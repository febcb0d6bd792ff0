"""Image sets by name: their ids, their pixels, and apart from these their labels.

An image id is the path of the file below the root, with ``/``, or the row number of an array.
"""

import csv
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unic.data.decoding import decode_image

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEST_FOLDERS = ("test", "val")
IMAGENET_LAYOUT = """\
  {root}/train/n01440764/n01440764_10026.JPEG   one folder a class (wnid), 1,000 or just the needed
  {root}/val/n01440764/ILSVRC2012_val_00000293.JPEG
ImageNet is free for research after registration at image-net.org: get ILSVRC2012_img_train.tar and
ILSVRC2012_img_val.tar, unpack each class into a folder of its name and sort the validation images
into class folders by the devkit's ground truth, then set data.root of the experiment (or of
`defaults` in config/config.yaml) to that folder."""


class Images(Protocol):
    """Images that can be read one by one, in a fixed order."""

    @property
    def ids(self) -> Sequence[str]:
        """Image ids, row by row."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image: uint8, shape ``(h, w, 3)``, RGB."""


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory, all of one size."""

    ids: Sequence[str]
    pixels: NDArray[np.uint8]  # (n, h, w, 3)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image: uint8, shape ``(h, w, 3)``, RGB."""
        pixels: NDArray[np.uint8] = self.pixels[row]
        return pixels


@dataclass(frozen=True)
class FileImages:
    """Image files below a root."""

    ids: Sequence[str]
    root: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Decode an image file: uint8, shape ``(h, w, 3)``, RGB, upright.

        Raises:
            ValueError: If the file cannot be decoded; names it.
        """
        path = Path(self.root, self.ids[row])
        try:
            return decode_image(path)
        except FileNotFoundError:
            raise
        except Exception as error:  # Pillow raises all sorts on broken files
            raise ValueError(f"images must be readable, cannot decode {path}: {error}") from None


class Annotations(NamedTuple):
    """True classes of the images of each split."""

    labels: dict[str, NDArray[np.int64]]  # split to (n,), -1 nowhere
    class_names: list[str]


def list_images(name: str, *, root: str | None) -> dict[str, list[str]]:
    """Image ids of a data set by split, ``train`` first.

    Args:
        name: ``digits``, ``folder``, ``imagenet50``, ``imagenet100`` or ``imagenet200``.
        root: Folder of the files; not used by ``digits``.

    Raises:
        FileNotFoundError: If the folder is missing or not laid out as it must be; says how.
        ValueError: If there is no image in it.
    """
    if name == "digits":
        rows = range(len(_digits()[1]))
        return {
            "train": [str(row) for row in rows if row % 5 != 4],
            "test": [str(row) for row in rows if row % 5 == 4],
        }
    folder = Path(root or "")
    if name == "folder":
        return _list_folder(folder)
    return _list_imagenet(folder, name)


def open_images(name: str, ids: Sequence[str], *, root: str | None) -> Images:
    """Open images by their ids, in that order, for reading pixels."""
    if name == "digits":
        return ArrayImages(ids, _digits()[0][[int(image_id) for image_id in ids]])
    return FileImages(ids, str(root))


def read_labels(
    name: str, ids: Mapping[str, Sequence[str]], *, label_file: str | None
) -> Annotations | None:
    """Read the true class of every image.

    Classes are numbered in the sorted order of their names; for the ImageNet subsets that is
    the order of the wnids. A class folder is the first below the split's folder; its images may
    lie in folders of their own.

    Args:
        name: As for :func:`list_images`.
        ids: Image ids by split.
        label_file: CSV with columns ``path`` and ``label``, or None to take class folders.

    Returns:
        The labels, or None without a label file where images lie outside of class folders.

    Raises:
        ValueError: If an image has no label or two, a label has no image, or a test class has no
            training image; names the first.
    """
    if name == "digits":
        digits = _digits()[1]
        rows = {split: np.array([int(i) for i in split_ids]) for split, split_ids in ids.items()}
        return Annotations({s: digits[r] for s, r in rows.items()}, [str(d) for d in range(10)])
    if label_file is not None:
        named = _read_label_file(Path(label_file), [i for split in ids.values() for i in split])
        names = {split: [named[i] for i in split_ids] for split, split_ids in ids.items()}
    else:
        folders = {s: [_class_folder(i) for i in split_ids] for s, split_ids in ids.items()}
        if not any(folders["train"]):
            return None
        names = {s: [folder for folder in found if folder] for s, found in folders.items()}
        stray = [i for split_ids in ids.values() for i in split_ids if not _class_folder(i)]
        if stray:
            log.warning(
                "no labels: folders are classes only where every image lies in one, %d do not%s",
                len(stray),
                _first(stray),
            )
            return None
    return _number_classes(names)


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (1797, 8, 8, 3) and labels (1797,) of scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (n, 8, 8)
    return np.repeat(gray[..., None], 3, axis=3), digits.target.astype(np.int64)


def _list_folder(root: Path) -> dict[str, list[str]]:
    if not root.is_dir():
        raise FileNotFoundError(f"data.root must be a folder of images, there is none at {root}")
    test = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if (root / "train").is_dir():
        splits = {"train": _list_files(root, root / "train")}
        if test is not None:
            splits["test"] = _list_files(root, root / test)
    else:
        splits = {"train": _list_files(root, root)}
    for split, ids in splits.items():
        if not ids:
            raise ValueError(
                f"the {split} split must have images ({', '.join(sorted(IMAGE_SUFFIXES))}), "
                f"found none below {root}"
            )
    return splits


def _list_imagenet(root: Path, name: str) -> dict[str, list[str]]:
    wnids = files("unic.data").joinpath(f"class_lists/{name}.txt").read_text().split()
    splits = {}
    for split, folder in (("train", "train"), ("test", "val")):
        ids = [i for wnid in wnids for i in _list_files(root, root / folder / wnid)]
        lacking = [w for w in wnids if not (root / folder / w).is_dir()]
        if lacking or not ids:
            raise FileNotFoundError(
                f"{name} needs ImageNet (ILSVRC2012), but {len(lacking)} of its {len(wnids)} class "
                f"folders are missing in {root / folder}, first {', '.join(lacking[:3])}. "
                f"Expected layout:\n{IMAGENET_LAYOUT.format(root=root)}"
            )
        splits[split] = ids
    return splits


def _list_files(root: Path, folder: Path) -> list[str]:
    """Image files below a folder as ids, sorted as torchvision's ImageFolder sorts them.

    Links to folders are followed, as there.
    """
    found = [
        (*Path(parent).relative_to(root).parts, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    return ["/".join(parts) for parts in sorted(found, key=lambda parts: (parts[:-1], parts[-1]))]


def _class_folder(image_id: str) -> str | None:
    """The first folder below that of the split, None where the image lies in neither."""
    parents = Path(image_id).parts[:-1]
    below = parents[1:] if parents and parents[0] in ("train", *TEST_FOLDERS) else parents
    return below[0] if below else None


def _read_label_file(path: Path, ids: Sequence[str]) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"data.label_file must be a CSV file, there is none at {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
        reader = csv.DictReader(file)
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(
                f"{path} must have the columns path and label, got {reader.fieldnames}"
            )
        rows = [(row["path"], row["label"]) for row in reader]
    labels = dict(rows)
    twice = sorted(i for i, count in Counter(i for i, _ in rows).items() if count > 1)
    if twice:
        raise ValueError(f"{path} must label an image once, {len(twice)} are twice{_first(twice)}")
    unlabeled = [image_id for image_id in ids if not labels.get(image_id)]
    unmatched = sorted(set(labels) - set(ids))
    if unlabeled or unmatched:
        raise ValueError(
            f"{path} must label every image and nothing else: {len(unlabeled)} images have no "
            f"label{_first(unlabeled)}, {len(unmatched)} labels have no image{_first(unmatched)}"
        )
    return labels


def _first(names: Sequence[str]) -> str:
    return f" (first {names[0]})" if names else ""


def _number_classes(names: Mapping[str, Sequence[str]]) -> Annotations:
    class_names = sorted(set(names["train"]))
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    for split, split_names in names.items():
        strange = sorted(set(split_names) - set(class_names))
        if strange:
            raise ValueError(
                f"every class of the {split} split must have training images, {len(strange)} have "
                f"none (first {strange[0]})"
            )
    labels = {s: np.array([numbers[c] for c in cs], dtype=np.int64) for s, cs in names.items()}
    return Annotations(labels, class_names)
