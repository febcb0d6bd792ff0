"""The index of images: what every later stage counts its rows by."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from unic.data.datasets import list_images, open_images
from unic.data.images import FileImages
from unic.files import read_parquet, write_parquet

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where images come from, as :func:`unic.data.datasets.open_images` takes it."""

    name: str
    root: str | None


class Skipped(NamedTuple):
    """An image that is left out, since it cannot be decoded."""

    split: str
    image_id: str
    reason: str


class Listing(NamedTuple):
    """The images of a data set: ids by split, and what was left out."""

    ids: dict[str, list[str]]
    skipped: list[Skipped]


def index_images(
    name: str,
    *,
    root: str | None,
    n_clusters: int,
    far_rank: int,
    manifest: str | None = None,
    bad_images: str = "error",
    n_workers: int = 1,
) -> Listing:
    """List the images of a data set and check that the experiment's numbers fit them.

    Args:
        name: Data set, see :func:`unic.data.datasets.list_images`.
        root: Folder of the files.
        n_clusters: K, at most the number of training images.
        far_rank: tau_2, below the number of training images.
        manifest: List of the images, of a data set that has one.
        bad_images: ``error`` leaves it to the first stage that reads an image to refuse it;
            ``skip`` decodes every image file now and leaves out those that cannot be decoded.
        n_workers: Threads that decode.

    Raises:
        FileNotFoundError: If the folder is missing or not laid out as it must be.
        ValueError: If there is no image, or a number does not fit.
    """
    listing = Listing(list_images(name, root=root, manifest=manifest), [])
    if bad_images == "skip":
        listing = skip_bad_images(name, listing.ids, root=root, n_workers=n_workers)
    ids = listing.ids
    n_images = len(ids["train"])
    if n_clusters > n_images:
        raise ValueError(
            f"n_clusters must be at most the {n_images} training images, got {n_clusters}"
        )
    if far_rank >= n_images:
        raise ValueError(
            f"neighbors.far_rank must be below the {n_images} training images, got {far_rank}"
        )
    return listing


def skip_bad_images(
    name: str, ids: Mapping[str, Sequence[str]], *, root: str | None, n_workers: int
) -> Listing:
    """Decode every image file once, and leave out those that cannot be decoded.

    Images that lie in one file of a data set are all there or none; reading that file says which.

    Args:
        name: Data set, see :func:`unic.data.datasets.open_images`.
        ids: Image ids by split.
        root: Folder of the files.
        n_workers: Threads that decode.

    Raises:
        ValueError: If a split has no image left; names the first bad one.
    """
    kept: dict[str, list[str]] = {}
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(n_workers) as pool:
        for split, split_ids in ids.items():
            images = open_images(name, split_ids, root=root)
            if not isinstance(images, FileImages):
                return Listing({s: list(i) for s, i in ids.items()}, [])
            found = tqdm(
                pool.map(images.find_fault, range(len(images))), split, len(images), disable=None
            )
            faults = dict(zip(split_ids, found, strict=True))
            kept[split] = [image_id for image_id, fault in faults.items() if fault is None]
            skipped += [Skipped(split, i, fault) for i, fault in faults.items() if fault]
            if not kept[split]:
                raise ValueError(
                    f"the {split} split must have images that can be decoded, none of the "
                    f"{len(images)} can; the first is {skipped[-len(images)].reason}"
                )
    for left_out in skipped:
        log.warning("skipped %s (%s): %s", left_out.image_id, left_out.split, left_out.reason)
    log.info("%d of %d images skipped", len(skipped), sum(map(len, ids.values())))
    return Listing(kept, skipped)


def write_index(
    path: str | Path,
    ids: Mapping[str, Sequence[str]],
    *,
    name: str,
    root: str | None,
    skipped: Sequence[Skipped] = (),
) -> None:
    """Write an index: columns ``split``, ``image_id`` and ``n_bytes`` (0 where not a file).

    Name and root of the data set are among its attributes, for :func:`read_source`, and so is
    what was left out, for :func:`read_skipped`.
    """
    rows = [
        (split, image_id, _file_size(root, image_id))
        for split, split_ids in ids.items()
        for image_id in split_ids
    ]
    index = pd.DataFrame(rows, columns=["split", "image_id", "n_bytes"])
    index.attrs = Source(name, root)._asdict() | {"skipped": [list(image) for image in skipped]}
    write_parquet(path, index)


def read_index(path: str | Path) -> dict[str, list[str]]:
    """Read the image ids by split.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no index, or a damaged one.
    """
    index = read_parquet(path, columns=["split", "image_id"])
    groups = index.groupby("split", sort=False)["image_id"]
    return {str(split): group.tolist() for split, group in groups}


def read_source(path: str | Path) -> Source:
    """Read where the images of an index come from.

    Raises:
        ValueError: If the index does not say, which those of older versions do not.
    """
    attributes = read_parquet(path, columns=["split"]).attrs
    if not set(Source._fields) <= set(attributes):
        raise ValueError(f"{path} must say where its images are; delete it and run the workflow")
    return Source(**{field: attributes[field] for field in Source._fields})


def read_skipped(path: str | Path) -> list[Skipped]:
    """Read which images were left out; none by the indexes of older versions."""
    attributes = read_parquet(path, columns=["split"]).attrs
    return [Skipped(*image) for image in attributes.get("skipped", [])]


def _file_size(root: str | None, image_id: str) -> int:
    path = Path(root or "", image_id)
    return path.stat().st_size if root is not None and path.is_file() else 0
