"""Checks of a data set on disk: what was found, and what was expected."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from unic.images.datasets import list_images, open_images, read_labels
from unic.images.readers.annotations import Annotations
from unic.images.readers.classes import PUBLISHED_SPLITS, published_old_classes
from unic.images.splits import split_gcd
from unic.storage.known_labels import UNKNOWN


class Expected(NamedTuple):
    """Published sizes of a data set; None where they are not known."""

    n_classes: int
    n_train: int
    n_test: int
    train_per_class: tuple[int, int] | None = None  # smallest and largest class
    test_per_class: tuple[int, int] | None = None
    n_labeled: int | None = None  # of the published GCD split


class Finding(NamedTuple):
    """One line of the check."""

    what: str
    found: str
    expected: str | None  # None where anything will do

    @property
    def is_right(self) -> bool:
        """Whether it is as expected."""
        return self.expected in (None, self.found)


# Sizes as the data sets, SCAN (Table 1) and the GCD literature give them.
EXPECTED = {
    "digits": Expected(10, 1438, 359),
    "stl10": Expected(10, 5000, 8000, (500, 500), (800, 800)),
    "cifar10": Expected(10, 50000, 10000, (5000, 5000), (1000, 1000), 12500),
    "cifar100": Expected(100, 50000, 10000, (500, 500), (100, 100), 20000),
    "fashion_mnist": Expected(10, 60000, 10000, (6000, 6000), (1000, 1000)),
    "imagenet50": Expected(50, 64274, 2500, None, (50, 50)),
    "imagenet100": Expected(100, 128545, 5000, None, (50, 50)),
    "imagenet200": Expected(200, 256558, 10000, None, (50, 50)),
    "imagenet100_gcd": Expected(100, 127115, 5000, None, (50, 50), 31860),
    "imagenet1k": Expected(1000, 1281167, 50000, (732, 1300), (50, 50)),
    "cub200": Expected(200, 5994, 5794, (29, 30), None, 1498),
    "stanford_cars": Expected(196, 8144, 8041, (24, 68), None, 2000),
    "fgvc_aircraft": Expected(100, 6667, 3333, (66, 67), (33, 34), 1666),
    "herbarium19": Expected(683, 34225, 2679, None, None, 8869),
}


def check_dataset(
    name: str, *, root: str | None, manifest: str | None = None, label_file: str | None = None
) -> list[Finding]:
    """Read a data set as an experiment would, and compare it with its published sizes.

    Args:
        name: One of :data:`unic.images.datasets.DATASETS`.
        root: Folder of the files.
        manifest: The list of a ``manifest``.
        label_file: Labels of a ``folder``.

    Raises:
        FileNotFoundError: If files are missing; says how they must lie.
        ValueError: If files contradict each other, or the first image cannot be decoded.
    """
    ids = list_images(name, root=root, manifest=manifest)
    annotations = read_labels(name, ids, root=root, label_file=label_file, manifest=manifest)
    expected = EXPECTED.get(name)
    findings = [
        Finding(f"{split} images", str(len(found)), _text(expected and _size(expected, split)))
        for split, found in ids.items()
    ]
    if annotations is None:
        findings.append(Finding("classes", "none named", _text(expected and expected.n_classes)))
    else:
        findings += _check_classes(name, annotations, expected)
    height, width, _ = open_images(name, [ids["train"][0]], root=root)[0].shape
    findings.append(Finding("size of the first image", f"{width} x {height}", None))
    return findings


def _check_classes(name: str, annotations: Annotations, expected: Expected | None) -> list[Finding]:
    n_classes = len(annotations.class_names)
    findings = [Finding("classes", str(n_classes), _text(expected and expected.n_classes))]
    published: Mapping[str, tuple[int, int] | None] = {}
    if expected is not None:
        published = {"train": expected.train_per_class, "test": expected.test_per_class}
    for split, labels in annotations.labels.items():
        counts = np.bincount(labels, minlength=n_classes)
        found = f"{counts.min()} to {counts.max()}"
        sizes = published.get(split)
        wanted = None if sizes is None else f"{sizes[0]} to {sizes[1]}"
        findings.append(Finding(f"{split} images of a class", found, wanted))
    if name in PUBLISHED_SPLITS and expected is not None and n_classes == expected.n_classes:
        split_of = split_gcd(
            annotations,
            old_classes=published_old_classes(name),
            labeled_fraction=0.5,
            split_seed=0,
        )
        n_labeled = int((split_of.known_labels != UNKNOWN).sum())
        what = "labeled images of the published GCD split"
        findings.append(Finding(what, str(n_labeled), _text(expected.n_labeled)))
    return findings


def _size(expected: Expected, split: str) -> int:
    return expected.n_train if split == "train" else expected.n_test


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
