from pathlib import Path

import pytest

from unic.storage.files import write_json
from unic.storage.n_clusters import read_estimate, read_n_clusters


def test_a_number_is_taken_as_given() -> None:
    assert read_n_clusters(7, None) == 7


def test_auto_is_what_was_estimated(tmp_path: Path) -> None:
    write_json(tmp_path / "n_clusters.json", {"n_clusters": 12})
    assert read_n_clusters("auto", tmp_path / "n_clusters.json") == 12


def test_there_is_an_estimate_where_there_is_a_file(tmp_path: Path) -> None:
    write_json(tmp_path / "n_clusters.json", {"n_clusters": 12, "low": 9})
    assert read_estimate(tmp_path / "n_clusters.json") == {"n_clusters": 12, "low": 9}
    assert read_estimate(None) is None


def test_refuses_an_estimate_without_a_number(tmp_path: Path) -> None:
    write_json(tmp_path / "n_clusters.json", {"n_clusters": "many"})
    with pytest.raises(ValueError, match=r"must hold the whole number n_clusters, got many"):
        read_n_clusters("auto", tmp_path / "n_clusters.json")
