"""Lists of images in a CSV or Parquet file: path, and optionally label and split."""

from pathlib import Path
from typing import TYPE_CHECKING

from unic.images.readers.annotations import Catalog, check_ids, first_of, number_classes
from unic.storage.files import read_csv, read_parquet

if TYPE_CHECKING:  # takes a second to import, and most data sets need none
    import pandas as pd


def read_manifest(path: Path, root: Path) -> Catalog:
    """Read a list of images, in its order.

    Args:
        path: A ``.csv`` or ``.parquet`` file with the columns ``path`` (below the root, with ``/``)
            and, where wanted, ``label`` and ``split`` (``train`` or ``test``; all are for training
            without it). Other columns are ignored.
        root: Folder of the images.

    Returns:
        The images, with classes numbered in the sorted order of their names, as text; without
        labels where the column is missing or empty.

    Raises:
        FileNotFoundError: If the manifest or an image of it is missing.
        ValueError: If a path leaves the root or comes twice, only some images have labels, a split
            is unknown, or there is no training image; names the first.
    """
    table = _read_table(path)
    ids = table["path"].tolist()
    check_ids(ids, str(path))
    missing = [i for i in ids if not (root / i).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} must list images below {root}, {len(missing)} are not there{first_of(missing)}"
        )
    strange = table.loc[~table["split"].isin(("train", "test")), "split"].tolist()
    if strange:
        raise ValueError(f"{path} must have the splits train and test, got {strange[0]!r}")
    splits = {name: table[table["split"] == name] for name in ("train", "test")}
    if splits["train"].empty:
        raise ValueError(f"{path} must list training images, it has none")
    splits = {name: part for name, part in splits.items() if not part.empty}
    unlabeled = table.loc[table["label"] == "", "path"].tolist()
    if unlabeled and len(unlabeled) < len(table):
        raise ValueError(
            f"{path} must label all images or none, {len(unlabeled)} of {len(table)} have no label"
            f"{first_of(unlabeled)}"
        )
    labels = {name: part["label"].tolist() for name, part in splits.items()}
    return Catalog(
        {name: part["path"].tolist() for name, part in splits.items()},
        None if unlabeled else number_classes(labels, str(path)),
    )


def _read_table(path: Path) -> "pd.DataFrame":
    """The columns path, label and split as text, empty where nothing is said."""
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"data.manifest must be a CSV or Parquet file, none is at {path}")
    if path.suffix == ".parquet":
        table = read_parquet(path)
    elif path.suffix == ".csv":
        rows = read_csv(path, columns=("path",))
        table = pd.DataFrame(rows, columns=list(rows[0]) if rows else ["path"])
    else:
        raise ValueError(f"data.manifest must end in .csv or .parquet, got {path}")
    if "path" not in table:
        raise ValueError(f"{path} must have the column path, got {list(table.columns)}")
    defaults = {"label": "", "split": "train"}
    table = table.assign(**{n: d for n, d in defaults.items() if n not in table})
    table = table[["path", "label", "split"]]
    return table.astype(object).where(table.notna(), "").astype(str)
