"""Histories of trainings."""

from pathlib import Path

import pandas as pd
import pytest

from unic.storage.files import write_csv
from unic.training.history import read_histories


def test_histories_survive_the_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"epoch": [1, 2], "loss": [0.1 + 0.2, 1 / 3], "used_clusters": [3, 4]})
    paths = [tmp_path / "seed5" / "history.csv", tmp_path / "seed7" / "history.csv"]
    for scale, path in enumerate(paths, start=1):
        write_csv(path, table.assign(loss=table["loss"] * scale))
    found = read_histories(paths, seeds=[5, 7])
    assert found["seed"].tolist() == [5, 5, 7, 7]
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found["loss"].tolist() == [0.1 + 0.2, 1 / 3, 2 * (0.1 + 0.2), 2 / 3]


def test_refuses_histories_without_a_seed_each(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_csv(path, pd.DataFrame({"epoch": [1]}))
    with pytest.raises(ValueError, match="longer"):
        read_histories([path], seeds=[0, 1])
