"""The figures of a report: training curves, union sizes, metrics, clusters."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from unic.evaluation.formatting import METHOD_NAMES, METRIC_NAMES, format_percent
from unic.evaluation.metrics import align_clusters, count_clusters, cross_tabulate
from unic.storage.files import whole_file

LABELED_METRICS = ("acc", "balanced_acc", "all", "old", "new", "nmi", "ami", "ari")

_CURVES = {
    "loss_pos": "Positive loss",
    "loss_neg": "Negative loss",
    "loss_ent": "Entropy loss",
    "entropy": "Entropy of the mean prediction",
    "used_clusters": "Clusters used",
    "learning_rate": "Learning rate",
}
_CRITERIA = {
    "agreement": "Two ways agree",
    "silhouette": "Silhouette",
    "modularity": "Modularity",
    "labels": "Known labels",
}
INK, MUTED, OURS, _DISCARDED = "#24292f", "#6a737d", "#0072B2", "#c3c9cf"
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#24292f"]  # Okabe-Ito
_BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9ecae6", "#0072B2", "#00304d"])
_STYLE = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#aab1b8",
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "xtick.color": "#aab1b8",
    "ytick.color": "#aab1b8",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.hashsalt": "unic",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}
_WIDTH = 9.0  # inches
_MARKS = ["o", "s", "^"]  # of data sets, where there are more of them than colors
_MAX_NAMED = 40  # rows and columns whose names still fit beside a confusion matrix
_STEPS = [1, 2, 2.5, 5, 10]  # round ticks
_MAX_WRITTEN = 15  # rows and columns whose values still fit into their cells


def plot_losses(history: pd.DataFrame) -> Figure:
    """Draw what finetuning logged, one panel a column and one line a seed.

    Args:
        history: One row per seed and epoch, with the columns ``seed``, ``epoch``, ``loss_pos``,
            ``loss_neg``, ``loss_ent``, ``entropy``, ``used_clusters`` and ``learning_rate``.

    Raises:
        ValueError: If a column is missing.
    """
    missing = sorted({"seed", "epoch", *_CURVES} - set(history.columns))
    if missing:
        raise ValueError(f"history must have the columns of finetuning, lacks {missing}")
    with style():
        figure = new_figure(height=4.9)
        panels = figure.subplots(2, 3, sharex=True).ravel()
        for axes, (column, title) in zip(panels, _CURVES.items(), strict=True):
            _draw_curves(axes, history, column)
            axes.set_title(title)
        for axes in panels[3:]:
            axes.set_xlabel("Epoch")
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside upper left", ncols=min(len(names), 8))
    return figure


def plot_union_sizes(union_size: NDArray[np.integer[Any]], max_union_size: int) -> Figure:
    """Draw how many images have a second-order neighborhood of each size (UNIC, Eq. 4).

    Args:
        union_size: Shape ``(n,)``, distinct images among the neighbors of an image's neighbors.
        max_union_size: eta of the paper; larger neighborhoods are discarded.

    Raises:
        ValueError: If ``union_size`` is empty.
    """
    if union_size.size == 0:
        raise ValueError("union_size must hold at least one image, got none")
    edges = _histogram_edges(union_size, max_union_size)
    counts, _ = np.histogram(
        union_size, bins=edges + 0.5
    )  # a bar counts the sizes in (left, right]
    colors = [OURS if right <= max_union_size else _DISCARDED for right in edges[1:]]
    kept = float(np.mean(union_size <= max_union_size))
    with style():
        figure = new_figure(height=3.2)
        axes = figure.subplots()
        widths = np.diff(edges)
        axes.bar(edges[:-1], counts, widths, align="edge", color=colors, edgecolor="w", lw=0.4)
        axes.axvline(max_union_size, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.annotate(
            f"threshold {max_union_size}",
            (max_union_size, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4),
            textcoords="offset points",
            va="top",
            bbox={"facecolor": "w", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
        )
        axes.margins(x=0.02)
        axes.set_xlim(right=max(edges[-1], max_union_size + 0.16 * np.ptp(edges)))
        axes.set_title(
            f"{format_percent(kept)} of the neighborhoods kept (at most {max_union_size})"
        )
        _label(axes, x="Images in the second-order neighborhood", y="Images")
    return figure


def plot_metrics(metrics: Mapping[str, Any], *, split: str) -> Figure:
    """Draw our metrics beside those of the baselines: mean, std, and every seed.

    Args:
        metrics: ``metrics.json`` of an experiment, values in ``[0, 1]``.
        split: The key under each method, such as ``"test"`` or ``"unlabeled"``.

    Raises:
        ValueError: If no method has a metric against labels on ``split``.
    """
    methods = {
        name: splits[split] for name, splits in metrics["methods"].items() if split in splits
    }
    shown = [key for key in LABELED_METRICS if any(key in method for method in methods.values())]
    if not shown:
        raise ValueError(f"metrics must hold one of {LABELED_METRICS} on {split!r}, got none")
    colors = _method_colors(list(methods))
    width = 0.82 / len(methods)
    with style():
        figure = new_figure(height=3.6)
        axes = figure.subplots()
        for i, (name, method) in enumerate(methods.items()):
            center = np.arange(len(shown)) + (i - (len(methods) - 1) / 2) * width
            measures = [method.get(key) for key in shown]
            _draw_bars(axes, center, measures, width=width, color=colors[name], name=name)
        axes.set_xticks(range(len(shown)), [METRIC_NAMES[key] for key in shown])
        axes.tick_params(axis="x", length=0, labelcolor=INK)
        axes.axhline(0, color="#aab1b8", linewidth=0.8)
        axes.set_ylim(min(0, axes.get_ylim()[0]), 106)
        axes.set_yticks(range(0, 101, 20))
        _label(axes, y="Percent")
        figure.legend(loc="outside upper left", ncols=3, handlelength=1, handleheight=1)
    return figure


def plot_comparison(scores: pd.DataFrame) -> Figure:
    """Draw the scores of methods on several data sets: a panel a score, a row a method.

    A small mark is a data set, with its deviation over seeds; the large one their mean, where a
    method has them all.

    Args:
        scores: Columns ``score``, ``method``, ``data``, ``mean`` and ``std``, in percent.

    Raises:
        ValueError: If there is no score.
    """
    if not len(scores):
        raise ValueError("scores must hold a row, got none")
    names = {key: list(dict.fromkeys(scores[key])) for key in ("score", "method", "data")}
    height = {method: -row for row, method in enumerate(names["method"])}
    shift = np.linspace(0.25, -0.25, len(names["data"])) if len(names["data"]) > 1 else [0.0]
    with style():
        figure = new_figure(height=0.34 * len(height) + 1.2)
        panels = figure.subplots(1, len(names["score"]), sharey=True, squeeze=False)[0]
        for axes, score in zip(panels, names["score"], strict=True):
            of_score = scores[scores["score"] == score]
            for number, data in enumerate(names["data"]):
                rows = of_score[of_score["data"] == data]
                axes.errorbar(
                    rows["mean"],
                    [height[method] + shift[number] for method in rows["method"]],
                    xerr=rows["std"],
                    fmt=_MARKS[number // len(PALETTE) % len(_MARKS)],
                    markersize=3,
                    linewidth=0.8,
                    color=PALETTE[number % len(PALETTE)],
                    alpha=0.75,
                    label=data,
                )
            means = of_score.groupby("method", sort=False)["mean"].agg(["mean", "size"])
            whole = means[means["size"] == len(names["data"])]["mean"]
            rows_of_means = [height[method] for method in whole.index]
            axes.plot(whole, rows_of_means, "|", markersize=13, color=INK, label="mean")
            axes.set_title(METRIC_NAMES.get(score, score))
            axes.grid(visible=True, axis="both")
            axes.set_xlabel("Percent")
        labels = [METHOD_NAMES.get(method, method) for method in height]
        panels[0].set_yticks(list(height.values()), labels)
        panels[0].tick_params(axis="y", length=0, labelcolor=INK)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper left", ncols=6, handlelength=1)
    return figure


def plot_n_clusters(estimate: Mapping[str, Any]) -> Figure:
    """Draw what speaks for each number of clusters, with the interval and the best.

    Args:
        estimate: ``n_clusters.json``, see :meth:`unic.quality.n_clusters.Estimate.record`.
    """
    curve = estimate["curve"]
    with style():
        figure = new_figure(height=3.4)
        axes = figure.subplots()
        axes.axvspan(estimate["low"], estimate["high"], color="#eef3f7", zorder=0)
        for name, color in zip(_CRITERIA, PALETTE[1:], strict=False):
            values = [math.nan if value is None else value for value in curve[name]]
            if not all(map(math.isnan, values)):
                axes.plot(curve["n_clusters"], values, color=color, lw=1, label=_CRITERIA[name])
        axes.plot(curve["n_clusters"], curve["score"], color=OURS, lw=2, label="Score")
        axes.axvline(estimate["n_clusters"], color=INK, lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.grid(axis="y")
        best, low, high = (estimate[key] for key in ("n_clusters", "low", "high"))
        axes.set_title(f"{best} clusters, between {low} and {high} (shaded)")
        axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        _label(axes, x="Number of clusters", y="Beyond one Gaussian")
    return figure


def plot_cluster_sizes(predictions: pd.DataFrame, *, n_clusters: int) -> Figure:
    """Draw the number of images in each cluster, the largest first.

    Args:
        predictions: One row an image, with the column ``cluster``.
        n_clusters: Outputs of the cluster head; empty ones count as well.

    Raises:
        ValueError: If a cluster is not in ``[0, n_clusters)``.
    """
    clusters = predictions["cluster"].to_numpy(dtype=np.int64)
    sizes = count_clusters(clusters, n_clusters=n_clusters)
    order = np.argsort(-sizes, kind="stable")
    with style():
        figure = new_figure(height=3.0)
        axes = figure.subplots()
        width = 0.86 if n_clusters <= 60 else 1
        axes.bar(range(n_clusters), sizes[order], width, color=OURS, edgecolor="w", linewidth=0.3)
        mean = len(clusters) / n_clusters
        axes.axhline(mean, color=INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.annotate(
            f"mean {mean:,.0f}",
            (1, mean),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            bbox={"facecolor": "w", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
        )
        axes.set_title(
            f"{np.count_nonzero(sizes):,} of {n_clusters:,} clusters used: "
            f"smallest {sizes.min():,}, median {np.median(sizes):,.0f}, "
            f"largest {sizes.max():,} images"
        )
        if n_clusters <= _MAX_NAMED:
            axes.set_xticks(range(n_clusters), [str(c) for c in order])
        axes.set_xlim(-0.7, n_clusters - 0.3)
        _label(axes, x="Cluster" if n_clusters <= _MAX_NAMED else "Rank of the cluster", y="Images")
    return figure


def plot_confusion(
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    class_names: Sequence[str] | None = None,
    *,
    n_clusters: int,
) -> Figure:
    """Draw where the images of each class went; each class's cluster is on the diagonal.

    Rows are classes, columns are clusters, both in the order of the best one-to-one matching
    (Hungarian); classes and clusters left over come last. Each row adds up to 100 percent.

    Args:
        labels: Shape ``(n,)``, the class of each image, ``>= 0``.
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        class_names: A name per class, or None for numbers.
        n_clusters: Outputs of the cluster head; empty ones are drawn as well.

    Raises:
        ValueError: If lengths differ, or a label has no name.
    """
    n_classes = None if class_names is None else len(class_names)
    counts = cross_tabulate(labels, clusters, n_classes=n_classes, n_clusters=n_clusters)
    rows, columns = align_clusters(counts)
    matched = counts[rows][:, columns]
    shares = matched / np.maximum(matched.sum(1, keepdims=True), 1)
    on_diagonal = np.trace(matched) / max(len(labels), 1)
    n_largest = max(counts.shape)
    names = [f"class {r}" if class_names is None else class_names[r] for r in rows]
    with style():
        side = 7.0 if n_largest > _MAX_WRITTEN else 2.0 + 0.36 * n_largest
        figure = new_figure(height=0.7 + side * min(1, max(0.3, shares.shape[0] / n_largest)))
        axes = figure.subplots()
        # A square root keeps the faint cells visible where a cell is a few pixels wide.
        norm = PowerNorm(0.5 if n_largest > _MAX_NAMED else 1, vmin=0, vmax=100)
        image = axes.imshow(100 * shares, cmap=_BLUES, norm=norm, interpolation="nearest")
        _name_cells(axes, names=names, columns=columns)
        if n_largest <= _MAX_WRITTEN:
            _write_cells(axes, shares)
        if counts.shape[0] != counts.shape[1]:
            _separate_unmatched(axes, counts.shape)
        axes.set_title(
            f"{format_percent(on_diagonal)} of the images are in the cluster of their class"
        )
        axes.spines[:].set_visible(True)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30, label="Percent of the class")
        bar.set_ticks([0, 25, 50, 75, 100])
    return figure


def encode_png(figure: Figure) -> bytes:
    """Return the PNG file of a figure; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def encode_svg(figure: Figure) -> bytes:
    """Return the SVG file of a figure, text as paths; as :func:`encode_png`."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def write_figure(figure: Figure, *, png: str | Path, svg: str | Path) -> None:
    """Write a figure as PNG and as SVG, each whole or not at all."""
    for path, content in ((png, encode_png(figure)), (svg, encode_svg(figure))):
        with whole_file(path) as temporary:
            temporary.write_bytes(content)


@contextmanager
def style() -> Iterator[None]:
    """Draw alike whatever the user's matplotlibrc says."""
    with matplotlib.style.context(_STYLE, after_reset=True):
        yield


