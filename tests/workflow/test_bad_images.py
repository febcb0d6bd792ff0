"""Images that cannot be decoded are left out before anything is computed."""

import numpy as np
import pytest
from PIL import Image

from tests.workflow.project import Project
from unic.images.index import Skipped, read_index, read_skipped
from unic.storage.stores import open_store

pytestmark = pytest.mark.workflow
CONFIG = """\
experiments:
  photos:
    n_clusters: 2
    data: {name: folder, root: photos, label_file: labels.csv, bad_images: skip}
    neighbors: {n_neighbors: 3, far_rank: 5}
"""


def test_bad_images_are_skipped_and_listed(fresh_project: Project) -> None:
    folder = fresh_project.folder / "photos"
    folder.mkdir()
    names = [f"{number} $(touch stolen).png" for number in range(8)]
    for number, name in enumerate(names):
        pixels = np.full((8, 8, 3), 20 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / names[3]).write_text("no image")
    lines = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (fresh_project.folder / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    (fresh_project.folder / "config" / "tiny.yaml").write_text(CONFIG)
    fresh_project.run("results/photos/known_labels.zarr/zarr.json")

    results = fresh_project.folder / "results" / "photos"
    left = [name for name in names if name != names[3]]
    assert read_index(results / "images.parquet") == {"train": left}
    (skipped,) = read_skipped(results / "images.parquet")
    assert isinstance(skipped, Skipped)
    assert skipped[:2] == ("train", names[3])
    labels = open_store(results / "labels.zarr/zarr.json", kind="labels").read("labels")
    assert labels.tolist() == [0, 1, 0, 0, 1, 0, 1]
    log = (fresh_project.folder / "logs" / "photos" / "index_images.log").read_text()
    assert f"skipped {names[3]} (train): " in log
    assert not (fresh_project.folder / "stolen").exists()
