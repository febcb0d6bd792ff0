"""Tables of predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unic.storage.prediction_tables import COLUMNS, tabulate, write_predictions


def table() -> pd.DataFrame:
    ids = {"train": ["b", "a", "ä"], "test": ["c"]}
    clusters = {
        "train": (np.array([2, 0, 2]), np.array([0.5, 0.25, 1.0], dtype=np.float32)),
        "test": (np.array([1]), np.array([0.75], dtype=np.float32)),
    }
    return tabulate("unic", 3, ids, clusters)


def test_tabulates_splits_in_order() -> None:
    predictions = table()
    assert predictions.columns.tolist() == COLUMNS
    assert predictions["image_id"].tolist() == ["b", "a", "ä", "c"]
    assert predictions["split"].tolist() == ["train"] * 3 + ["test"]
    assert predictions["cluster"].tolist() == [2, 0, 2, 1]
    assert predictions["confidence"].tolist() == [0.5, 0.25, 1.0, 0.75]
    assert set(predictions["method"]) == {"unic"}
    assert set(predictions["seed"]) == {3}
    assert predictions.index.tolist() == [0, 1, 2, 3]


def test_predictions_come_back_from_parquet(tmp_path: Path) -> None:
    write_predictions(tmp_path / "seed3" / "predictions.parquet", table())
    found = pd.read_parquet(tmp_path / "seed3" / "predictions.parquet")
    pd.testing.assert_frame_equal(found, table())
    assert len(list((tmp_path / "seed3").iterdir())) == 1


def test_refuses_clusters_of_other_images() -> None:
    with pytest.raises(ValueError, match="same length"):
        tabulate("unic", 0, {"train": ["a", "b"]}, {"train": (np.zeros(3), np.ones(3))})
