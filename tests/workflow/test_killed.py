"""A run that is killed without warning in each stage ends in the result of an undisturbed one."""

import re
import time
from collections.abc import Callable

import numpy as np
import pytest

from tests.workflow.project import Project, kill
from unic.neighbors.mining import mine_neighbors
from unic.storage.stores import open_store, write_features

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
TARGET = "results/tiny/metrics.json"
STAGES = {  # log of a stage: the output that must not be there when it is killed
    "digits/extract_features.log": "digits/features.zarr/zarr.json",
    "digits/mine_neighbors.log": "digits/neighbors.zarr/zarr.json",
    "digits/index_negatives.log": "digits/negatives.zarr/zarr.json",
    "tiny/seed0/finetune.log": "tiny/seed0/model.safetensors",
    "tiny/seed0/predict.log": "tiny/seed0/predictions.parquet",
    "tiny/baselines/kmeans_finetuned.log": "tiny/baselines/kmeans_finetuned.parquet",
    "tiny/summarize.log": TARGET.removeprefix("results/"),
}


def kill_when(is_time: Callable[[], bool], project: Project, *arguments: str) -> None:
    """Start the workflow and kill it, jobs and all, as soon as it is time."""
    process = project.start(*arguments)
    deadline = time.monotonic() + 120
    while not is_time() and time.monotonic() < deadline:
        assert process.poll() is None, "ended before its time"
        time.sleep(0.01)
    kill(process)
    assert is_time()


def test_kill_in_each_stage(fresh_project: Project, finished_project: Project) -> None:
    results = fresh_project.folder / "results"
    for name, output in STAGES.items():
        log = fresh_project.folder / "logs" / name
        log.unlink(missing_ok=True)
        kill_when(log.is_file, fresh_project, TARGET)
        assert not (results / output).exists(), f"{output} is there after a kill in {log}"
    fresh_project.run("--nolock", TARGET)
    expected = (finished_project.folder / TARGET).read_bytes()
    assert (fresh_project.folder / TARGET).read_bytes() == expected
    assert not list(results.rglob("*.tmp-*"))


def test_killed_mining_goes_on_from_its_finished_rows(fresh_project: Project) -> None:
    code = fresh_project.folder / "unic/neighbors/exact/finished_rows.py"
    code.write_text(code.read_text().replace('"cpu": 3e12', '"cpu": 3e9'))  # a short pass
    generator = np.random.default_rng(0)
    features = generator.normal(size=(20_000, 128)).astype(np.float32)
    results = fresh_project.folder / "results/digits"
    ids = {"train": [str(row) for row in range(len(features))]}
    write_features(results / "features.zarr/zarr.json", {"train": features}, ids, backbone=None)
    arguments = "--allowed-rules", "mine_neighbors", "--", "results/digits/neighbors.zarr/zarr.json"
    folder = results / ".neighbors.zarr.checkpoint"

    kill_when(lambda: len(list(folder.glob("*.npy"))) > 2, fresh_project, *arguments)
    assert not (results / "neighbors.zarr/zarr.json").exists()
    fresh_project.run("--nolock", *arguments)
    log = (fresh_project.folder / "logs/digits/mine_neighbors.log").read_text()
    found = re.search(r"found (\d+) of 20000 rows", log)
    assert found
    assert 2000 < int(found[1]) < 20_000
    assert sorted(path.name for path in results.iterdir()) == ["features.zarr", "neighbors.zarr"]
    expected = mine_neighbors(features, n_neighbors=20, far_rank=200)
    store = open_store(results / "neighbors.zarr", kind="neighbors")
    for name, array in expected.arrays().items():
        np.testing.assert_array_equal(store.read(name), array)
