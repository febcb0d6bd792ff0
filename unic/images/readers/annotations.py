"""True classes of images, as the files of a data set give them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.images.readers.layouts import require


class Annotations(NamedTuple):
    """True classes of the images of each split."""

    labels: dict[str, NDArray[np.int64]]  # split to (n,), -1 nowhere
    class_names: list[str]


class Catalog(NamedTuple):
    """What the files of a data set say of its images: ids by split, in their order, and classes."""

    ids: dict[str, list[str]]
    annotations: Annotations | None  # None where the files name no classes


class Entry(NamedTuple):
    """An image in the list of a data set."""

    image_id: str  # path below the root
    label: int
    split: str  # train or test


def make_catalog(
    name: str, root: Path, entries: Iterable[Entry], class_names: Sequence[str]
) -> Catalog:
    """Sort the entries of a list by split, in their order, and check them.

    Raises:
        FileNotFoundError: If an image is not there; says how the files must lie.
        ValueError: If an image is listed twice or not below the root, or a class does not exist.
    """
    by_split: dict[str, list[Entry]] = {"train": [], "test": []}
    for entry in entries:
        by_split[entry.split].append(entry)
    ids = {split: [entry.image_id for entry in found] for split, found in by_split.items()}
    where = f"the lists of {name} in {root}"
    check_ids([i for split_ids in ids.values() for i in split_ids], where)
    require(name, root, [i for split_ids in ids.values() for i in split_ids])
    labels = {
        split: np.array([entry.label for entry in found], dtype=np.int64)
        for split, found in by_split.items()
    }
    for numbers in labels.values():
        strange = sorted(set(numbers.tolist()) - set(range(len(class_names))))
        if strange:
            raise ValueError(
                f"{where} must have class numbers below {len(class_names)}, counted from 0, got "
                f"{strange}"
            )
    return Catalog(ids, Annotations(labels, list(class_names)))


def check_ids(image_ids: Sequence[str], where: str) -> None:
    """Check that every image is listed once, by a path that stays below the root.

    Raises:
        ValueError: If not; names the first.
    """
    outside = [i for i in image_ids if _leaves_root(i)]
    if outside:
        raise ValueError(
            f"{where} must have relative paths that stay below data.root, {len(outside)} do "
            f"not{first_of(outside)}"
        )
    twice = sorted(i for i, count in Counter(image_ids).items() if count > 1)
    if twice:
        raise ValueError(
            f"{where} must name an image once, {len(twice)} are named more than once"
            f"{first_of(twice)}"
        )


def find_labels(catalog: Catalog, ids: Mapping[str, Sequence[str]]) -> Annotations | None:
    """Labels of the images of an index.

    Args:
        catalog: What the files say.
        ids: Image ids by split.

    Returns:
        The labels in the order of ``ids``, or None where the files name no classes.

    Raises:
        ValueError: If an image is not in the files any more; names the first.
    """
    if catalog.annotations is None:
        return None
    labels, class_names = catalog.annotations
    known = {
        image_id: number
        for split, split_ids in catalog.ids.items()
        for image_id, number in zip(split_ids, labels[split].tolist(), strict=True)
    }
    gone = [i for split_ids in ids.values() for i in split_ids if i not in known]
    if gone:
        raise ValueError(
            f"the data set must hold the images of the index, {len(gone)} are gone"
            f"{first_of(gone)}; run again with --forcerun index_images"
        )
    found = {s: np.array([known[i] for i in i_s], dtype=np.int64) for s, i_s in ids.items()}
    return Annotations(found, class_names)


def number_classes(names: Mapping[str, Sequence[str]], where: str) -> Annotations:
    """Number the class names of each split's images in their sorted order.

    Args:
        names: Class names by split.
        where: What they were read from, for messages.

    Raises:
        ValueError: If a class has no training image; names the first.

    Example:
        >>> labels, class_names = number_classes({"train": ["bee", "ant", "bee"]}, "photos")
        >>> class_names, labels["train"].tolist()
        (['ant', 'bee'], [1, 0, 1])
    """
    class_names = sorted(set(names["train"]))
    numbers = {class_name: number for number, class_name in enumerate(class_names)}
    for split, split_names in names.items():
        strange = sorted(set(split_names) - set(class_names))
        if strange:
            raise ValueError(
                f"{where}: every class of the {split} split must have training images, "
                f"{len(strange)} have none (first {strange[0]})"
            )
    labels = {s: np.array([numbers[c] for c in cs], dtype=np.int64) for s, cs in names.items()}
    return Annotations(labels, class_names)


def first_of(names: Sequence[str]) -> str:
    """The first of some names, in brackets; nothing where there is none."""
    return f" (first {names[0]})" if names else ""


def _leaves_root(image_id: str) -> bool:
    path = PurePosixPath(image_id)
    return not image_id or "\0" in image_id or path.is_absolute() or ".." in path.parts
