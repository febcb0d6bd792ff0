"""Known labels of some images, as somebody has written them down."""

from collections.abc import Sequence
from pathlib import Path

from unic.images.readers.annotations import first_of
from unic.storage.files import read_csv


def read_known_labels(
    paths: Sequence[str], ids: Sequence[str], *, root: str | None, ignored: Sequence[str] = ()
) -> dict[str, str]:
    """Read which training images have a label, and which.

    An image may be named by several rows and files, if these agree. A row with an empty label says
    nothing.

    Args:
        paths: CSV files with the columns ``path`` (below the root, or absolute) and ``label``.
        ids: The training images.
        root: Folder of the images.
        ignored: Further images that may be named, to no effect: skipped ones, those of tests.

    Returns:
        Image id to the name of its class.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file has no such columns or no label at all, a path is of no image, or an
            image has two labels; names the first, and where it is said.
    """
    known: dict[str, str] = {}
    where: dict[str, str] = {}
    allowed, everything = set(ids), {*ids, *ignored}
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"known labels must be a CSV file, there is none at {path}")
        rows = [
            (number, _image_id(row["path"], root), row["label"].strip())
            for number, row in enumerate(read_csv(path, columns=("path", "label")), start=2)
        ]
        missing = [
            f"{image_id} (line {number})"
            for number, image_id, _ in rows
            if image_id not in everything
        ]
        if missing:
            raise ValueError(
                f"{path} must label images below {root}, {len(missing)} are not among them"
                f"{first_of(missing)}"
            )
        if not any(label for _, _, label in rows):
            raise ValueError(f"{path} must have a label, none of its {len(rows)} rows has one")
        for number, image_id, label in rows:
            here = f"{path}, line {number}"
            if not label or image_id not in allowed:
                continue
            if known.setdefault(image_id, label) != label:
                raise ValueError(
                    f"{image_id} must have one label, got {known[image_id]} "
                    f"({where[image_id]}) and {label} ({here})"
                )
            where.setdefault(image_id, here)
    return known


def _image_id(path: str, root: str | None) -> str:
    """A path below the root, with ``/``, whichever way it was written."""
    given = Path(path.strip())
    if given.is_absolute() and root is not None and given.is_relative_to(Path(root).absolute()):
        given = given.relative_to(Path(root).absolute())
    return given.as_posix()
