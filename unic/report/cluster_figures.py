"""Figures of the paper with images of clusters: 12, 14, 15 and 16."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from unic.evaluation.cluster_examples import N_IMAGES, Part
from unic.report.figures import INK, OURS, PALETTE, new_figure, style
from unic.report.image_grids import draw_images

_RIGHT, _WRONG = OURS, PALETTE[1]
_WITH_TRUTH = {
    "most": "Most confident true positives",
    "least": "Least confident true positives",
    "false": "False positives, at random",
}
_WITHOUT = {"most": "Most confident images", "least": "Least confident images"}
_PARTS: dict[Part, str] = {
    "some": "clusters",
    "old": "clusters of old classes",
    "new": "clusters of new classes",
    "others": "further clusters",
}
_ROW = 0.52  # inches


def plot_examples(
    examples: pd.DataFrame,
    read_image: Callable[[int], NDArray[np.uint8]],
    *,
    experiment: str,
    split: str,
    part: Part,
) -> Figure:
    """Draw images of clusters, a row a cluster (UNIC, Figs. 12 and 14 to 16).

    Args:
        examples: Of :func:`unic.evaluation.cluster_examples.choose_examples`.
        read_image: Gives the RGB pixels, uint8 ``(h, w, 3)``, of a ``row`` of the examples.
        experiment: Its name.
        split: Whose images they are.
        part: Whose clusters.
    """
    has_truth = bool(examples["class_name"].notna().any())
    kinds = _WITH_TRUTH if has_truth else _WITHOUT
    clusters = list(examples.groupby("cluster", sort=False))
    with style():
        figure = new_figure(height=_ROW * len(clusters) + 0.8)
        grid = figure.subplots(len(clusters), len(kinds), squeeze=False)
        for (number, rows), panels in zip(clusters, grid, strict=True):
            for axes, kind in zip(panels, kinds, strict=True):
                found = rows.loc[rows["kind"] == kind, "row"].tolist()
                colors = len(found) * [_WRONG if kind == "false" else _RIGHT]
                images = [read_image(row) for row in found]
                draw_images(axes, images, colors=colors, n_columns=N_IMAGES // len(kinds))
                if not found:
                    axes.text(0.1, 0.5, "none", va="center", color=INK, fontsize=8)
            label = f"cluster {number}"
            if has_truth:
                label = (
                    f"{_shorten(rows['class_name'].iloc[0])}\n{rows['purity'].iloc[0]:.0%} right"
                )
            panels[0].set_ylabel(label, rotation=0, ha="right", va="center", color=INK, fontsize=8)
        for axes, name in zip(grid[0], kinds.values(), strict=True):
            axes.set_title(name, fontsize=9)
        by = "matched to true classes" if has_truth else "no true labels"
        heading = f"{experiment}: {split} images of {_PARTS[part]}, {by}"
        figure.suptitle(heading, x=0.01, ha="left", size=10)
    return figure


def _shorten(name: str, *, length: int = 16) -> str:
    # A dollar sign would switch matplotlib to mathematics.
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("$", r"\$")
