from pathlib import Path

import numpy as np
import pytest

from tests.experiment import N_IMAGES, image_ids, path_of, write_run
from unic.evaluation.groups import read_groups
from unic.storage.stores import Store, open_store

IDS = image_ids()
CLUSTERS = {seed: {"train": [(row + seed) % 3 for row in range(N_IMAGES)]} for seed in (4, 7)}


def write(folder: Path, label: int) -> Store:
    labels = {"train": [label if row == 9 else row % 2 for row in range(N_IMAGES)], "test": [0]}
    clusters = {seed: found | {"test": [0]} for seed, found in CLUSTERS.items()}
    write_run(folder, clusters, labels=labels, shown=7)
    return open_store(path_of(folder, "labels"), kind="labels")


def test_true_classes_come_first(tmp_path: Path) -> None:
    groups = read_groups(write(tmp_path / "toy", 1), IDS)
    assert groups.kind == "class"
    np.testing.assert_array_equal(groups.numbers, [row % 2 for row in range(N_IMAGES)])


def test_clusters_of_the_shown_seed_take_their_place(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    labels = write(folder, -1)
    groups = read_groups(
        labels,
        IDS,
        metrics=folder / "metrics.json",
        predictions=[folder / f"seed{seed}/predictions.parquet" for seed in CLUSTERS],
        seeds=list(CLUSTERS),
    )
    assert groups.kind == "cluster"
    np.testing.assert_array_equal(groups.numbers, CLUSTERS[7]["train"])


def test_one_of_them_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold the label of every image, or clusters"):
        read_groups(write(tmp_path / "toy", -1), IDS)
