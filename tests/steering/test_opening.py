from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unic.images.index import write_index
from unic.steering.opening import make_run, open_marks, read_features, read_neighbors, read_table
from unic.storage.files import write_json, write_parquet
from unic.storage.stores import open_store, write_derived, write_features


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of five images and one of a test split, whose images another run has listed."""
    folder = tmp_path / "results" / "mine-2"
    folder.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "path": [f"i{row}.png" for row in range(6)],
            "split": ["train"] * 5 + ["test"],
            "label": ["dog", "", "", "", "", ""],
            "cluster": [0, 0, 1, 1, 1, 1],
            "name": ["dog", "dog", "", "", "", ""],
            "confidence": [1.0, 0.5, 0.2, 0.9, 0.6, 1.0],
        }
    )
    write_parquet(folder / "predictions.parquet", table)
    stages = ("index_images", "extract_features", "mine_neighbors")
    metrics = {"n_clusters": 3, "stage_owners": dict.fromkeys(stages, "mine")}
    write_json(folder / "metrics.json", metrics)
    index = tmp_path / "results" / "mine" / "images.parquet"
    index.parent.mkdir()
    write_index(index, {"train": table["path"][:5]}, name="folder", root="/photos")
    return folder


def test_rows_are_training_images(folder: Path) -> None:
    state = open_marks(folder).state
    assert state.clusters.tolist() == [0, 0, 1, 1, 1]
    assert state.names == {0: "dog"}
    assert state.labels == {0: "dog"}
    assert state.n_clusters == 3


def test_the_surest_images_stand_for_their_cluster(folder: Path) -> None:
    marks = open_marks(folder)
    marks.mark_wrong([3])
    assert marks.name_cluster(1, "cat").labels == {0: "dog", 4: "cat"}
    assert open_marks(folder).state.names == {0: "dog", 1: "cat"}


def test_absolute_paths_of_labels_are_below_the_root(folder: Path) -> None:
    (folder / "labels.csv").write_text("path,label\n/photos/i4.png,owl\n")
    assert open_marks(folder).state.labels == {0: "dog", 4: "owl"}


def test_a_run_is_all_that_its_table_says(folder: Path) -> None:
    run = make_run(read_table(folder), 3)
    assert run.ids == [f"i{row}.png" for row in range(5)]
    assert (run.names, run.given) == ({0: "dog"}, {"i0.png": "dog"})


def test_features_and_neighbors_are_those_of_the_run_that_has_them(folder: Path) -> None:
    ids = [f"i{row}.png" for row in range(5)]
    features = np.arange(10, dtype=np.float32).reshape(5, 2)
    store = folder.with_name("mine") / "features.zarr" / "zarr.json"
    write_features(store, {"train": features}, {"train": ids}, backbone=None)
    indices = np.array([[row, (row + 1) % 5] for row in range(5)])
    write_derived(
        folder.with_name("mine") / "neighbors.zarr" / "zarr.json",
        kind="neighbors",
        arrays={
            "indices": indices,
            "distances": np.ones((5, 2), dtype=np.float32),
            "far_radius": np.ones(5, dtype=np.float32),
        },
        of=open_store(store, kind="features"),
        parameters={},
    )
    rows = np.array([4, 0])
    assert read_features(folder, ids, rows).tolist() == features[rows].tolist()
    assert read_neighbors(folder, ids).tolist() == indices.tolist()
    with pytest.raises(ValueError, match="must be of the train images of the index"):
        read_features(folder, ids[1:], rows)
    with pytest.raises(ValueError, match="must be of the train images of the index"):
        read_neighbors(folder, ids[::-1])


# Refusals


def test_refuses_a_folder_without_a_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"predictions.parquet is missing; run: snakemake"):
        open_marks(tmp_path)


def test_refuses_another_table(folder: Path) -> None:
    table = pd.DataFrame({"path": ["a"], "split": ["train"]})
    write_parquet(folder / "predictions.parquet", table)
    with pytest.raises(ValueError, match=r"must have the columns .*\['cluster', 'confidence'"):
        open_marks(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of an experiment, there is"):
        read_table(tmp_path / "nothing")
