"""Fine-grained sets that list their images: CUB-200-2011, Stanford Cars, FGVC-Aircraft."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unic.images.readers.annotations import Catalog, Entry, make_catalog
from unic.images.readers.layouts import require
from unic.images.readers.matlab import read_mat
from unic.storage.files import first_line

_CUB = "CUB_200_2011"
_AIRCRAFT = "fgvc-aircraft-2013b/data"


def read_cub(root: Path) -> Catalog:
    """List CUB-200-2011 in the order of its image ids; class numbers are its ids less 1.

    Raises:
        FileNotFoundError: If a file is missing; says how they must lie.
        ValueError: If a list contradicts another.
    """
    lists = ("images", "train_test_split", "classes")
    labels = "image_class_labels"
    require("cub200", root, [f"{_CUB}/{name}.txt" for name in (*lists, labels)])
    paths, is_train, names = (_read_numbered(root / _CUB / f"{n}.txt") for n in lists)
    classes = _read_classes(root / _CUB / f"{labels}.txt")
    for name, table in (("image_class_labels", classes), ("train_test_split", is_train)):
        if set(table) != set(paths):
            raise ValueError(
                f"{name}.txt of cub200 must have the images of images.txt, has others, below {root}"
            )
    entries = (
        Entry(
            f"{_CUB}/images/{paths[number]}",
            classes[number],
            "train" if is_train[number] == "1" else "test",
        )
        for number in sorted(paths)
    )
    return make_catalog("cub200", root, entries, [names[number] for number in sorted(names)])


def read_cars(root: Path) -> Catalog:
    """List Stanford Cars in the order of its annotations; class numbers are its ids less 1.

    With the devkit the order, on which the labeled images of GCD depend, is that of the
    literature. The other published layout, one folder ``car_ims``, has another.

    Raises:
        FileNotFoundError: If a file is missing; says how they must lie.
    """
    has_devkit = (root / "devkit").is_dir() or not (root / "cars_annos.mat").is_file()
    entries, class_names = _read_devkit(root) if has_devkit else _read_car_ims(root)
    return make_catalog("stanford_cars", root, entries, class_names)


def read_aircraft(root: Path) -> Catalog:
    """List FGVC-Aircraft by variant; the training split is its trainval list, in that order.

    Class numbers are positions in the sorted names of the variants.

    Raises:
        FileNotFoundError: If a file is missing; says how they must lie.
        ValueError: If a line of a list is no image and variant.
    """
    lists = {"train": "images_variant_trainval.txt", "test": "images_variant_test.txt"}
    require("fgvc_aircraft", root, [f"{_AIRCRAFT}/{n}" for n in ("variants.txt", *lists.values())])
    folder = root / _AIRCRAFT
    variants = sorted(_read_lines(folder / "variants.txt"))
    numbers = {variant: number for number, variant in enumerate(variants)}
    entries = []
    for split, name in lists.items():
        for line in _read_lines(folder / name):
            image, _, variant = line.partition(" ")  # names of variants have spaces
            if variant not in numbers:
                raise ValueError(
                    f"{folder / name} must have an image and one of the {len(variants)} variants "
                    f"in each line, got {line!r}"
                )
            entries.append(Entry(f"{_AIRCRAFT}/images/{image}.jpg", numbers[variant], split))
    return make_catalog("fgvc_aircraft", root, entries, variants)


def _read_devkit(root: Path) -> tuple[list[Entry], list[str]]:
    test = "cars_test_annos_withlabels.mat"
    if (root / "devkit" / test).is_file():
        test = f"devkit/{test}"
    lists = {"train": "devkit/cars_train_annos.mat", "test": test}
    require("stanford_cars", root, ["devkit/cars_meta.mat", *lists.values()])
    entries = [
        entry
        for split, path in lists.items()
        for entry in _make_entries(
            root / path,
            lambda car, split=split: Entry(  # type: ignore[misc]
                f"cars_{split}/{car['fname']}", int(car["class"]) - 1, split
            ),
        )
    ]
    return entries, [str(n) for n in read_mat(root / "devkit/cars_meta.mat", "class_names")]


def _read_car_ims(root: Path) -> tuple[list[Entry], list[str]]:
    path = root / "cars_annos.mat"
    entries = _make_entries(
        path,
        lambda car: Entry(
            str(car["relative_im_path"]),
            int(car["class"]) - 1,
            "test" if car["test"] else "train",
        ),
    )
    return entries, [str(name) for name in read_mat(path, "class_names")]


def _make_entries(path: Path, read: Callable[[Any], Entry]) -> list[Entry]:
    """An entry of each annotation of a MATLAB file."""
    entries = []
    for number, annotation in enumerate(read_mat(path, "annotations"), start=1):
        try:
            entries.append(read(annotation))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise ValueError(
                f"annotation {number} of {path} must have an image and a class, got "
                f"{str(annotation)[:100]} ({first_line(error)})"
            ) from None
    return entries


def _read_numbered(path: Path) -> dict[int, str]:
    """Lines of a number and a value."""
    values = {}
    for line in _read_lines(path):
        number, _, value = line.partition(" ")
        if not (number.isascii() and number.isdecimal() and len(number) < 10 and value):
            raise ValueError(f"{path} must have a number and a value in each line, got {line!r}")
        values[int(number)] = value
    return values


def _read_classes(path: Path) -> dict[int, int]:
    """Lines of an image's number and a class's number, that counts from 1."""
    classes = _read_numbered(path)
    strange = next((v for v in classes.values() if not (v.isascii() and v.isdecimal())), None)
    if strange is not None or any(len(v) > 9 for v in classes.values()):
        raise ValueError(f"{path} must have class numbers, got {strange or max(classes.values())}")
    return {number: int(value) - 1 for number, value in classes.items()}


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