def new_figure(*, height: float) -> Figure:
    """An empty figure of the width of all others; to be made within :func:`style`."""
    figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _label(axes: Axes, *, x: str = "", y: str = "") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    if y == "Images":
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=_STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_curves(axes: Axes, history: pd.DataFrame, column: str) -> None:
    for i, (seed, rows) in enumerate(history.groupby("seed", sort=True)):
        axes.plot(
            rows["epoch"],
            rows[column],
            color=PALETTE[i % len(PALETTE)],
            linewidth=1.4,
            marker="o" if len(rows) == 1 else None,
            markersize=4,
            label=f"seed {seed}",
        )
    axes.margins(x=0.03, y=0.1)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    whole = column == "used_clusters"
    axes.yaxis.set_major_locator(
        MaxNLocator(5, integer=whole, steps=_STEPS, min_n_ticks=1 if whole else 3)
    )
    if column == "learning_rate":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _scientific(value)))
    axes.tick_params(axis="y", length=0)


def _histogram_edges(
    union_size: NDArray[np.integer[Any]], max_union_size: int
) -> NDArray[np.int64]:
    """Whole-number edges, one of them at the threshold; about 60 bars."""
    low = min(int(union_size.min()), max_union_size) - 1
    high = max(int(union_size.max()), max_union_size)
    width = max(1, -(-(high - low) // 60))
    n_left = -(-(max_union_size - low) // width)
    n_right = -(-(high - max_union_size) // width)
    return max_union_size + width * np.arange(-n_left, n_right + 1, dtype=np.int64)


def _method_colors(methods: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Ours in color, the baselines in grays from dark to light, which everybody can tell apart."""
    baselines = [name for name in methods if name != "unic"]
    grays = np.linspace(to_rgb("#7b848d"), to_rgb("#d3d8dc"), max(len(baselines), 2))
    colors = {name: tuple(gray) for name, gray in zip(baselines, grays, strict=False)}
    return {name: to_rgb(colors.get(name, OURS)) for name in methods}


def _draw_bars(
    axes: Axes,
    centers: NDArray[np.floating[Any]],
    measures: Sequence[Mapping[str, Any] | None],
    *,
    width: float,
    color: tuple[float, float, float],
    name: str,
) -> None:
    """Draw one method: a bar a metric, its std, its seeds, and for ours the number on top."""
    means = [np.nan if m is None or m["mean"] is None else 100 * m["mean"] for m in measures]
    axes.bar(centers, means, 0.92 * width, color=color, label=METHOD_NAMES.get(name, name))
    for center, mean, measure in zip(centers, means, measures, strict=True):
        if measure is None or np.isnan(mean):
            continue
        values = 100 * np.array([v for v in measure["values"] if v is not None], dtype=np.float64)
        top = max(mean, *values) if len(values) else mean
        if len(values) > 1:
            std = 100 * measure["std"]
            axes.errorbar(center, mean, std, color=INK, elinewidth=1, capsize=2.5, capthick=1)
            spread = np.linspace(-0.28, 0.28, len(values)) * width
            axes.scatter(center + spread, values, s=9, color="w", edgecolor=INK, lw=0.7, zorder=3)
            top = max(top, mean + std)
        if name == "unic":
            axes.annotate(
                f"{mean:.1f}",
                (center, top),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                fontweight="bold",
                color=OURS,
            )


def _name_cells(axes: Axes, *, names: Sequence[str], columns: NDArray[np.int64]) -> None:
    axes.set_xlabel("Cluster" if len(columns) <= _MAX_NAMED else "Clusters, matched to the classes")
    axes.set_ylabel("" if len(names) <= _MAX_NAMED else "Classes")
    axes.tick_params(length=0)
    if len(names) <= _MAX_NAMED:
        axes.set_yticks(range(len(names)), [_shorten(name) for name in names])
        axes.tick_params(axis="y", labelcolor=INK)
    if len(columns) <= _MAX_NAMED:
        axes.set_xticks(range(len(columns)), [str(c) for c in columns])
    if max(len(names), len(columns)) > 25:
        axes.tick_params(labelsize=7)


def _write_cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "w" if share > 0.5 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color)


def _separate_unmatched(axes: Axes, shape: tuple[int, ...]) -> None:
    n_matched = min(shape) - 0.5
    draw = axes.axhline if shape[0] > shape[1] else axes.axvline
    draw(n_matched, color="#D55E00", linewidth=1, linestyle=(0, (4, 2)))


def _scientific(value: float) -> str:
    """Write 0.000025 as 2.5e-5."""
    if value == 0:
        return "0"
    return np.format_float_scientific(float(f"{value:.3g}"), trim="-", exp_digits=1)


def _shorten(name: str, *, length: int = 22) -> str:
    # A dollar sign would switch matplotlib to mathematics.
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("$", r"\$")
