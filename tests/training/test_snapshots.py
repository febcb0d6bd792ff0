"""Snapshots of a training."""

import signal
import time
from pathlib import Path

import pytest
import torch

from tests.training.runs import follow, make_run, start, write_files
from unic.models.trained import ModelDescription, load_model, make_model
from unic.runtime.processes import ALONE
from unic.training.run import train
from unic.training.snapshots import Snapshots

DESCRIPTION = ModelDescription("test_vit", {"img_size": 32}, 32, 4, "mlp", None, 16)


@pytest.mark.parametrize(
    ("every", "kept"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (5, [5]), (6, []), (None, []), (0, [])]
)
def test_a_model_is_kept_when_its_turn_has_come(
    every: int | None, kept: list[int], tmp_path: Path
) -> None:
    snapshots = Snapshots(tmp_path / "snapshots", every=every, description=DESCRIPTION)
    model = make_model(DESCRIPTION, weights="random", seed=0)
    for epoch in range(1, 6):
        with torch.no_grad():
            model.head[0].weight.fill_(epoch)
        snapshots.save(model, epoch)
    names = sorted(path.name for path in snapshots.folder.glob("*"))
    assert names == [f"epoch_{epoch:04}.safetensors" for epoch in kept]
    for epoch, name in zip(kept, names, strict=True):
        assert (load_model(snapshots.folder / name).head[0].weight == epoch).all()


def test_those_of_an_earlier_training_are_cleared(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "snapshots", every=1, description=DESCRIPTION)
    snapshots.clear()  # none as yet
    snapshots.save(make_model(DESCRIPTION, weights="random", seed=0), 1)
    (tmp_path / "beside").touch()
    snapshots.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]


# Of a run


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
