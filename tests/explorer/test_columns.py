from pathlib import Path

import numpy as np
import pytest

from tests.experiment import N_IMAGES, write_experiment
from tests.explorer.exhibits import CLUSTERS, write_exhibit
from unic.explorer.columns import Column, find_errors, list_columns, measure_agreement
from unic.explorer.exhibits import Exhibit, open_exhibit


@pytest.fixture
def exhibit(tmp_path: Path) -> Exhibit:
    return open_exhibit(write_exhibit(tmp_path / "results" / "toy"))


def test_all_that_an_experiment_has(exhibit: Exhibit) -> None:
    columns = list_columns(exhibit)
    assert list(columns) == [
        *("cluster", "confidence", "agreement", "seeds", "near", "far", "union", "clean"),
        *("mutual", "known", "truth", "error"),
    ]
    assert all(len(column.read()) == N_IMAGES for column in columns.values())
    assert np.asarray(columns["seeds"].read()).tolist() == [1.0] * N_IMAGES
    assert not np.asarray(columns["error"].read()).any()  # only numbered otherwise


def test_before_there_are_clusters(tmp_path: Path) -> None:
    columns = list_columns(open_exhibit(write_experiment(tmp_path / "results" / "toy")))
    assert list(columns) == ["near", "far", "union", "clean", "mutual", "known"]


def test_values_are_sent_little_endian(exhibit: Exhibit) -> None:
    columns = list_columns(exhibit)
    clusters = np.frombuffer(columns["cluster"].encode(), dtype="<i4")
    assert clusters.tolist() == CLUSTERS[0]["train"]
    near = np.frombuffer(columns["near"].encode(), dtype="<f4")
    distances = exhibit.artifacts.neighbors.read("distances")
    np.testing.assert_allclose(near, distances[:, 1:].mean(axis=1), rtol=1e-6)
    clean = np.frombuffer(columns["clean"].encode(), dtype="u1")
    assert exhibit.artifacts.positives is not None
    np.testing.assert_array_equal(clean, exhibit.artifacts.positives.read("is_clean"))


def test_a_description_has_no_values() -> None:
    column = Column("a", "A", "flag", lambda: np.zeros(3))
    assert column.describe() == {"key": "a", "title": "A", "kind": "flag", "names": ()}


def test_examined_images_are_flagged(exhibit: Exhibit) -> None:
    some = exhibit.image_ids[3]
    (exhibit.folder / "outliers.csv").write_text(
        f"path,is_outlier\n{some},True\n{exhibit.image_ids[4]},False\ngone.png,True\n"
    )
    (exhibit.folder / "duplicates.csv").write_text(f"group,path\n0,{some}\n")
    columns = list_columns(exhibit)
    for key in ("outlier", "duplicate"):
        assert np.flatnonzero(columns[key].read()).tolist() == [3]


@pytest.mark.parametrize("block", [3, 4_000_000])
def test_agreement_is_the_share_of_neighbors(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unic.explorer.columns._BLOCK", block)
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 50, (50, 5)).astype(np.int32)
    clusters = rng.integers(0, 3, 50)
    wanted = [
        sum(clusters[j] == clusters[i] for j in indices[i, 1:].tolist()) / 4 for i in range(50)
    ]
    np.testing.assert_allclose(measure_agreement(indices, clusters), wanted)


def test_without_neighbors_nothing_disagrees() -> None:
    alone = np.arange(3, dtype=np.int32)[:, None]
    assert measure_agreement(alone, np.array([0, 1, 2])).tolist() == [1, 1, 1]


def test_errors_are_those_of_the_best_matching() -> None:
    labels, clusters = np.array([0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 1])
    assert find_errors(labels, clusters).tolist() == [False, False, False, False, True]
