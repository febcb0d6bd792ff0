"""ImageNet (ILSVRC2012) and its subsets, from folders by wnid or a flat validation folder."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unic.images.readers.annotations import Annotations
from unic.images.readers.classes import read_wnids
from unic.images.readers.folders import list_files
from unic.images.readers.layouts import layout_of
from unic.images.readers.matlab import read_mat
from unic.storage.files import first_line

DEVKIT = "ILSVRC2012_devkit_t12/data"
GROUND_TRUTH = f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt"
SYNSET_LABELS = "imagenet_2012_validation_synset_labels.txt"
_FLAT_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def list_imagenet(name: str, root: Path) -> dict[str, list[str]]:
    """List the images of the classes of a subset, class by class, by file name within each.

    Args:
        name: Name of the class list.
        root: Folder that holds ``train`` and ``val``.

    Raises:
        FileNotFoundError: If a class is missing; says how the files must lie.
        ValueError: If the truth of a flat validation folder does not fit its images.
    """
    wnids = read_wnids(name)
    ids = {"train": [i for w in wnids for i in list_files(root, root / "train" / w)]}
    _check_classes(name, root, "train", [w for w in wnids if not (root / "train" / w).is_dir()])
    flat = sorted(f.name for f in (root / "val").glob("ILSVRC2012_val_*.JPEG"))
    if flat and not any((root / "val" / w).is_dir() for w in wnids):
        truth = _read_flat_truth(name, root, flat)
        known = set(wnids)
        chosen = [f for f in flat if truth[f] in known]
        ids["test"] = [f"val/{f}" for f in sorted(chosen, key=truth.__getitem__)]
        _check_classes(name, root, "val", sorted(set(wnids) - set(truth.values())))
    else:
        ids["test"] = [i for w in wnids for i in list_files(root, root / "val" / w)]
        _check_classes(name, root, "val", [w for w in wnids if not (root / "val" / w).is_dir()])
    for split, found in ids.items():
        if not found:
            raise FileNotFoundError(
                f"{name} needs images in its {split} split, its class folders below {root} are "
                f"empty. {layout_of(name, root)}"
            )
    return ids


def label_imagenet(name: str, ids: Mapping[str, Sequence[str]], root: Path) -> Annotations:
    """Number the classes of images by the position of their wnid in the class list."""
    wnids = read_wnids(name)
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    flat = [i.split("/")[1] for found in ids.values() for i in found if i.count("/") == 1]
    truth = _read_flat_truth(name, root, flat) if flat else {}

    def number(image_id: str) -> int:
        inside = image_id.split("/")[1]  # of train or val: a class folder, or the image
        return numbers[truth.get(inside, inside)]

    labels = {s: np.array([number(i) for i in found], dtype=np.int64) for s, found in ids.items()}
    return Annotations(labels, wnids)


def _check_classes(name: str, root: Path, folder: str, lacking: Sequence[str]) -> None:
    if lacking:
        n_classes = len(read_wnids(name))
        raise FileNotFoundError(
            f"{name} needs ImageNet (ILSVRC2012), but {len(lacking)} of its {n_classes} class "
            f"folders are missing in {root / folder}, first {', '.join(lacking[:3])}. "
            f"{layout_of(name, root)}"
        )


def _read_flat_truth(name: str, root: Path, flat: Sequence[str]) -> dict[str, str]:
    """Wnid of each image of a flat validation folder, by the number in the image's name."""
    lines = _read_truth_lines(name, root)
    truth = {}
    for file_name in flat:
        match = _FLAT_NAME.fullmatch(file_name)
        number = int(match[1]) if match else 0
        if not 0 < number <= len(lines):
            raise ValueError(
                f"{root / 'val'} must hold ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{len(lines):08}.JPEG, as many as the truth has lines, got "
                f"{file_name}"
            )
        truth[file_name] = lines[number - 1]
    return truth


def _read_truth_lines(name: str, root: Path) -> list[str]:
    """The wnid of each validation image, in the order of their numbers."""
    if (root / SYNSET_LABELS).is_file():
        return (root / SYNSET_LABELS).read_text().split()
    meta = root / DEVKIT / "meta.mat"
    if not ((root / GROUND_TRUTH).is_file() and meta.is_file()):
        raise FileNotFoundError(
            f"{name} needs the classes of the images that lie flat in {root / 'val'}: "
            f"{root / GROUND_TRUTH} and meta.mat beside it, or {root / SYNSET_LABELS}. "
            f"{layout_of(name, root)}"
        )
    synsets = read_mat(meta, "synsets")
    try:
        wnids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
        return [wnids[int(line)] for line in (root / GROUND_TRUTH).read_text().split()]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{meta} must hold the classes that {root / GROUND_TRUTH} counts, cannot read them: "
            f"{first_line(error)}"
        ) from None
