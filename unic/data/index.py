"""The index of images: what every later stage counts its rows by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from unic.data.datasets import list_images
from unic.files import whole_file


class Source(NamedTuple):
    """Where images come from, as :func:`unic.data.datasets.open_images` takes it."""

    name: str
    root: str | None


def index_images(
    name: str,
    *,
    root: str | None,
    n_clusters: int,
    far_rank: int,
    manifest: str | None = None,
) -> dict[str, list[str]]:
    """List the images of a data set and check that the experiment's numbers fit them.

    Args:
        name: Data set, see :func:`unic.data.datasets.list_images`.
        root: Folder of the files.
        n_clusters: K, at most the number of training images.
        far_rank: tau_2, below the number of training images.
        manifest: List of the images, of a data set that has one.

    Returns:
        Image ids by split.

    Raises:
        FileNotFoundError: If the folder is missing or not laid out as it must be.
        ValueError: If there is no image, or a number does not fit.
    """
    ids = list_images(name, root=root, manifest=manifest)
    n_images = len(ids["train"])
    if n_clusters > n_images:
        raise ValueError(
            f"n_clusters must be at most the {n_images} training images, got {n_clusters}"
        )
    if far_rank >= n_images:
        raise ValueError(
            f"neighbors.far_rank must be below the {n_images} training images, got {far_rank}"
        )
    return ids


def write_index(
    path: str | Path, ids: Mapping[str, Sequence[str]], *, name: str, root: str | None
) -> None:
    """Write an index: columns ``split``, ``image_id`` and ``n_bytes`` (0 where not a file).

    Name and root of the data set are among its attributes, for :func:`read_source`.
    """
    rows = [
        (split, image_id, _file_size(root, image_id))
        for split, split_ids in ids.items()
        for image_id in split_ids
    ]
    index = pd.DataFrame(rows, columns=["split", "image_id", "n_bytes"])
    index.attrs = Source(name, root)._asdict()
    with whole_file(path) as temporary:
        index.to_parquet(temporary)


def read_index(path: str | Path) -> dict[str, list[str]]:
    """Read the image ids by split."""
    index = pd.read_parquet(path, columns=["split", "image_id"])
    groups = index.groupby("split", sort=False)["image_id"]
    return {str(split): group.tolist() for split, group in groups}


def read_source(path: str | Path) -> Source:
    """Read where the images of an index come from.

    Raises:
        ValueError: If the index does not say, which those of older versions do not.
    """
    attributes = pd.read_parquet(path, columns=["split"]).attrs
    if set(attributes) != set(Source._fields):
        raise ValueError(f"{path} must say where its images are; delete it and run the workflow")
    return Source(**attributes)


def _file_size(root: str | None, image_id: str) -> int:
    path = Path(root or "", image_id)
    return path.stat().st_size if root is not None and path.is_file() else 0
