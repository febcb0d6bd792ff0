import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.experiment import N_IMAGES, path_of, write_run
from unic.inspection.runs import open_run, read_split, read_truth

CLUSTERS = {
    3: {"train": [row % 4 for row in range(N_IMAGES)], "test": [1]},
    5: {"train": [row % 3 for row in range(N_IMAGES)], "test": [2]},
}
LABELS = {"train": [row % 4 for row in range(N_IMAGES)], "test": [0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "results" / "toy", CLUSTERS, labels=LABELS, shown=5)


def test_reads_what_the_stages_wrote(folder: Path) -> None:
    run = open_run(folder)
    assert (run.name, run.n_clusters, run.seed) == ("toy", 4, 5)
    for seed, by_split in CLUSTERS.items():
        for split, clusters in by_split.items():
            assert read_split(run, split, seed=seed)["cluster"].tolist() == clusters
    assert read_split(run, "train")["cluster"].tolist() == CLUSTERS[5]["train"]
    assert read_split(run, "test")["image_id"].tolist() == ["test/a/x.png"]
    labels, class_names = read_truth(run, "train")
    np.testing.assert_array_equal(labels, LABELS["train"])
    assert class_names == ["class 0", "class 1", "class 2", "class 3"]


def test_stages_of_other_experiments_are_followed(tmp_path: Path) -> None:
    owners = {"predict": "base"}
    folder = write_run(tmp_path / "results" / "toy", CLUSTERS, owners=owners)
    assert (tmp_path / "results/base/seed3/predictions.parquet").is_file()
    assert read_split(open_run(folder), "test")["cluster"].tolist() == [1]


def test_the_recipe_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "results" / "toy", CLUSTERS, method="consensus")
    assert (folder / "seed3/consensus.parquet").is_file()
    assert open_run(folder).seed == 3


@pytest.mark.parametrize("labels", [None, {"train": [-1] * N_IMAGES, "test": [-1]}])
def test_truth_may_be_missing(labels: dict[str, list[int]] | None, tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "results" / "toy", CLUSTERS, labels=labels))
    assert read_truth(run, "train") == (None, None)


def test_an_unknown_split_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="split must be one of train, test, got val"):
        read_split(open_run(folder), "val")


def test_an_unfinished_experiment_says_what_to_run(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"run: snakemake --cores 8 -- .*metrics\.json"):
        open_run(folder)


@pytest.mark.parametrize("key", ["shown", "method", "seeds", "stage_owners", "n_clusters"])
def test_metrics_of_another_version_are_refused(key: str, folder: Path) -> None:
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in metrics.items() if name != key}))
    with pytest.raises(ValueError, match=rf"metrics\.json must hold .*{key}"):
        open_run(folder)


def test_predictions_of_other_images_are_refused(folder: Path, tmp_path: Path) -> None:
    fewer = {3: {"train": [0] * 20, "test": [1]}}
    other = write_run(tmp_path / "results" / "other", fewer, n_images=20)
    shutil.copytree(other / "seed3", folder / "seed3", dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"row i must mean the same image in .*predictions"):
        open_run(folder)


def test_labels_of_other_images_are_refused(folder: Path, tmp_path: Path) -> None:
    labels = {"train": [0] * 20, "test": [1]}
    fewer = {3: {"train": [0] * 20, "test": [1]}}
    other = write_run(tmp_path / "results" / "other", fewer, n_images=20, labels=labels)
    shutil.rmtree(folder / "labels.zarr")
    shutil.copytree(other / "labels.zarr", folder / "labels.zarr")
    message = re.escape(str(path_of(folder, "labels").parent)) + " must be of the train images"
    with pytest.raises(ValueError, match=message):
        read_truth(open_run(folder), "train")
