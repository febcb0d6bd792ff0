"""Images in folders: the class folders of a split, or no classes at all."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unic.images.readers.annotations import Annotations, Catalog, first_of, number_classes
from unic.images.readers.layouts import require
from unic.storage.files import read_csv

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEST_FOLDERS = ("test", "val")


def list_folder(root: Path) -> dict[str, list[str]]:
    """List the images below a folder, or below its ``train`` and ``test`` or ``val``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a split has no image.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data.root must be a folder of images, there is none at {root}")
    test = next((name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if (root / "train").is_dir():
        splits = {"train": list_files(root, root / "train")}
        if test is not None:
            splits["test"] = list_files(root, root / test)
    else:
        splits = {"train": list_files(root, root)}
    for split, ids in splits.items():
        if not ids:
            raise ValueError(
                f"the {split} split must have images ({', '.join(sorted(IMAGE_SUFFIXES))}), "
                f"found none below {root}"
            )
    return splits


def label_folder(
    ids: Mapping[str, Sequence[str]], *, label_file: str | None, skipped: Sequence[str] = ()
) -> Annotations | None:
    """Take the classes of images from a label file, else from class folders.

    A class folder is the first below the split's folder; its images may lie in folders of their
    own. The label file may also name images that were skipped.

    Returns:
        The labels, or None without a label file where images lie outside of class folders.

    Raises:
        ValueError: If an image has no label or two, a label has no image, or a test class has no
            training image; names the first.
    """
    if label_file is not None:
        every = [i for split in ids.values() for i in split]
        named = _read_label_file(Path(label_file), every, skipped)
        labels = {s: [named[i] for i in split_ids] for s, split_ids in ids.items()}
        return number_classes(labels, label_file)
    folders = {s: [_class_folder(i) for i in split_ids] for s, split_ids in ids.items()}
    if not any(folders["train"]):
        return None
    stray = [i for split_ids in ids.values() for i in split_ids if not _class_folder(i)]
    if stray:
        logger.warning(
            "no labels: folders are classes only where every image lies in one, %d do not%s",
            len(stray),
            first_of(stray),
        )
        return None
    names = {s: [folder for folder in f if folder] for s, f in folders.items()}
    return number_classes(names, "class folders")


def read_herbarium(root: Path) -> Catalog:
    """List Herbarium-19 as GCD's code does: class folders of ``small-train``, as ImageFolder.

    Its class numbers are positions in the sorted folder names, as text: 0, 1, 10, 100, ...

    Raises:
        FileNotFoundError: If a folder is missing; says how the files must lie.
    """
    folders = {"train": "small-train", "test": "small-validation"}
    require("herbarium19", root, folders.values())
    ids = {split: list_files(root, root / folder) for split, folder in folders.items()}
    names = {split: [i.split("/")[1] for i in found] for split, found in ids.items()}
    return Catalog(ids, number_classes(names, str(root)))


def list_files(root: Path, folder: Path) -> list[str]:
    """Image files below a folder as ids, sorted as torchvision's ImageFolder sorts them.

    Links to folders are followed, as there, but not those that lead back into a folder they lie
    in, whose images would be listed again and again.

    Raises:
        ValueError: If a name is not UTF-8, as ids must be.
    """
    found = [
        (*parent.relative_to(root).parts, name)
        for parent, names in _walk(folder)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    ids = ["/".join(parts) for parts in sorted(found, key=lambda parts: (parts[:-1], parts[-1]))]
    strange = next((i for i in ids if not i.isascii() and _has_stray_bytes(i)), None)
    if strange is not None:
        raise ValueError(f"names of images below {root} must be UTF-8, got {strange!r}; rename it")
    return ids


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of their files; logs which links are not followed."""
    lies_in = {folder: [folder.resolve()]}  # where it is, and the links on the way to it are
    loops = []
    for root, folders, names in os.walk(folder, followlinks=True):
        parent = Path(root)
        yield parent, names
        *links, real = lies_in.pop(parent)
        for name in list(folders):
            path = parent / name
            if not path.is_symlink():
                lies_in[path] = [*links, real / name]
                continue
            target = path.resolve()
            if any(above.is_relative_to(target) for above in (*links, real)):
                loops.append(str(path))
                folders.remove(name)
            else:
                lies_in[path] = [*links, real, target]
    if loops:
        logger.warning(
            "links that lead back into a folder they lie in are not followed, %d do%s",
            len(loops),
            first_of(sorted(loops)),
        )


def _has_stray_bytes(name: str) -> bool:
    """Whether a name of a file has bytes that are no text, for which Python puts surrogates."""
    return any("\ud800" <= character <= "\udfff" for character in name)


def _class_folder(image_id: str) -> str | None:
    """The first folder below that of the split, None where the image lies in neither."""
    parents = Path(image_id).parts[:-1]
    below = parents[1:] if parents and parents[0] in ("train", *TEST_FOLDERS) else parents
    return below[0] if below else None


def _read_label_file(path: Path, ids: Sequence[str], skipped: Sequence[str]) -> dict[str, str]:
    rows = _read_label_rows(path)
    labels = dict(rows)
    twice = sorted(i for i, count in Counter(i for i, _ in rows).items() if count > 1)
    if twice:
        raise ValueError(
            f"{path} must label an image once, {len(twice)} are twice{first_of(twice)}"
        )
    unlabeled = [image_id for image_id in ids if not labels.get(image_id)]
    unmatched = sorted(set(labels) - set(ids) - set(skipped))
    if unlabeled or unmatched:
        raise ValueError(
            f"{path} must label every image and nothing else: {len(unlabeled)} images have no "
            f"label{first_of(unlabeled)}, {len(unmatched)} labels have no image"
            f"{first_of(unmatched)}"
        )
    return labels


def _read_label_rows(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"data.label_file must be a CSV file, there is none at {path}")
    return [(row["path"], row["label"]) for row in read_csv(path, columns=("path", "label"))]
