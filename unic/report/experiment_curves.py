"""Scores of several experiments over epochs or over a setting, for Figures 5, 6, 7 and 11."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from unic.evaluation.formatting import METRIC_NAMES
from unic.report.paper_tables import FACTS, find_score
from unic.storage.files import read_json

EPOCH = "epoch"
_NAMES = {  # of scores and of what they are drawn over, as the axes say it
    "kmeans_acc": "k-means ACC",
    "clean_fraction": "Images that keep their neighbors",
    "neighbor_purity": "Kept neighbors in the same class",
    "reciprocity": "Mutual neighbors",
    "max_union_size": "Threshold of the union size (images)",
    "n_neighbors": "Neighbors",
    "epoch": "Epoch",
}

Lines = Mapping[str, str | Sequence[str]]  # name of a line to an experiment, or to one a point


class CurveFigure(NamedTuple):
    """What is drawn: panels by their titles, each with its lines."""

    title: str
    x: str  # epoch, a fact of the neighbors in metrics.json, or a setting by its dotted key
    panels: Mapping[str, Lines]
    scores: Sequence[str] = ("acc",)  # a row of panels each
    scale: str = "linear"
    label: str | None = None  # of the horizontal axis
    note: str = ""

    @property
    def x_label(self) -> str:
        """What the horizontal axis says."""
        return self.label or _NAMES.get(self.x, self.x)


def name_score(score: str) -> str:
    """A score as an axis says it, in percent.

    Example:
        >>> name_score("acc")
        'ACC (%)'
    """
    return f"{METRIC_NAMES.get(score, _NAMES.get(score, score))} (%)"


def collect_points(
    figure: CurveFigure,
    *,
    progress: Mapping[str, Sequence[str | Path]],
    metrics: Mapping[str, str | Path],
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Collect what is drawn: scores over epochs, over a setting, or over a fact of the neighbors.

    Over epochs the images are the test images where there are some, else the training images;
    else the split is the protocol's, see :func:`unic.report.paper_tables.find_score`.

    Args:
        figure: What is drawn.
        progress: Experiment to ``progress.csv`` of each of its seeds; read for epochs alone.
        metrics: Experiment to its ``metrics.json``; not read for epochs.
        settings: Experiment to its value of the setting; empty where ``x`` is none.

    Returns:
        A row a point: ``score``, ``panel``, ``line``, ``experiment``, ``split`` (empty for a fact
        of the neighbors), ``x``, ``mean`` and ``std`` over seeds in percent, and ``n_seeds``.

    Raises:
        ValueError: If an experiment lacks the score, or has no number to be drawn over.
    """
    if figure.x == EPOCH:
        return _follow(figure, progress)
    read = {name: read_json(path) for name, path in metrics.items()}
    return _collect(figure, read, settings)


def _follow(figure: CurveFigure, progress: Mapping[str, Sequence[str | Path]]) -> pd.DataFrame:
    """Scores over epochs (UNIC, Figs. 5 and 6)."""
    tables = {name: pd.concat(map(pd.read_csv, paths)) for name, paths in progress.items()}
    records = []
    for score, panel, line, experiments in _lines(figure):
        (experiment,) = experiments
        table = tables[experiment]
        if score not in table:
            known = ", ".join(column for column in table if column not in (EPOCH, "split"))
            raise ValueError(f"score must be one of {known} over epochs, got {score}")
        split = "test" if (table["split"] == "test").any() else "train"
        for epoch, values in table[table["split"] == split].groupby(EPOCH)[score]:
            std = values.std() if len(values) > 1 else 0.0
            found = (100 * values.mean(), 100 * std, len(values))
            records.append((score, panel, line, experiment, split, epoch, *found))
    return _tabulate(records)


def _collect(
    figure: CurveFigure, metrics: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Scores over a setting, or over a fact of the neighbors (UNIC, Figs. 7 and 11)."""
    records = []
    for score, panel, line, experiments in _lines(figure):
        points = []
        for name in experiments:
            x = _find_x(figure, name, metrics[name], settings)
            split, found = _find_score(score, name, metrics[name])
            points.append((score, panel, line, name, split, x, *found))
        records += sorted(points, key=lambda point: point[5])
    return _tabulate(records)


def _find_x(
    figure: CurveFigure, name: str, metrics: Mapping[str, Any], settings: Mapping[str, Any]
) -> float:
    x = settings[name] if settings else metrics["neighbors"].get(figure.x)
    if not isinstance(x, int | float):
        raise ValueError(f"{name} must have a number as {figure.x}, got {x}")
    return x


def _find_score(score: str, name: str, metrics: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """The split, and mean, deviation and number of seeds; a fact of the neighbors has neither."""
    if score in FACTS:
        fact = metrics["neighbors"][score]
        return "", (float("nan") if fact is None else 100 * fact, 0.0, 0)
    mean, std, n_seeds = find_score(name, "unic", score, metrics)
    splits = metrics["methods"]["unic"]
    split = next(key for key in ("unlabeled", "test", "train") if key in splits)
    return split, (100 * mean, 100 * std, n_seeds)


def _lines(figure: CurveFigure) -> list[tuple[str, str, str, list[str]]]:
    return [
        (score, panel, line, [found] if isinstance(found, str) else list(found))
        for score in figure.scores
        for panel, lines in figure.panels.items()
        for line, found in lines.items()
    ]


def _tabulate(records: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = ["score", "panel", "line", "experiment", "split", "x", "mean", "std", "n_seeds"]
    return pd.DataFrame(records, columns=columns)
