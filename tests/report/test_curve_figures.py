from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from unic.report.curve_figures import plot_curves
from unic.report.experiment_curves import CurveFigure
from unic.report.figures import encode_png

COLUMNS = ["score", "panel", "line", "experiment", "split", "x", "mean", "std", "n_seeds"]
EPOCHS = CurveFigure(
    title="Costs $5",
    x="epoch",
    scores=["acc", "kmeans_acc"],
    panels={"Left": {"a": "one", "b": "two"}, "Right": {"a": "one"}},
)
WEIGHTS = CurveFigure(
    title="Weights",
    x="finetuning.lambda_neg",
    label="Weight",
    scale="log",
    panels={"": {"with": ["one", "two", "three"]}},
)


def make_points(figure: CurveFigure, values: list[float]) -> pd.DataFrame:
    rows = [
        (score, panel, line, "one", "test", x, 50 + x + number, 1.0, 3)
        for score in figure.scores
        for panel, lines in figure.panels.items()
        for number, line in enumerate(lines)
        for x in values
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_panel_a_column_and_a_row_a_score() -> None:
    figure = plot_curves(EPOCHS, make_points(EPOCHS, [1, 2, 3]))
    assert len(figure.axes) == 4
    first, second, below, _ = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["Left", "Right", "", ""]
    assert first.get_ylabel() == "ACC (%), test"
    assert below.get_ylabel() == "k-means ACC (%), test"
    assert below.get_xlabel() == "Epoch"
    assert [line.get_label() for line in first.lines] == ["a", "b"]
    np.testing.assert_allclose(first.lines[1].get_ydata(), [52, 53, 54])
    assert len(first.collections) == 2  # bands of the deviation
    looks = {(x.get_color(), x.get_linestyle(), x.get_marker()) for x in first.lines}
    assert len(looks) == 2
    assert second.lines[0].get_color() == first.lines[0].get_color()
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["a", "b"]
    assert figure.get_suptitle() == r"Costs \$5"
    assert encode_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("values", [[0, 1, 10, 100], [1, 10], [0]])
def test_zero_has_a_place_on_a_log_scale(values: list[float]) -> None:
    figure = plot_curves(WEIGHTS, make_points(WEIGHTS, values))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [f"{x:g}" for x in values]
    places = [axes.transData.transform((x, 50))[0] for x in values]
    assert all(after - before > 30 for before, after in pairwise(places))
    assert axes.get_xlabel() == "Weight"
    assert encode_png(figure).startswith(b"\x89PNG")


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="Weights must have a point, got none"):
        plot_curves(WEIGHTS, pd.DataFrame(columns=COLUMNS))
