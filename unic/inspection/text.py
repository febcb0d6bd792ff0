"""Anchors and summaries as text: tables to read, CSV and JSON for programs."""

import json
import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import pandas as pd

from unic.evaluation.formatting import format_percent
from unic.evaluation.summary import far_share
from unic.inspection.neighbors import QUANTILES, Anchor, Artifacts

Form = Literal["table", "csv", "json"]

_RANKS = {1, 2, 5, 10, 20, 50, 100, 200, 500}  # shown of a summary, and the last
_MAX_ID = 60  # characters


def format_anchors(anchors: Sequence[Anchor], artifacts: Artifacts, form: Form) -> str:
    """Write anchors as a table to read, as CSV with a line for each image, or as a JSON list.

    CSV and JSON have the fields of :class:`unic.inspection.neighbors.Anchor`. In CSV the columns
    ``anchor_row``, ``anchor_id`` and ``role`` (``neighbor`` or ``negative``) go before them.
    """
    if form == "csv":
        return _anchors_csv(anchors)
    if form == "json":
        return _anchors_json(anchors, artifacts)
    return "\n\n".join("\n".join(_anchor_lines(anchor, artifacts)) for anchor in anchors)


def format_summary(summary: dict[str, Any], form: Form) -> str:
    """Write a summary as a table to read, as JSON, or its quantiles as CSV."""
    if form == "csv":
        return _summary_csv(summary)
    return json.dumps(summary, indent=2) if form == "json" else _summary_table(summary)


def describe_union(anchor: Anchor, artifacts: Artifacts) -> str:
    """The union size of an anchor against the threshold, and whether it is clean."""
    if anchor.union_size is None:
        return f"union size {_not_yet('clean_neighbors')}"
    state = "clean" if anchor.is_clean else "discarded"
    return f"union size {anchor.union_size} of at most {artifacts.max_union_size}: {state}"


def describe_reciprocity(anchor: Anchor) -> str:
    """How many of an anchor's neighbors have it among theirs."""
    n_others = len(anchor.neighbors) - 1
    return f"{round(anchor.reciprocity * n_others)} of {n_others} neighbors mutual"


