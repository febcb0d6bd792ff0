import re

import numpy as np
import pandas as pd

from unic.report.quality_page import build_quality_page

QUALITY = {
    "seed": 2,
    "overall": {"neighbor_agreement": 0.75, "balance": float("nan")},
    "by_cluster": {
        "size": [0.7, 0.3, None],
        "neighbor_agreement": [0.9, 0.4, None],
    },
    "sizes": [7, 3, 0],
    "scores": {
        "neighbor_agreement": {"meaning": "share of <neighbors>", "is_higher_better": True},
        "balance": {"meaning": "of sizes", "is_higher_better": None},
        "run_ari": {"meaning": "of runs", "is_higher_better": True},
    },
}


def build(suspects: int = 1, featureless: int = 0, *, name: str = "cat") -> str:
    tables = {
        "duplicates": pd.DataFrame(
            {"group": [0, 0], "path": ["a.png", "b.png"], "row": [0, 1], "is_exact": [True, True]}
        ),
        "outliers": pd.DataFrame(
            {
                "path": ["c.png", "a.png"],
                "row": [2, 0],
                "score": [3.5, 1.0],
                "is_outlier": [True, False],
            }
        ),
        "suspects": pd.DataFrame(
            {
                "path": ["b.png"],
                "row": [1],
                "label": ["cat"],
                "suggested": ["dog & fox"],
                "score": [0.9],
            }
        ).head(suspects),
        "featureless": pd.DataFrame({"path": ["c.png"], "row": [2]}).head(featureless),
    }
    images = [np.full((20, 30, 3), 40 * row, dtype=np.uint8) for row in range(3)]
    return build_quality_page(
        QUALITY,
        tables,
        images.__getitem__,
        experiment="mine",
        names=[name, ""],
    )


def test_the_page_stands_alone_and_shows_each_image() -> None:
    page = build()
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', page)) == 4
    assert not re.findall(r'(?:src|href)="(?!data:|report\.html)', page)
    assert "cat, rather dog &amp; fox?" in page
    assert "share of &lt;neighbors&gt;" in page
    assert "score 3.50" in page


def test_the_weakest_cluster_comes_first_and_empty_ones_last() -> None:
    rows = re.findall(r'<tr><td class="text">([^<]*)</td><td>(\d+)</td>', build())
    assert rows == [("1", "3"), ("0 cat", "7"), ("2", "0")]


def test_images_without_features_are_shown() -> None:
    assert "says nothing" not in build()
    page = build(featureless=1)
    assert "1 images have features that are all 0" in page
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', page)) == 5


def test_clusters_have_their_names_where_there_are_some() -> None:
    assert '<td class="text">0 cat</td>' in build()
    assert '<td class="text">0</td>' in build(name="")


def test_scores_that_were_not_measured_are_left_out() -> None:
    page = build(suspects=0)
    assert "run ari" not in page
    assert "contradict</h2>" not in page
