from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from unic.report.figures import encode_png
from unic.report.neighbor_figures import (
    plot_neighborhoods,
    plot_purity,
    plot_ranks,
    plot_removed,
    plot_thresholds,
)

FACTS: dict[str, Any] = {
    "experiment": "toy",
    "kind": "class",
    "n_images": 101,
    "n_neighbors": 20,
    "far_rank": 60,
    "max_union_size": 40,
    "n_anchors": 50,
    "n_single": 30,
    "by_chance": 0.1,
}
CLUSTERED = FACTS | {"kind": "cluster"}
SIZES = np.arange(20, 60)
THRESHOLDS = pd.DataFrame(
    {"max_union_size": SIZES, "kept": (SIZES - 19) / 40, "alike": 1 - SIZES / 100}
)
SWEPT = pd.concat(
    [
        pd.DataFrame(
            {
                "n_neighbors": n,
                "max_union_size": SIZES,
                "removed": (59 - SIZES) / 40,
                "alike": 1 - SIZES / (n + 90),
            }
        )
        for n in (10, 20)
    ]
)
RANKS = pd.DataFrame(
    {
        "first_rank": [*range(1, 31), *range(31, 101, 5)],
        "last_rank": [*range(1, 31), *range(35, 101, 5)],
        "share": np.linspace(0.9, 0.02, 44),
    }
)


@pytest.mark.parametrize(
    ("facts", "words"), [(FACTS, "true classes"), (CLUSTERED, "clusters, no true labels")]
)
def test_a_figure_says_whether_truth_is_read(facts: dict[str, Any], words: str) -> None:
    thresholds, purity = plot_thresholds(THRESHOLDS, facts), plot_purity(SWEPT, facts)
    assert words in thresholds.axes[0].get_title("left")
    assert words in purity.axes[0].get_title("left")
    assert facts["kind"] in purity.axes[0].get_ylabel()
    ranks = plot_ranks(RANKS, facts)
    assert words in ranks.get_suptitle()
    assert facts["kind"] in ranks.axes[0].get_ylabel()
    assert "no labels" in plot_removed(SWEPT, facts).get_suptitle()


def test_thresholds_have_both_lines_and_the_one_in_use() -> None:
    figure = plot_thresholds(THRESHOLDS, FACTS)
    alike, kept, mark = figure.axes[0].lines
    np.testing.assert_allclose(alike.get_ydata(), 100 * THRESHOLDS["alike"])
    np.testing.assert_allclose(kept.get_ydata(), 100 * THRESHOLDS["kept"])
    np.testing.assert_array_equal(kept.get_xdata(), SIZES)
    assert list(mark.get_xdata()) == [40, 40]
    assert alike.get_linestyle() != kept.get_linestyle()
    assert alike.get_marker() != kept.get_marker()
    assert len(figure.legends[0].get_texts()) == 2


def test_each_list_has_a_panel_of_what_is_removed() -> None:
    first, second = plot_removed(SWEPT, FACTS).axes
    titles = [axes.get_title("left") for axes in (first, second)]
    assert titles == ["10 neighbors", "20 neighbors, dotted: threshold 40"]
    assert (len(first.lines), len(second.lines)) == (1, 2)  # the threshold is of the own list
    np.testing.assert_allclose(first.lines[0].get_ydata(), 100 * (59 - SIZES) / 40)


def test_purity_is_drawn_over_what_is_removed() -> None:
    figure = plot_purity(SWEPT, FACTS)
    for line, n_neighbors in zip(figure.axes[0].lines, (10, 20), strict=True):
        rows = SWEPT[SWEPT["n_neighbors"] == n_neighbors]
        np.testing.assert_allclose(line.get_xdata(), 100 * rows["removed"])
        np.testing.assert_allclose(line.get_ydata(), 100 * rows["alike"])
        assert line.get_label() == f"{n_neighbors} neighbors"


def test_ranks_have_three_panels() -> None:
    whole, far, near = plot_ranks(RANKS, FACTS).axes
    middle = (RANKS["first_rank"] + RANKS["last_rank"]) / 2
    np.testing.assert_allclose(whole.lines[0].get_xdata(), middle / 100)
    np.testing.assert_allclose(whole.lines[0].get_ydata(), 100 * RANKS["share"])
    assert far.lines[0].get_xdata().min() >= 0.6
    chance = far.lines[1]
    assert list(chance.get_ydata()) == [10, 10]
    assert chance.get_linestyle() != "-"
    assert near.lines[0].get_xdata().tolist() == list(range(1, 31))
    assert list(near.lines[1].get_xdata()) == [19, 19]
    assert all(not axes.texts for axes in (whole, far, near))  # nothing is written over data
    assert far.get_title("left") == "Far range\ndashed: random sampling, 10.0%"


def make_neighborhood(anchor: int, n_second: int, *, is_kept: bool) -> pd.DataFrame:
    order = [0, 1, 1, 1, *n_second * [2]]
    return pd.DataFrame(
        {
            "anchor": anchor,
            "union_size": len(order),
            "is_kept": is_kept,
            "row": range(len(order)),
            "order": order,
            "is_alike": [row % 3 != 2 for row in range(len(order))],
            "x": np.linspace(0, 1, len(order)),
            "y": np.linspace(1, 3, len(order)),
        }
    )


def read_image(row: int) -> NDArray[np.uint8]:
    return np.full((9, 8, 3), row, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["class", "cluster"])
def test_neighborhoods_show_where_neighbors_are_and_what(kind: str) -> None:
    found = [make_neighborhood(7, 30, is_kept=True), make_neighborhood(3, 0, is_kept=False)]
    figure = plot_neighborhoods(pd.concat(found), read_image, experiment="toy", kind=kind)
    planes = [axes for axes in figure.axes if axes.get_xlabel()]
    titles = [axes.get_title("left") for axes in planes]
    assert titles == ["Kept: union of 34 images", "Discarded: union of 4 images"]
    drawn = sum(len(points.get_offsets()) for points in planes[0].collections)
    assert drawn == 34
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"Neighbors, other {kind}" in names
    texts = {axes.get_title("left"): axes for axes in figure.axes}
    second = texts["30 neighbors of these (the first 20)"]
    assert len(second.images) == 20
    is_marked = [row % 3 == 2 for row in range(4, 24)]
    assert len(second.lines) == sum(is_marked)
    assert len(texts["0 neighbors of these"].images) == 0
    assert encode_png(figure).startswith(b"\x89PNG")
