"""Snapshots of a training."""

import signal
import time
from pathlib import Path

import pytest

from tests.training.runs import follow, make_run, start, write_files
from unic.runtime.processes import ALONE
from unic.training.run import train


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("every", [None, 3, 9])
def test_snapshots_of_an_earlier_training_go(
    every: int | None, files: Path, tmp_path: Path
) -> None:
    for each in (2, every):
        run = make_run(files, tmp_path, snapshot_every=each, epochs=4)
        train(run, ALONE)
    names = [path.name for path in Path(run.snapshots).glob("*")]
    assert names == (["epoch_0003.safetensors"] if every == 3 else [])
    if not names:
        with pytest.raises(FileNotFoundError, match="at least 1 and at most"):
            follow(run, files)


def test_a_training_that_goes_on_keeps_its_snapshots(files: Path, tmp_path: Path) -> None:
    run = make_run(files, tmp_path / "run", snapshot_every=1, epochs=20)
    checkpoint, deadline = Path(run.checkpoint), time.monotonic() + 120
    process = start(run)
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    first = Path(run.snapshots, "epoch_0001.safetensors")
    kept = first.stat().st_mtime_ns
    train(run, ALONE)
    assert first.stat().st_mtime_ns == kept
    assert len(list(first.parent.iterdir())) == 20
