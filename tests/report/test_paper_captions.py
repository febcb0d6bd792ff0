import re

import pytest

from unic.report.paper_captions import list_figures

FACTS = {
    "experiment": "toy",
    "kind": "class",
    "n_images": 101,
    "n_neighbors": 20,
    "far_rank": 60,
    "max_union_size": 40,
    "n_anchors": 50,
    "n_single": 30,
    "by_chance": 0.125,
}
NUMBERS = ["4", "8", "9", "10", "12", "13", "14", "15"]


def test_every_figure_has_its_image_caption_and_data() -> None:
    page = list_figures(FACTS, NUMBERS)
    assert re.findall(r"!\[Figure (\d+)\]\(figure(\d+)\.png\)", page) == [(n, n) for n in NUMBERS]
    assert re.findall(r"\*\*Figure (\d+)\.\*\* \w", page) == NUMBERS
    assert re.findall(r"\(figure(\d+)\.csv\)", page) == NUMBERS
    assert "for 50 anchors" in page
    assert "(12.5%)" in page
    assert "{" not in page


@pytest.mark.parametrize(
    ("kind", "words"), [("class", "Classes are true ones"), ("cluster", "labels are not known")]
)
def test_the_page_says_whether_truth_is_read(kind: str, words: str) -> None:
    page = list_figures(FACTS | {"kind": kind}, ["4", "10"])
    assert words in page
    assert f"in the image's {kind}" in page
