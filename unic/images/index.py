"""The index of images: what every later stage counts its rows by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from unic.storage.files import read_parquet, write_parquet


class Source(NamedTuple):
    """Where images come from, as :func:`unic.images.datasets.open_images` takes it."""

    name: str
    root: str | None


class Skipped(NamedTuple):
    """An image that is left out, since it cannot be decoded."""

    split: str
    image_id: str
    reason: str


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

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = f"{folder}/images.parquet"
    ...     write_index(path, {"train": ["0", "1"], "test": ["2"]}, name="digits", root=None)
    ...     read_index(path)
    ...     read_source(path)
    {'train': ['0', '1'], 'test': ['2']}
    Source(name='digits', root=None)
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
