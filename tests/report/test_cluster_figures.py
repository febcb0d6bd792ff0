import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from unic.report.cluster_figures import plot_examples
from unic.report.figures import encode_png

EXAMPLES = pd.DataFrame(
    {
        "cluster": [3, 3, 3, 8, 8],
        "class_name": ["cat", "cat", "cat", "a $class of a long name", "a $class of a long name"],
        "purity": [0.5, 0.5, 0.5, 1.0, 1.0],
        "kind": ["most", "least", "false", "most", "most"],
        "row": [4, 5, 6, 7, 9],
    }
)


def read_image(row: int) -> NDArray[np.uint8]:
    return np.full((10, 14, 3), row, dtype=np.uint8)


def draw(examples: pd.DataFrame, part: str = "some"):  # type: ignore[no-untyped-def]
    return plot_examples(
        examples,
        read_image,
        experiment="toy",
        split="test",
        part=part,  # type: ignore[arg-type]
    )


def test_a_row_a_cluster_and_a_column_a_kind() -> None:
    figure = draw(EXAMPLES)
    assert len(figure.axes) == 6
    shown = [[int(np.asarray(i.get_array())[0, 0, 0]) for i in a.images] for a in figure.axes]
    assert shown == [[4], [5], [6], [7, 9], [], []]
    frames = [to_hex(p.get_edgecolor()) for axes in figure.axes for p in axes.patches]
    assert frames == ["#0072b2", "#0072b2", "#d55e00", "#0072b2", "#0072b2"]
    assert figure.axes[0].get_ylabel() == "cat\n50% right"
    assert figure.axes[3].get_ylabel() == "a \\$class of a l…\n100% right"
    titles = [axes.get_title("left") for axes in figure.axes[:3]]
    assert titles[2] == "False positives, at random"
    assert [text.get_text() for text in figure.axes[5].texts] == ["none"]
    assert figure.get_suptitle() == "toy: test images of clusters, matched to true classes"
    assert encode_png(figure).startswith(b"\x89PNG")


def test_without_truth_there_are_no_false_positives() -> None:
    examples = EXAMPLES[EXAMPLES["kind"] != "false"].assign(class_name=None, purity=None)
    figure = draw(examples)
    assert len(figure.axes) == 4
    assert [axes.get_title("left") for axes in figure.axes[:2]] == [
        *("Most confident images", "Least confident images")
    ]
    assert figure.axes[0].get_ylabel() == "cluster 3"
    assert figure.get_suptitle().endswith("no true labels")


@pytest.mark.parametrize(
    ("part", "words"), [("old", "old classes"), ("new", "new classes"), ("others", "further")]
)
def test_the_heading_says_whose_clusters(part: str, words: str) -> None:
    assert words in draw(EXAMPLES, part).get_suptitle()
