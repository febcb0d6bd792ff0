import json
from pathlib import Path

import numpy as np
import pytest

from tests.experiment import N_IMAGES, write_experiment
from tests.explorer.exhibits import CLUSTERS, write_exhibit
from unic.explorer.showcase import open_showcase


def test_two_runs_are_compared(tmp_path: Path) -> None:
    before = write_exhibit(tmp_path / "results" / "before")
    moved = [0 if row < 3 else (row + 1) % 4 for row in range(N_IMAGES)]
    after = write_exhibit(tmp_path / "results" / "after", {0: {"train": moved, "test": [2]}})
    showcase = open_showcase([before, after])
    found = showcase.compare()
    assert found["names"] == ["before", "after"]
    assert [(move["from"], move["to"], move["n_images"]) for move in found["moves"]] == [
        (0, 0, 1),
        (1, 0, 1),
        (2, 0, 1),
    ]
    assert showcase.describe()["runs"][0]["paired"] == [1, 2, 3, 0]
    columns = showcase.shown[1].columns
    assert np.flatnonzero(columns["moved"].read()).tolist() == [0, 1, 2]
    assert np.asarray(columns["before"].read()).tolist() == CLUSTERS[0]["train"]
    assert columns["before"].title == "cluster in before"
    json.dumps(found, allow_nan=False)


def test_one_run_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    showcase = open_showcase([write_exhibit(tmp_path / "results" / "toy")])
    with pytest.raises(ValueError, match="unic explore A B"):
        showcase.compare()


def test_a_run_without_clusters_stands_beside_another(tmp_path: Path) -> None:
    one = write_experiment(tmp_path / "results" / "one")
    showcase = open_showcase([one, write_exhibit(tmp_path / "results" / "two")])
    assert [run["n_clusters"] for run in showcase.describe()["runs"]] == [0, 4]
    with pytest.raises(ValueError, match="two finished experiments"):
        showcase.compare()


def test_refuses_other_images(tmp_path: Path) -> None:
    one = write_experiment(tmp_path / "results" / "one", n_images=30)
    with pytest.raises(ValueError, match="must be of the same images"):
        open_showcase([one, write_exhibit(tmp_path / "results" / "two")])
