from pathlib import Path

import numpy as np
import pandas as pd

from unic.quality.reading import choose_labels, read_runs
from unic.storage.files import write_parquet
from unic.storage.stores import Store, open_store, write_known_labels, write_labels


def stores(folder: Path, labels: np.ndarray) -> tuple[Store, Store]:
    ids = ["a", "b", "c"]
    truth, known = folder / "labels.zarr/zarr.json", folder / "known.zarr/zarr.json"
    names = ["ant", "bee"] if (labels >= 0).all() else []
    is_old = np.zeros(3, dtype=bool)
    write_labels(truth, {"train": labels}, {"train": is_old}, {"train": ids}, class_names=names)
    write_known_labels(known, np.array([1, -1, -1]), ids, class_names=["x", "y"])
    return open_store(truth, kind="labels"), open_store(known, kind="known_labels")


def test_the_truth_goes_first(tmp_path: Path) -> None:
    labels, names = choose_labels(*stores(tmp_path, np.array([0, 1, 1])))
    assert labels.tolist() == [0, 1, 1]
    assert names == ["ant", "bee"]


def test_else_known_labels_are_examined(tmp_path: Path) -> None:
    labels, names = choose_labels(*stores(tmp_path, np.full(3, -1)))
    assert labels.tolist() == [1, -1, -1]
    assert names == ["x", "y"]


def test_runs_are_those_of_training_images(tmp_path: Path) -> None:
    table = pd.DataFrame({"split": ["test", "train"], "image_id": ["a", "b"], "cluster": [1, 0]})
    for seed in (0, 3):
        write_parquet(tmp_path / f"{seed}.parquet", table)
    runs = read_runs([tmp_path / "0.parquet", tmp_path / "3.parquet"], seeds=[0, 3])
    assert list(runs) == [0, 3]
    assert runs[3]["image_id"].tolist() == ["b"]
