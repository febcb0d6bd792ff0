"""Which image is in which cluster: a table, and a contact sheet a cluster."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from unic.evaluation.metrics import name_clusters
from unic.report.contact_sheets import contact_sheet
from unic.storage.files import whole_folder

COLUMNS = ("cluster", "confidence", "second", "second_confidence", "distance")
MAX_SHOWN = 48  # images of a contact sheet
N_COLUMNS = 8
MAX_CELL = 112  # pixels


def list_predictions(
    predictions: pd.DataFrame,
    *,
    names: Sequence[str],
    known_labels: NDArray[np.int64],
) -> pd.DataFrame:
    """A row an image, as people read it.

    Args:
        predictions: Of one seed, see :func:`unic.recipe.runs.cluster_images`.
        names: Of the classes of known labels: a cluster has that of its labeled images.
        known_labels: Of the training images, in their order, ``(n,)``, -1 = unknown.

    Returns:
        Columns ``path``, ``split``, ``label`` (as it was given, else empty), ``cluster``, ``name``
        (of a labeled class, else empty), ``confidence``, and where the recipe has found them
        ``second``, ``second_confidence`` and ``distance`` to the neighbors.
    """
    is_training = (predictions["split"] == "train").to_numpy()
    clusters = predictions["cluster"].to_numpy(np.int64)
    cluster_names = name_clusters(
        clusters[is_training], known_labels, names, n_clusters=int(clusters.max()) + 1
    )
    label_of = dict(
        zip(np.flatnonzero(known_labels >= 0), known_labels[known_labels >= 0], strict=True)
    )
    rows = np.where(is_training, np.cumsum(is_training) - 1, -1)  # of the training images
    labels = [names[label_of[row]] if row in label_of else "" for row in rows]
    table = predictions[[name for name in COLUMNS if name in predictions]]
    table = table.round({name: 4 for name in table if name not in ("cluster", "second")})
    table.insert(1, "name", [cluster_names[cluster] for cluster in clusters])
    table.insert(0, "label", labels)
    table.insert(0, "split", predictions["split"].to_numpy())
    table.insert(0, "path", predictions["image_id"].to_numpy())
    return table.reset_index(drop=True)


def write_sheets(
    folder: str | Path,
    table: pd.DataFrame,
    read_image: Callable[[int], NDArray[np.uint8]],
    *,
    n_clusters: int,
) -> None:
    """Write a contact sheet a cluster that is not empty: its surest images first, JPEG.

    Args:
        folder: To be made, whole or not at all.
        table: See :func:`list_predictions`.
        read_image: Gives the RGB pixels, uint8 ``(h, w, 3)``, of a row of the table.
        n_clusters: K, which says how many digits the files' numbers have.
    """
    width = len(str(n_clusters - 1))
    with whole_folder(folder) as made:
        for cluster, rows in table.groupby("cluster"):
            surest = rows.sort_values("confidence", ascending=False, kind="stable")
            sheet = draw_sheet([read_image(int(row)) for row in surest.index[:MAX_SHOWN]])
            name = f"cluster_{int(cluster):0{width}d}.jpg"
            sheet.save(made / name, quality=85, optimize=True)


def draw_sheet(images: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """A contact sheet of some images; small ones are not enlarged beyond what can be seen."""
    side = max(min(image.shape[:2]) for image in images)
    return contact_sheet(images, n_columns=N_COLUMNS, cell_size=min(MAX_CELL, max(48, side)))
