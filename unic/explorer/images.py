"""Single images for the page: what is known of one, search by name, tables of many."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.explorer.columns import Column
from unic.explorer.exhibits import Exhibit
from unic.inspection.neighbors import inspect_images
from unic.inspection.text import list_records

N_NEGATIVES = 24  # shown of an image
N_FOUND = 50  # images that a search lists


def describe_image(exhibit: Exhibit, row: int) -> dict[str, Any]:
    """All that is known of an image, for JSON.

    Args:
        exhibit: The experiment.
        row: Of the image.

    Returns:
        ``id``; ``neighbors`` in order, see :class:`unic.inspection.neighbors.Anchor`;
        ``second_order``, rows of the union of its neighbors' lists that are no neighbors;
        ``negatives``, the first that are stored; ``seeds`` with cluster and confidence; ``known``
        and ``truth``, names of its labels; and figures.
    """
    artifacts, truth = exhibit.artifacts, exhibit.truth
    (anchor,) = inspect_images(artifacts, [row], n_negatives=N_NEGATIVES)
    nearest = anchor.neighbors["row"].to_numpy()
    union = np.unique(artifacts.neighbors.read_rows("indices", nearest))
    return {
        "row": row,
        "id": anchor.image_id,
        "neighbors": list_records(anchor.neighbors),
        "second_order": np.setdiff1d(union, nearest).tolist(),
        "negatives": list_records(anchor.negatives),
        "n_negatives": anchor.n_negatives,
        "far_radius": anchor.far_radius,
        "far_rank": artifacts.far_rank,
        "reciprocity": anchor.reciprocity,
        "union_size": anchor.union_size,
        "max_union_size": artifacts.max_union_size,
        "is_clean": anchor.is_clean,
        "known": _name_label(exhibit.known_labels, exhibit.known_names, row),
        "truth": None if truth is None else _name_label(truth.labels, truth.names, row),
        "seeds": [
            {
                "seed": seed,
                "cluster": int(table["cluster"].iat[row]),
                "confidence": float(table["confidence"].iat[row]),
            }
            for seed, table in exhibit.predictions.items()
        ],
    }


def search_images(image_ids: Sequence[str], text: str) -> list[dict[str, Any]]:
    """The first images that have a text in their id, whatever its case; ``#5`` is row 5.

    Example:
        >>> search_images(["a/Cat.jpg", "b/dog.jpg"], "cat")
        [{'row': 0, 'id': 'a/Cat.jpg'}]
    """
    if not text:
        return []
    number = text.removeprefix("#")
    if number != text and number.isascii() and number.isdecimal():
        rows = [int(number)] if int(number) < len(image_ids) else []
    else:
        wanted = text.casefold()
        found = (row for row, image_id in enumerate(image_ids) if wanted in image_id.casefold())
        rows = list(islice(found, N_FOUND))
    return [{"row": row, "id": image_ids[row]} for row in rows]


def tabulate_images(
    exhibit: Exhibit, columns: dict[str, Column], rows: Sequence[int]
) -> pd.DataFrame:
    """A row an image: ``path``, ``row``, and every column that the page has of it.

    Categories with names have these, others their numbers; none is empty.
    """
    table = pd.DataFrame({"path": [exhibit.image_ids[row] for row in rows], "row": rows})
    for column in columns.values():
        values = np.asarray(column.read())[rows]
        if column.kind == "category":
            table[column.key] = [_name(column, int(value)) for value in values]
        else:
            table[column.key] = values
    return table


def tabulate_map(exhibit: Exhibit, columns: dict[str, Column]) -> pd.DataFrame:
    """All images for another viewer, a row each: that of :func:`tabulate_images`, and more.

    ``x`` and ``y`` are places in the map; ``neighbors`` has a list of rows, nearest first, and
    ``distances`` theirs.
    """
    rows = list(range(exhibit.n_images))
    positions = exhibit.map.read("positions")
    distances = exhibit.artifacts.neighbors.read("distances")
    return tabulate_images(exhibit, columns, rows).assign(
        x=positions[:, 0],
        y=positions[:, 1],
        neighbors=list(exhibit.indices[:, 1:]),
        distances=list(distances[:, 1:]),
    )


def _name_label(labels: NDArray[np.int64], names: Sequence[str], row: int) -> str | None:
    label = int(labels[row])
    if label < 0:
        return None
    return names[label] if label < len(names) else str(label)


def _name(column: Column, value: int) -> str:
    if value < 0:
        return ""
    return (column.names[value] if value < len(column.names) else "") or str(value)
