"""Fine-grained sets that list their images: CUB-200-2011, Stanford Cars, FGVC-Aircraft."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unic.data.annotations import Catalog, Entry, make_catalog
from unic.data.layouts import require

_CUB = "CUB_200_2011"
_AIRCRAFT = "fgvc-aircraft-2013b/data"


def read_cub(root: Path) -> Catalog:
    """List CUB-200-2011 in the order of its image ids; class numbers are its ids less 1.

    Raises:
        FileNotFoundError: If a file is missing; says how they must lie.
        ValueError: If a list contradicts another.
    """
    lists = ("images", "image_class_labels", "train_test_split", "classes")
    require("cub200", root, [f"{_CUB}/{name}.txt" for name in lists])
    paths, classes, is_train, names = (_read_numbered(root / _CUB / f"{n}.txt") for n in lists)
    for name, table in (("image_class_labels", classes), ("train_test_split", is_train)):
        if set(table) != set(paths):
            raise ValueError(f"{name}.txt of cub200 must have the images of images.txt, has others")
    entries = (
        Entry(
            f"{_CUB}/images/{paths[number]}",
            int(classes[number]) - 1,
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
        Entry(f"cars_{split}/{car['fname']}", int(car["class"]) - 1, split)
        for split, path in lists.items()
        for car in _read_mat(root / path, "annotations")
    ]
    return entries, [str(n) for n in _read_mat(root / "devkit/cars_meta.mat", "class_names")]


def _read_car_ims(root: Path) -> tuple[list[Entry], list[str]]:
    path = root / "cars_annos.mat"
    entries = [
        Entry(
            str(car["relative_im_path"]),
            int(car["class"]) - 1,
            "test" if car["test"] else "train",
        )
        for car in _read_mat(path, "annotations")
    ]
    return entries, [str(name) for name in _read_mat(path, "class_names")]


def _read_mat(path: Path, variable: str) -> Iterator[Any]:
    from scipy.io import loadmat  # takes a while to import, and only this set needs it

    yield from loadmat(path, simplify_cells=True, variable_names=[variable])[variable]


def _read_numbered(path: Path) -> dict[int, str]:
    """Lines of a number and a value."""
    pairs = (line.partition(" ") for line in _read_lines(path))
    return {int(number): value for number, _, value in pairs}


def _read_lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