def describe_negatives(anchor: Anchor) -> str:
    """How many negatives there are, and how many of them are shown."""
    if not anchor.n_negatives:
        return f"negatives {_not_yet('index_negatives')}"
    return f"negatives, {len(anchor.negatives)} of {anchor.n_negatives}"


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a long text: both ends of a path tell images apart."""
    if len(text) <= length:
        return text
    left = (length - 1) // 2
    return f"{text[:left]}…{text[len(text) - (length - 1 - left) :]}"


def align(cells: Sequence[Sequence[str]], *, to_left: Collection[str] = ("", "image")) -> list[str]:
    """Lines of a table, indented; columns with these headings to the left, all others right."""
    columns = list(zip(*cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_left = [column[0] in to_left for column in columns]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_left, strict=True)
        ).rstrip()
        for row in cells
    ]


def list_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON has them, null for what is missing."""
    columns = {name: table[name].astype(object).tolist() for name in table.columns}
    columns = {n: [null_missing(v) for v in vs] for n, vs in columns.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def null_missing(value: Any) -> Any:
    """The value, None where it is missing or no number, which JSON has no word for."""
    is_missing = value is pd.NA or (isinstance(value, float) and math.isnan(value))
    return None if is_missing else value


def _anchor_lines(anchor: Anchor, artifacts: Artifacts) -> list[str]:
    label = "" if anchor.known_label is None else f", known label {anchor.known_label}"
    lines = [
        f"image {anchor.row}: {anchor.image_id}{label}",
        f"  {describe_union(anchor, artifacts)}",
        f"  {describe_reciprocity(anchor)} ({format_percent(anchor.reciprocity)})",
        f"  far radius {anchor.far_radius:.4f}, rank {artifacts.far_rank}",
        "",
        *align(_cells(anchor.neighbors)),
        "",
        f"  {describe_negatives(anchor)}",
    ]
    return lines + (align(_cells(anchor.negatives)) if len(anchor.negatives) else [])


def _anchors_csv(anchors: Sequence[Anchor]) -> str:
    parts = [
        table.assign(anchor_row=anchor.row, anchor_id=anchor.image_id, role=role)
        for anchor in anchors
        for role, table in (("neighbor", anchor.neighbors), ("negative", anchor.negatives))
        if len(table)
    ]
    first = ["anchor_row", "anchor_id", "role"]
    columns = [*first, *(name for name in parts[0].columns if name not in first)]
    # Whole numbers and booleans of one part must not turn into floats beside gaps of the other.
    table = pd.concat([part.astype(object) for part in parts])[columns]
    return str(table.to_csv(index=False)).rstrip("\n")


def _anchors_json(anchors: Sequence[Anchor], artifacts: Artifacts) -> str:
    settings = {"far_rank": artifacts.far_rank, "max_union_size": artifacts.max_union_size}
    tables = ("neighbors", "negatives")
    content = [
        anchor._asdict() | settings | {name: list_records(getattr(anchor, name)) for name in tables}
        for anchor in anchors
    ]
    return json.dumps(content, indent=2)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    names = {"image_id": "image", "is_mutual": "mutual", "union_size": "union", "is_clean": "clean"}
    header = [names.get(name, name.replace("known_", "")) for name in table.columns]
    rows = [
        [_cell(name, value) for name, value in zip(table.columns, row, strict=True)]
        for row in table.itertuples(index=False)
    ]
    if rows and header[0] == "rank":
        rows[0][header.index("mutual")] = "itself"
    return [header, *rows]


def _cell(name: str, value: Any) -> str:
    if name == "distance":
        return f"{value:.4f}"
    if name == "image_id":
        return shorten(value, _MAX_ID)
    if name in ("is_mutual", "is_clean"):
        return "yes" if value else "no"
    return "-" if pd.isna(value) else str(value)


def _summary_table(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['experiment']}: {summary['n_neighbors']} neighbors (itself included) of "
        f"{summary['n_images']:,} images, far rank {summary['far_rank']:,}, "
        f"{summary['metric']}, {summary['backbone'] or 'no backbone'}"
    ]
    lines += [f"  {name:<13} {path}" for name, path in summary["stores"].items()]
    mining = summary["mining"] or {"how it went": "not recorded"}
    told = {name: value for name, value in mining.items() if not name.startswith("far_")}
    facts = {
        "mining": ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items()),
        "far sets": f"{format_percent(far_share(mining))} of the images beyond the far rank",
        "mutual": f"{format_percent(summary['mutual_fraction'])} of the neighbors",
        "clean": _not_yet("clean_neighbors"),
        "negatives": _not_yet("index_negatives"),
        "known labels": _not_yet("split_labels"),
    }
    if summary["union_size"] is not None:
        share = format_percent(summary["clean_fraction"])
        facts["clean"] = f"{share} of the images, unions of at most {summary['max_union_size']:,}"
    if summary["n_negatives"] is not None:
        facts["negatives"] = f"{summary['n_negatives']:,} an image"
    if summary["n_labeled"] is not None:
        facts["known labels"] = f"{summary['n_labeled']:,}"
    lines += [f"  {name:<13} {fact}" for name, fact in facts.items()]
    return "\n".join([*lines, "", *align(_quantile_cells(summary))])


def _summary_csv(summary: dict[str, Any]) -> str:
    rows = [{"quantity": "distance"} | row for row in summary["distances"]]
    others = ("far_radius", "reciprocity", "union_size")
    rows += [{"quantity": name} | summary[name] for name in others if summary[name] is not None]
    table = pd.DataFrame(rows, columns=["quantity", "rank", *QUANTILES])
    return str(table.astype({"rank": "Int64"}).to_csv(index=False)).rstrip("\n")


def _quantile_cells(summary: dict[str, Any]) -> list[list[str]]:
    last = summary["n_neighbors"] - 1
    rows = {
        f"distance, rank {row['rank']}": ("{:.4f}", row)
        for row in summary["distances"]
        if row["rank"] in _RANKS | {last}
    }
    rows[f"distance, rank {summary['far_rank']}"] = ("{:.4f}", summary["far_radius"])
    rows["mutual share"] = ("{:.2f}", summary["reciprocity"])
    if summary["union_size"] is not None:
        rows["union size"] = ("{:.0f}", summary["union_size"])
    cells = [
        [name, *(form.format(row[q]) for q in QUANTILES)] for name, (form, row) in rows.items()
    ]
    return [["", *QUANTILES], *cells]


def _not_yet(stage: str) -> str:
    return f"not there yet ({stage} has not run)"
