"""The drawing of scores of several experiments: Figures 5, 6, 7 and 11."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from unic.report.experiment_curves import EPOCH, CurveFigure, name_score
from unic.report.figures import INK, PALETTE, new_figure, style

_LINES = ["-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 3))]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
_MAX_TICKS = 8  # values of a setting that are all written at the axis


def plot_curves(figure: CurveFigure, points: pd.DataFrame) -> Figure:
    """Draw a panel a column, a row a score, and a line for each experiment or series of them.

    Bands and bars are standard deviations over seeds.

    Args:
        figure: What is drawn.
        points: Of :mod:`unic.report.experiment_curves`.

    Raises:
        ValueError: If there is no point.
    """
    if not len(points):
        raise ValueError(f"{figure.title} must have a point, got none")
    with style():
        n_lines = max(len(lines) for lines in figure.panels.values())
        height = 2.5 * len(figure.scores) + 0.5 + 0.2 * n_lines
        drawn = new_figure(height=height)
        grid = drawn.subplots(
            len(figure.scores), len(figure.panels), sharey="row", sharex="col", squeeze=False
        )
        for score, row in zip(figure.scores, grid, strict=True):
            for panel, axes in zip(figure.panels, row, strict=True):
                found = points[(points["score"] == score) & (points["panel"] == panel)]
                _draw_panel(axes, found, figure)
            row[0].set_ylabel(_name(score, points))
        for panel, axes in zip(figure.panels, grid[0], strict=True):
            axes.set_title(panel)
        for axes in grid[-1]:
            axes.set_xlabel(figure.x_label)
            handles, names = axes.get_legend_handles_labels()
            axes.legend(handles, names, loc="upper left", bbox_to_anchor=(0, -0.24), handlelength=3)
        drawn.suptitle(figure.title.replace("$", r"\$"), x=0.01, ha="left", size=10, color=INK)
    return drawn


def _draw_panel(axes: Axes, points: pd.DataFrame, figure: CurveFigure) -> None:
    for number, (name, line) in enumerate(points.groupby("line", sort=False)):
        look: dict[str, Any] = {
            "color": PALETTE[number % len(PALETTE)],
            "linestyle": _LINES[number % len(_LINES)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 4,
            "linewidth": 1.5,
            "markevery": max(1, len(line) // 8),
        }
        if figure.x == EPOCH:
            axes.plot(line["x"], line["mean"], label=name, **look)
            low, high = line["mean"] - line["std"], line["mean"] + line["std"]
            axes.fill_between(line["x"], low, high, color=look["color"], alpha=0.15, lw=0)
        else:
            bars: dict[str, Any] = {
                "yerr": line["std"],
                "capsize": 2.5,
                "elinewidth": 1,
                "label": name,
            }
            axes.errorbar(line["x"], line["mean"], **look | bars)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    _scale(axes, points["x"].to_numpy(dtype=np.float64), figure)


def _scale(axes: Axes, values: NDArray[np.float64], figure: CurveFigure) -> None:
    """Set the horizontal axis; the few values of a setting are written as they are."""
    if figure.scale == "log" and not (values == 0).any():
        axes.set_xscale("log")
    elif figure.scale == "log":  # zero has a place of its own, left of the least value
        least = values[values > 0].min() if (values > 0).any() else 1.0
        axes.set_xscale("symlog", linthresh=least, linscale=0.7)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ticks = np.unique(values)
    if figure.scale == "log" and len(ticks) <= _MAX_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
        axes.xaxis.set_minor_locator(NullLocator())
    elif figure.x == EPOCH:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _name(score: str, points: pd.DataFrame) -> str:
    """The score, and whose images it is of."""
    splits = sorted(set(points.loc[points["score"] == score, "split"]) - {""})
    return f"{name_score(score)}{', ' if splits else ''}{' and '.join(splits)}"
