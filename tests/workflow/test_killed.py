"""A run that is killed without warning in each stage ends in the result of an undisturbed one."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.workflow.project import Project

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


def kill_when_logged(project: Project, log: Path) -> None:
    """Start the workflow and kill it, jobs and all, once a stage has begun to work."""
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        project.command("--cores", "2", "--nolock", TARGET),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not log.is_file() and time.monotonic() < deadline:
        assert process.poll() is None, f"ended before {log.name}"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert log.is_file()


def test_kill_in_each_stage(fresh_project: Project, finished_project: Project) -> None:
    results = fresh_project.folder / "results"
    for log, output in STAGES.items():
        kill_when_logged(fresh_project, fresh_project.folder / "logs" / log)
        assert not (results / output).exists(), f"{output} is there after a kill in {log}"
    fresh_project.run("--nolock", TARGET)
    expected = (finished_project.folder / TARGET).read_bytes()
    assert (fresh_project.folder / TARGET).read_bytes() == expected
    assert not list(results.rglob("*.tmp-*"))
