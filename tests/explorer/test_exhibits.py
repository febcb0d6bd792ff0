import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.experiment import N_IMAGES, path_of, write_experiment
from tests.explorer.exhibits import CLUSTERS, LABELS, write_exhibit
from unic.explorer.exhibits import check_same_exhibits, open_exhibit


def test_a_finished_experiment(tmp_path: Path) -> None:
    exhibit = open_exhibit(write_exhibit(tmp_path / "results" / "toy", shown=1))
    assert (exhibit.name, exhibit.n_images, exhibit.n_clusters) == ("toy", N_IMAGES, 4)
    np.testing.assert_array_equal(exhibit.clusters, CLUSTERS[1]["train"])
    assert exhibit.truth is not None
    np.testing.assert_array_equal(exhibit.truth.labels, LABELS["train"])
    assert exhibit.truth.names == [f"class {number}" for number in range(4)]
    assert exhibit.rows[exhibit.image_ids[7]] == 7


def test_clusters_of_other_seeds_are_numbered_as_those_shown(tmp_path: Path) -> None:
    exhibit = open_exhibit(write_exhibit(tmp_path / "results" / "toy"))
    for table in exhibit.predictions.values():
        assert table["cluster"].tolist() == CLUSTERS[0]["train"]


def test_clusters_have_the_names_of_their_labeled_images(tmp_path: Path) -> None:
    folder = write_exhibit(tmp_path / "results" / "toy", shown=1)
    exhibit = open_exhibit(folder)  # labels 0 to 3 of the first ten images, without names
    assert exhibit.cluster_names == ["3", "0", "1", "2"]


def test_before_there_are_clusters_neighbors_are_shown(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "results" / "toy")
    exhibit = open_exhibit(folder)
    assert exhibit.run is None
    assert exhibit.n_clusters == 0
    assert exhibit.truth is None
    assert exhibit.predictions == {}
    assert (exhibit.clusters == -1).all()
    assert exhibit.indices.shape == (N_IMAGES, 6)


def test_a_map_is_made_where_there_is_none_and_is_that_of_the_workflow(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "results" / "toy")
    made = open_exhibit(folder).map.read("positions")
    assert made.shape == (N_IMAGES, 2)
    assert path_of(folder, "map").is_file()
    np.testing.assert_array_equal(open_exhibit(folder).map.read("positions"), made)


def test_a_map_needs_features(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "results" / "toy", stages=["neighbors"])
    with pytest.raises(ValueError, match="a map needs features beside"):
        _ = open_exhibit(folder).map


def test_lists_are_read_where_images_were_examined(tmp_path: Path) -> None:
    exhibit = open_exhibit(write_exhibit(tmp_path / "results" / "toy"))
    assert exhibit.read_list("outliers") is None
    (exhibit.folder / "outliers.csv").write_text("path,is_outlier\na.png,True\n")
    table = exhibit.read_list("outliers")
    assert table is not None
    assert table["path"].tolist() == ["a.png"]


def test_experiments_on_other_images_are_refused(tmp_path: Path) -> None:
    one = open_exhibit(write_experiment(tmp_path / "results" / "one"))
    other = open_exhibit(write_experiment(tmp_path / "results" / "other", n_images=30))
    check_same_exhibits(one, one)
    with pytest.raises(ValueError, match="the first has 40, the second 30, and 30 are in both"):
        check_same_exhibits(one, other)


def test_refuses_what_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of an experiment"):
        open_exhibit(tmp_path / "nothing")
    folder = write_exhibit(tmp_path / "results" / "toy")
    shutil.rmtree(folder / "neighbors.zarr")
    with pytest.raises(FileNotFoundError, match="run: snakemake"):
        open_exhibit(folder)
