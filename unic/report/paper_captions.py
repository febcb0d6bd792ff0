"""The figures of an experiment on one page of Markdown, each with what it shows."""

from collections.abc import Mapping, Sequence
from typing import Any

_CAPTIONS = {
    "4": (
        "Neighbors and second-order neighborhood size. For each threshold: the share of images "
        "that keep their {n_neighbors} neighbors (the image itself is one of them), and the share "
        "of these neighbors that are in the image's {kind}. The threshold in use is "
        "{max_union_size}."
    ),
    "8": (
        "Neighbors by rank: how often the image at a rank is in the anchor's {kind}. Left: all "
        "ranks; middle: from rank {far_rank} on, where negatives come from, beside random "
        "sampling ({by_chance:.1%}); right: the nearest. All {n_images} images were ranked "
        "exactly, for {n_anchors} anchors that were drawn with a fixed seed; the first {n_single} "
        "ranks have a value each, all others are means of equal ranges."
    ),
    "9": "Images whose neighbors are discarded, by the threshold of the union size.",
    "10": (
        "Share of the kept neighbors that are in the image's {kind}, by the share of images whose "
        "neighbors are discarded. The shorter list is the beginning of the longer one."
    ),
    "12": "Images of clusters, which are spread evenly from the best to the worst.",
    "13": (
        "An image that keeps its neighbors and one whose neighbors are discarded, each of the "
        "median union size of its kind, with their neighbors and the neighbors of these in the "
        "plane of most variance of their features. Crosses are images of another {kind}."
    ),
    "14": "Images of clusters of old classes, which are spread evenly from the best to the worst.",
    "15": "Images of clusters of new classes, which are spread evenly from the best to the worst.",
}
_KINDS = {
    "class": "Classes are true ones, which are read for these figures alone.",
    "cluster": (
        "True labels are not known: clusters take the place of classes, and figures say how far "
        "neighbors agree with the clustering, not whether they are right."
    ),
}


def list_figures(facts: Mapping[str, Any], numbers: Sequence[str]) -> str:
    """Write the page.

    Args:
        facts: Of :func:`unic.evaluation.neighbor_curves.measure_neighbors`.
        numbers: Of the figures, in their order.
    """
    lines = [f"# Figures of the paper: {facts['experiment']}", "", _KINDS[facts["kind"]]]
    for number in numbers:
        caption = _CAPTIONS[number].format(**facts)
        data = f"[figure{number}.csv](figure{number}.csv)"
        lines += ["", f"![Figure {number}](figure{number}.png)", ""]
        lines += [f"**Figure {number}.** {caption} Data: {data}."]
    return "\n".join([*lines, ""])
