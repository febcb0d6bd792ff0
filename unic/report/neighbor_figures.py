"""Figures of the paper about the neighbors of an experiment: 4, 8, 9, 10, and 13."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from unic.report.figures import INK, MUTED, OURS, PALETTE, new_figure, style
from unic.report.image_grids import draw_images

_DASHED, _DOTTED = (0, (5, 2)), (0, (1, 1.5))
_ALIKE = PALETTE[1]
_LISTS = ((OURS, "-", "o"), (_ALIKE, _DASHED, "s"))  # color, line and marker of each n_neighbors
_ORDERS = {1: (OURS, "Neighbors"), 2: ("#E69F00", "Neighbors of neighbors")}
_N_COLUMNS = 10  # images of a row below a neighborhood


def plot_thresholds(table: pd.DataFrame, facts: Mapping[str, Any]) -> Figure:
    """Draw how pure the neighbors of kept images are, and how many are kept (UNIC, Fig. 4).

    Args:
        table: ``thresholds`` of :class:`unic.evaluation.neighbor_curves.NeighborCurves`.
        facts: Of the same.
    """
    with style():
        figure = new_figure(height=3.6)
        axes = figure.subplots()
        of_kept = f"Neighbors of kept images in the same {facts['kind']}"
        _line(axes, table, "alike", label=of_kept, color=_ALIKE, line=_DASHED, marker="s")
        _line(axes, table, "kept", label="Images that keep their neighbors", marker="o")
        _mark(axes, facts["max_union_size"])
        axes.set_title(_title(facts, f"{facts['n_neighbors']} neighbors", _threshold(facts)))
        axes.set_xlabel("Threshold of the second-order neighborhood size (images)")
        _percent(axes, "Percent")
        figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    return figure


def plot_removed(table: pd.DataFrame, facts: Mapping[str, Any]) -> Figure:
    """Draw how many images a threshold of the union size discards (UNIC, Fig. 9).

    Args:
        table: ``removed`` of :class:`unic.evaluation.neighbor_curves.NeighborCurves`.
        facts: Of the same.
    """
    tables = list(table.groupby("n_neighbors"))
    with style():
        figure = new_figure(height=3.2)
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        drawn = zip(panels, tables, _LISTS, strict=False)
        for axes, (n_neighbors, rows), (color, line, marker) in drawn:
            _line(axes, rows, "removed", color=color, line=line, marker=marker)
            is_own = n_neighbors == facts["n_neighbors"]
            axes.set_title(f"{n_neighbors} neighbors" + is_own * f", {_threshold(facts)}")
            if is_own:
                _mark(axes, facts["max_union_size"])
            axes.set_xlabel("Threshold of the union size (images)")
            _percent(axes, "Images discarded (%)" if axes is panels[0] else "")
        figure.suptitle(f"{facts['experiment']}: no labels are needed", x=0.01, ha="left", size=10)
    return figure


def plot_purity(table: pd.DataFrame, facts: Mapping[str, Any]) -> Figure:
    """Draw how pure the neighbors are that a threshold leaves (UNIC, Fig. 10).

    Args:
        table: ``purity`` of :class:`unic.evaluation.neighbor_curves.NeighborCurves`.
        facts: Of the same.
    """
    with style():
        figure = new_figure(height=3.4)
        axes = figure.subplots()
        drawn = zip(table.groupby("n_neighbors"), _LISTS, strict=False)
        for (n_neighbors, rows), (color, line, marker) in drawn:
            _line(
                axes,
                rows.assign(removed=100 * rows["removed"]),
                "alike",
                x="removed",
                label=f"{n_neighbors} neighbors",
                color=color,
                line=line,
                marker=marker,
            )
        axes.set_title(_title(facts))
        axes.set_xlabel("Images discarded (%)")
        _percent(axes, f"Kept neighbors in the same {facts['kind']} (%)", whole=False)
        figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    return figure


def plot_ranks(table: pd.DataFrame, facts: Mapping[str, Any]) -> Figure:
    """Draw how often the image at a rank is of the anchor's group (UNIC, Fig. 8).

    Three panels: all ranks; those from the far rank on, beside random sampling; the nearest.

    Args:
        table: ``ranks`` of :class:`unic.evaluation.neighbor_curves.NeighborCurves`.
        facts: Of the same.
    """
    n_ranks = facts["n_images"] - 1
    middle = (table["first_rank"] + table["last_rank"]) / 2
    drawn = pd.DataFrame({"place": middle / n_ranks, "rank": middle, "share": table["share"]})
    far = drawn[table["first_rank"] >= facts["far_rank"]]
    near = drawn[table["first_rank"] <= facts["n_single"]]
    with style():
        figure = new_figure(height=3.4)
        panels = figure.subplots(1, 3)
        for axes, rows, x in zip(
            panels, (drawn, far, near), ("place", "place", "rank"), strict=True
        ):
            axes.plot(rows[x], 100 * rows["share"], color=OURS, lw=1.4)
        _mark(panels[0], facts["far_rank"] / n_ranks)
        panels[1].axhline(100 * facts["by_chance"], color=_ALIKE, lw=1.4, linestyle=_DASHED)
        _mark(panels[2], facts["n_neighbors"] - 1)
        titles = (
            f"All ranks\ndotted: far rank {facts['far_rank']:,}",
            f"Far range\ndashed: random sampling, {facts['by_chance']:.1%}",
            f"Near range\ndotted: {facts['n_neighbors']} neighbors, itself one",
        )
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel("Rank / number of images")
            _percent(axes, "", whole=False)
        panels[2].set_xlabel("Rank")
        panels[2].xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panels[0].set_ylim(bottom=0)
        panels[1].set_ylim(0, 1.15 * panels[1].get_ylim()[1])
        panels[0].set_ylabel(f"Images in the anchor's {facts['kind']} (%)")
        figure.suptitle(_title(facts, _count_anchors(facts)), x=0.01, ha="left", size=10)
    return figure


def plot_neighborhoods(
    neighborhoods: pd.DataFrame,
    read_image: Callable[[int], NDArray[np.uint8]],
    *,
    experiment: str,
    kind: str,
) -> Figure:
    """Draw anchors among their neighbors, and these images (UNIC, Fig. 13).

    Args:
        neighborhoods: Of two anchors, see
            :func:`unic.evaluation.neighborhoods.tabulate_neighborhoods`.
        read_image: Gives the RGB pixels, uint8 ``(h, w, 3)``, of a training image.
        experiment: Its name.
        kind: ``class``, or ``cluster`` where true labels are not known.
    """
    with style():
        figure = new_figure(height=5.6)
        columns = figure.subplots(3, 2, height_ratios=[3.4, 0.8, 1.5], squeeze=False).T
        anchors = neighborhoods.groupby("anchor", sort=False)
        for column, (_, members) in zip(columns, anchors, strict=True):
            _draw_plane(column[0], members, kind)
            near, second = members[members["order"] < 2], members[members["order"] == 2]
            title = f"Image, and {len(near) - 1:,} neighbors"
            _draw_members(column[1], near, read_image, title=title, n_rows=1)
            title = f"{len(second):,} neighbors of these"
            _draw_members(column[2], second, read_image, title=title, n_rows=2)
        figure.legend(
            *columns[0][0].get_legend_handles_labels(),
            loc="outside lower left",
            ncols=3,
            handletextpad=0.2,
        )
        heading = _title({"experiment": experiment, "kind": kind}, "second-order neighborhoods")
        figure.suptitle(heading, x=0.01, ha="left", size=10)
    return figure


def _title(facts: Mapping[str, Any], *more: str) -> str:
    """What is drawn, and whether true labels say it."""
    by = "by true classes" if facts["kind"] == "class" else "by clusters, no true labels"
    return f"{facts['experiment']}: " + ", ".join([by, *more])


def _threshold(facts: Mapping[str, Any]) -> str:
    return f"dotted: threshold {facts['max_union_size']:,}"


def _count_anchors(facts: Mapping[str, Any]) -> str:
    whole = facts["n_anchors"] == facts["n_images"]
    part = "all" if whole else f"{facts['n_anchors']:,} of"
    return f"exact ranks of {part} {facts['n_images']:,} images"


def _line(
    axes: Axes,
    table: pd.DataFrame,
    y: str,
    *,
    x: str = "max_union_size",
    label: str = "",
    color: str = OURS,
    line: Any = "-",
    marker: str = "o",
) -> None:
    """Draw a share in percent, with a marker now and then to tell lines apart."""
    axes.plot(
        table[x],
        100 * table[y],
        color=color,
        linestyle=line,
        linewidth=1.6,
        marker=marker,
        markersize=4,
        markevery=max(1, len(table) // 12),
        label=label,
    )


def _percent(axes: Axes, label: str, *, whole: bool = True) -> None:
    axes.set_ylabel(label)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    if whole:
        axes.set_ylim(-2, 103)
        axes.set_yticks(range(0, 101, 20))


def _mark(axes: Axes, x: float) -> None:
    """Draw a vertical line, which the heading names: beside it there may be data."""
    axes.axvline(x, color=INK, linewidth=1, linestyle=_DOTTED)


def _draw_plane(axes: Axes, members: pd.DataFrame, kind: str) -> None:
    """Draw the members of a neighborhood: color is the order, marker whether they are alike."""
    own = members.iloc[0]
    axes.scatter(own["x"], own["y"], s=90, facecolors="none", edgecolors=INK, lw=1.6, label="Image")
    for order, (color, name) in _ORDERS.items():
        for is_alike, marker in ((True, "+"), (False, "x")):
            rows = members[(members["order"] == order) & (members["is_alike"] == is_alike)]
            label = f"{name}, {'same' if is_alike else 'other'} {kind}"
            axes.scatter(rows["x"], rows["y"], s=34, c=color, marker=marker, lw=1.3, label=label)
    state = "Kept" if own["is_kept"] else "Discarded"
    axes.set_title(f"{state}: union of {own['union_size']:,} images")
    axes.set_xlabel("First principal component of these")
    axes.set_ylabel("Second principal component")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_members(
    axes: Axes,
    members: pd.DataFrame,
    read_image: Callable[[int], NDArray[np.uint8]],
    *,
    title: str,
    n_rows: int,
) -> None:
    """Draw members of a neighborhood in frames of their order, others than the anchor crossed."""
    shown = members.head(n_rows * _N_COLUMNS)
    colors = {0: INK} | {order: color for order, (color, _) in _ORDERS.items()}
    draw_images(
        axes,
        [read_image(row) for row in shown["row"].tolist()],
        colors=[colors[order] for order in shown["order"].tolist()],
        n_columns=_N_COLUMNS,
        n_rows=n_rows,
        marked=(~shown["is_alike"]).tolist(),
    )
    part = f" (the first {len(shown)})" if len(shown) < len(members) else ""
    axes.set_title(title + part, fontsize=9, color=MUTED, pad=3)
