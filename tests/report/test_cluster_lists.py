from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from unic.report.cluster_lists import list_predictions, write_sheets


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": "unic",
            "seed": 0,
            "split": ["train", "train", "train", "test"],
            "image_id": ["a.png", "b.png", "c.png", "d.png"],
            "cluster": [0, 2, 0, 1],
            "confidence": np.float32([0.91234, 0.5, 1.0, 0.7]),
            "second": [1, 0, 2, 0],
            "second_confidence": np.float32([0.05, 0.4, 0.0, 0.2]),
            "distance": np.float32([0.1, 0.2, 0.3, 0.4]),
        }
    )


def test_a_row_an_image_with_names_and_given_labels() -> None:
    known = np.array([-1, -1, 0])
    table = list_predictions(predictions(), names=["cat", "dog"], known_labels=known)
    assert table["path"].tolist() == ["a.png", "b.png", "c.png", "d.png"]
    assert table["label"].tolist() == ["", "", "cat", ""]
    assert table["name"].tolist() == ["cat", "", "cat", "dog"]
    assert table["confidence"].round(4).tolist() == np.float32([0.9123, 0.5, 1, 0.7]).tolist()
    assert list(table)[-2:] == ["second_confidence", "distance"]


def test_heads_that_know_no_labels_name_no_cluster() -> None:
    known = np.array([-1, -1, 0])
    table = list_predictions(
        predictions(), names=["cat", "dog"], known_labels=known, is_named=False
    )
    assert table["label"].tolist() == ["", "", "cat", ""]
    assert table["name"].tolist() == [""] * 4


def test_trained_heads_have_no_second_choice() -> None:
    some = predictions().drop(columns=["second", "second_confidence", "distance"])
    table = list_predictions(some, names=[], known_labels=np.full(3, -1))
    assert list(table) == ["path", "split", "label", "cluster", "name", "confidence"]


def test_a_sheet_a_cluster_shows_its_surest_images_first(tmp_path: Path) -> None:
    table = list_predictions(predictions(), names=[], known_labels=np.full(3, -1))
    images = [np.full((64, 64, 3), value, dtype=np.uint8) for value in (10, 60, 120, 180)]
    write_sheets(tmp_path / "clusters", table, images.__getitem__, n_clusters=12)
    names = sorted(path.name for path in (tmp_path / "clusters").iterdir())
    assert names == ["cluster_00.jpg", "cluster_01.jpg", "cluster_02.jpg"]
    sheet = np.asarray(Image.open(tmp_path / "clusters" / "cluster_00.jpg"))
    assert sheet.shape == (64, 128, 3)
    assert abs(int(sheet[32, 32, 0]) - 120) < 8
    assert abs(int(sheet[32, 96, 0]) - 10) < 8
