"""Two runs beside each other as text: tables to read, CSV and JSON for programs."""

import json
from typing import Any

import pandas as pd

from unic.evaluation.formatting import METRIC_NAMES, MISSING, format_count, format_percent
from unic.inspection.comparison import Comparison
from unic.inspection.text import Form, align, list_records

_N_MOVES = 20  # that a table shows


def format_comparison(comparison: Comparison, form: Form) -> str:
    """Write a comparison: tables to read, the moves as CSV, or all but the images as JSON."""
    if form == "csv":
        return str(comparison.moves.to_csv(index=False)).rstrip("\n")
    if form == "json":
        return json.dumps(_content(comparison), indent=2)
    return "\n".join(
        [*_heading(comparison), *_pairs(comparison), *_moves(comparison), *_scores(comparison)]
    )


def _content(comparison: Comparison) -> dict[str, Any]:
    agreement = comparison.agreement._asdict()
    tables = ("matching", "moves", "scores")
    return {
        "experiments": list(comparison.names),
        "seeds": list(comparison.seeds),
        "n_images": comparison.n_images,
        "n_moved": len(comparison.moved),
        "agreement": agreement,
    } | {name: list_records(getattr(comparison, name)) for name in tables}


def _heading(comparison: Comparison) -> list[str]:
    (one, other), seeds = comparison.names, comparison.seeds
    agreement = comparison.agreement
    return [
        f"{one} (seed {seeds[0]}) and {other} (seed {seeds[1]}): {comparison.n_images:,} images",
        f"  {format_percent(agreement.accuracy)} of the images are in paired clusters, "
        f"{len(comparison.moved):,} moved",
        f"  beyond chance: kappa {agreement.kappa:.3f}, adjusted Rand index {agreement.ari:.3f}",
    ]


def _pairs(comparison: Comparison) -> list[str]:
    one, other = comparison.names
    header = [one, other, "size", "size there", "shared", "stayed"]
    cells = [
        [
            *(_number(row[name]) for name in ("cluster", "other", "size", "other_size")),
            _number(row["n_shared"]),
            MISSING if pd.isna(row["stayed"]) else format_percent(row["stayed"]),
        ]
        for row in comparison.matching.to_dict("records")
    ]
    return ["", "  clusters that are paired", *align([header, *cells], to_left=())]


def _moves(comparison: Comparison) -> list[str]:
    if not len(comparison.moves):
        return ["", "  no image moved"]
    shown = comparison.moves.head(_N_MOVES)
    header = ["from", "to", "paired with", "images", "share"]
    cells = [
        [
            *(_number(row[name]) for name in ("from", "to", "to_pair", "n_images")),
            format_percent(row["share"]),
        ]
        for row in shown.to_dict("records")
    ]
    count = f"{len(comparison.moves):,}"
    which = count if len(shown) == len(comparison.moves) else f"the largest {len(shown)} of {count}"
    return ["", f"  {which} moves", *align([header, *cells], to_left=())]


def _scores(comparison: Comparison) -> list[str]:
    if not len(comparison.scores):
        return []
    one, other = comparison.names
    header = ["split", "score", one, other, "difference"]
    cells = [_score_cells(row) for row in comparison.scores.to_dict("records")]
    return ["", "  scores, means over seeds", *align([header, *cells], to_left=("split", "score"))]


def _score_cells(row: dict[str, Any]) -> list[str]:
    name = METRIC_NAMES.get(row["score"], row["score"])
    difference = row["other"] - row["one"]
    if row["score"] == "used_clusters":
        values = [format_count(row["one"]), format_count(row["other"]), f"{difference:+g}"]
    else:
        values = [*map(format_percent, (row["one"], row["other"])), f"{100 * difference:+.1f}"]
    return [row["split"], name, *values]


def _number(value: Any) -> str:
    return MISSING if pd.isna(value) else str(int(value))
