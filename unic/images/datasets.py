"""Image sets by name: their ids, their pixels, and apart from these their labels.

An image id is the path of the file below the root, with ``/``, or the row of an array.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from unic.images.images import FileImages, Images
from unic.images.readers.annotations import Annotations, Catalog, find_labels
from unic.images.readers.arrays import ARRAY_SETS, open_rows, read_rows
from unic.images.readers.digits import open_digits, read_digits
from unic.images.readers.finegrained import read_aircraft, read_cars, read_cub
from unic.images.readers.folders import label_folder, list_folder, read_herbarium
from unic.images.readers.imagenet import label_imagenet, list_imagenet
from unic.images.readers.manifests import read_manifest

IMAGENETS = ("imagenet50", "imagenet100", "imagenet200", "imagenet100_gcd", "imagenet1k")
_READERS: dict[str, Callable[[Path], Catalog]] = {
    "digits": read_digits,
    **{name: partial(read_rows, name) for name in ARRAY_SETS},
    "cub200": read_cub,
    "stanford_cars": read_cars,
    "fgvc_aircraft": read_aircraft,
    "herbarium19": read_herbarium,
}
DATASETS = ("folder", "manifest", *IMAGENETS, *_READERS)


def list_images(
    name: str, *, root: str | None, manifest: str | None = None
) -> dict[str, list[str]]:
    """Image ids of a data set by split, ``train`` first.

    Args:
        name: One of ``DATASETS``.
        root: Folder of the files, laid out as :mod:`unic.images.readers.layouts` says; not used by
            ``digits``.
        manifest: The list of a ``manifest``, see
            :func:`unic.images.readers.manifests.read_manifest`.

    Raises:
        FileNotFoundError: If files are missing or not laid out as they must be; says how.
        ValueError: If there is no image, a list contradicts itself, or the set is unknown.
    """
    folder = _check_place(name, root, manifest)
    if name == "folder":
        return list_folder(folder)
    if name in IMAGENETS:
        return list_imagenet(name, folder)
    ids = _read_catalog(name, folder, manifest).ids
    for split, found in ids.items():
        if not found:
            raise ValueError(f"the {split} split of {name} must have images, {folder} has none")
    return ids


def open_images(name: str, ids: Sequence[str], *, root: str | None) -> Images:
    """Open images by their ids, in that order, for reading pixels."""
    if name == "digits":
        return open_digits(ids)
    if name in ARRAY_SETS:
        return open_rows(name, ids, Path(root or ""))
    return FileImages(ids, str(root))


def read_labels(
    name: str,
    ids: Mapping[str, Sequence[str]],
    *,
    root: str | None = None,
    label_file: str | None = None,
    manifest: str | None = None,
    skipped: Sequence[str] = (),
    class_folders: bool = True,
) -> Annotations | None:
    """Read the true class of every image.

    Classes have the numbers of the data set's own files, counted from 0; those of folders and
    manifests are numbered in the sorted order of their names, those of ImageNet and its subsets in
    that of the wnids.

    Args:
        name: As for :func:`list_images`.
        ids: Image ids by split.
        root: Folder of the files.
        label_file: CSV with columns ``path`` and ``label`` for a ``folder``, or None to take class
            folders.
        manifest: The list of a ``manifest``.
        skipped: Images that were left out of ``ids``; the label file may name them.
        class_folders: Whether the folders of a ``folder`` say anything.

    Returns:
        The labels, or None where images have none.

    Raises:
        FileNotFoundError: If files are missing or not laid out as they must be; says how.
        ValueError: If an image has no label or two, a label has no image, or a test class has no
            training image; names the first.
    """
    if name == "folder":
        if label_file is None and not class_folders:
            return None
        return label_folder(ids, label_file=label_file, skipped=skipped)
    if name in IMAGENETS:
        return label_imagenet(name, ids, Path(root or ""))
    return find_labels(_read_catalog(name, _check_place(name, root, manifest), manifest), ids)


def _read_catalog(name: str, root: Path, manifest: str | None) -> Catalog:
    return read_manifest(Path(manifest), root) if manifest is not None else _READERS[name](root)


def _check_place(name: str, root: str | None, manifest: str | None) -> Path:
    """Check the name of a set and what it needs; give its folder."""
    if name not in DATASETS:
        raise ValueError(f"data.name must be one of {', '.join(DATASETS)}, got {name}")
    if root is None and name != "digits":
        raise ValueError(f"data.root must be set for data.name {name}")
    if (manifest is None) == (name == "manifest"):
        raise ValueError(f"data.manifest must be set for manifest and no other, got {name}")
    return Path(root or "")
