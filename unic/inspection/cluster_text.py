"""Clusters, and the images of some, as text: tables to read, CSV and JSON for programs."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from unic.evaluation.formatting import MISSING, format_percent
from unic.inspection.clusters import Description
from unic.inspection.runs import Run
from unic.inspection.text import Form, align, list_records, null_missing, shorten

_MAX_ID = 60  # characters
_TO_LEFT = ("image", "nearest", "label", "class")
_HEADINGS = {
    "least_confidence": "least",
    "neighbor_agreement": "neighbors",
    "seed_agreement": "seeds",
    "n_labeled": "labeled",
    "known_label": "label",
    "majority_class": "class",
    "image_id": "image",
}
_SHARES = ("share", "neighbor_agreement", "seed_agreement", "purity")
_ALWAYS = ("cluster", "size", "share", "confidence", "least_confidence")


def format_clusters(clusters: Sequence[Description], run: Run, form: Form, *, split: str) -> str:
    """Write a row a cluster: a table to read, CSV, or JSON with what they are of.

    CSV and JSON have the fields of :class:`unic.inspection.clusters.Description`; in CSV the
    nearest clusters are parted by blanks.
    """
    if form == "csv":
        return _csv(pd.DataFrame([_joined(about) for about in clusters]))
    if form == "json":
        rows = [_plain(about._asdict()) for about in clusters]
        about = {"experiment": run.name, "split": split, "seed": run.seed}
        return json.dumps(about | {"clusters": rows}, indent=2)
    n_images, n_used = (sum(c.size for c in clusters), sum(c.size > 0 for c in clusters))
    title = (
        f"{run.name}: {n_images:,} {split} images in {n_used:,} of {run.n_clusters:,} clusters, "
        f"seed {run.seed}"
    )
    return "\n".join([title, "", *align(_cells(clusters), to_left=_TO_LEFT)])


def format_images(
    clusters: Sequence[Description], images: Mapping[int, pd.DataFrame], run: Run, form: Form
) -> str:
    """Write the images of some clusters, from most to least confident.

    Args:
        clusters: Those that are shown.
        images: Number of each of them to :func:`unic.inspection.clusters.list_images`.
        run: The experiment.
        form: CSV has a line an image; JSON is a list of clusters with their ``images``.
    """
    if form == "csv":
        parts = [table.assign(cluster=number) for number, table in images.items()]
        table = pd.concat(parts, ignore_index=True)
        return _csv(table[["cluster", *table.columns.drop("cluster")]])
    if form == "json":
        found = [
            _plain(about._asdict()) | {"images": list_records(images[about.cluster])}
            for about in clusters
        ]
        return json.dumps(found, indent=2)
    return "\n\n".join(_cluster_text(about, images[about.cluster], run) for about in clusters)


def _cluster_text(about: Description, images: pd.DataFrame, run: Run) -> str:
    header, row = _cells([about])
    facts = [f"{name} {cell}" for name, cell in zip(header[3:], row[3:], strict=True)]
    size = f"{about.size:,} images ({format_percent(about.share)})"
    lines = [f"{run.name}, cluster {about.cluster}: {size}", f"  {', '.join(facts)}"]
    if len(images):
        names = list(images.columns)
        cells = [
            [_cell(name, value) for name, value in zip(names, values, strict=True)]
            for values in images.itertuples(index=False)
        ]
        lines += ["", *align([[_HEADINGS.get(n, n) for n in names], *cells], to_left=_TO_LEFT)]
    return "\n".join(lines)


def _cells(clusters: Sequence[Description]) -> list[list[str]]:
    """Heading and rows; columns that say nothing of any cluster are left out."""
    names = [
        name
        for name in Description._fields
        if name in _ALWAYS or any(getattr(about, name) not in (None, 0, []) for about in clusters)
    ]
    rows = [[_cell(name, getattr(about, name)) for name in names] for about in clusters]
    return [[_HEADINGS.get(name, name) for name in names], *rows]


def _cell(name: str, value: Any) -> str:
    if name == "nearest":
        return " ".join(map(str, value))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if name in _SHARES:
        return format_percent(value)
    if name == "image_id":
        return shorten(value, _MAX_ID)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _joined(about: Description) -> dict[str, Any]:
    return about._asdict() | {"nearest": _cell("nearest", about.nearest)}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as JSON has them, null where a number is none."""
    return {name: null_missing(value) for name, value in fields.items()}


def _csv(table: pd.DataFrame) -> str:
    return str(table.to_csv(index=False)).rstrip("\n")
