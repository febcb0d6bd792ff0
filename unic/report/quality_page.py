"""The page of what can be said without true labels: scores, duplicates, outliers, suspects."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.formatting import MISSING
from unic.report.contact_sheets import fill_cell

CELL = 96  # pixels of a picture
MAX_GROUPS = 40  # of duplicates, outliers or suspects that are shown; the tables have all
MAX_OF_GROUP = 6  # images
_DIRECTIONS = {True: "higher", False: "lower", None: ""}


class Picture(NamedTuple):
    """An image, and what is said below it."""

    path: str
    caption: str
    image: str  # data URI


class Section(NamedTuple):
    """Groups of pictures under a heading."""

    title: str
    text: str
    groups: list[list[Picture]]


class _Score(NamedTuple):
    name: str
    value: str
    better: str
    meaning: str


class _Cluster(NamedTuple):
    name: str
    size: int
    scores: list[str]


def build_quality_page(
    quality: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    read_image: Callable[[int], NDArray[np.uint8]],
    *,
    experiment: str,
    names: Sequence[str] = (),
) -> str:
    """Build a page that opens anywhere.

    Args:
        quality: ``quality.json``, see :func:`unic.quality.examination.examine`.
        tables: ``duplicates``, ``outliers``, ``suspects`` and ``featureless``, see there.
        read_image: Gives the RGB pixels, uint8 ``(h, w, 3)``, of a row of the training images.
        experiment: Its name.
        names: Of the clusters, empty where one has none.
    """
    by_cluster = quality["by_cluster"]
    columns = [name for name in by_cluster if name != "size"]
    order = np.argsort(
        [math.inf if v is None else v for v in by_cluster["neighbor_agreement"]], kind="stable"
    )
    clusters = [
        _Cluster(
            f"{number} {names[number]}" if names[number:] and names[number] else str(number),
            quality["sizes"][number],
            [_format(by_cluster[name][number]) for name in columns],
        )
        for number in order.tolist()
    ]
    overall = [
        _Score(
            name.replace("_", " "),
            _format(quality["overall"][name]),
            _DIRECTIONS[about["is_higher_better"]],
            about["meaning"],
        )
        for name, about in quality["scores"].items()
        if name in quality["overall"]
    ]
    return _load_template().render(
        experiment=experiment,
        seed=quality["seed"],
        overall=overall,
        columns=[name.replace("_", " ") for name in columns],
        clusters=clusters,
        sections=[
            _show_duplicates(tables["duplicates"], read_image),
            _show_outliers(tables["outliers"], read_image),
            *_show_suspects(tables["suspects"], read_image),
            *_show_featureless(tables["featureless"], read_image),
        ],
        cell=CELL,
    )


def _show_duplicates(
    table: pd.DataFrame, read_image: Callable[[int], NDArray[np.uint8]]
) -> Section:
    groups = [group for _, group in table.groupby("group", sort=False)]
    n_exact = int(table.loc[table["is_exact"], "group"].nunique())
    return Section(
        "Near-duplicates",
        f"{len(groups):,} groups of {len(table):,} images, {n_exact:,} of them with exact copies; "
        "all are in duplicates.csv.",
        [
            [
                _picture(row, "exact copy" if row["is_exact"] else "near", read_image)
                for _, row in group.head(MAX_OF_GROUP).iterrows()
            ]
            for group in groups[:MAX_GROUPS]
        ],
    )


def _show_outliers(table: pd.DataFrame, read_image: Callable[[int], NDArray[np.uint8]]) -> Section:
    listed = table[table["is_outlier"]]
    return Section(
        "Outliers",
        f"{len(listed):,} images are unlike all others; outliers.csv has the score of every image.",
        [
            [_picture(row, f"score {row['score']:.2f}", read_image)]
            for _, row in listed.head(MAX_GROUPS).iterrows()
        ],
    )


def _show_suspects(
    table: pd.DataFrame, read_image: Callable[[int], NDArray[np.uint8]]
) -> list[Section]:
    if table.empty:
        return []
    return [
        Section(
            "Labels that the neighbors contradict",
            f"{len(table):,} images; all are in suspects.csv.",
            [
                [_picture(row, f"{row['label']}, rather {row['suggested']}?", read_image)]
                for _, row in table.head(MAX_GROUPS).iterrows()
            ],
        )
    ]


def _show_featureless(
    table: pd.DataFrame, read_image: Callable[[int], NDArray[np.uint8]]
) -> list[Section]:
    if table.empty:
        return []
    return [
        Section(
            "Images of which the backbone says nothing",
            f"{len(table):,} images have features that are all 0. By angle they are as far from "
            "each other image as from the next, so their clusters mean nothing; the silhouette "
            "leaves them out.",
            [[_picture(row, "", read_image)] for _, row in table.head(MAX_GROUPS).iterrows()],
        )
    ]


def _picture(row: Any, caption: str, read_image: Callable[[int], NDArray[np.uint8]]) -> Picture:
    buffer = io.BytesIO()
    fill_cell(read_image(int(row["row"])), CELL).save(buffer, "JPEG", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(str(row["path"]), caption, f"data:image/jpeg;base64,{encoded}")


def _format(value: float | None) -> str:
    return MISSING if value is None or math.isnan(value) else f"{value:.3f}"


def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unic.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("quality_page.html.jinja")
