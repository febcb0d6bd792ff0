"""The loop of every training, against one that is not stopped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unic.training.checkpoint import Checkpoint
from unic.training.epochs import Epochs, Kept


class Sum:
    """The least that can be trained: the sum of all that was drawn."""

    def __init__(self) -> None:
        self.total = 0.0

    def state(self) -> dict[str, Any]:
        return {"total": self.total}

    def load(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


class StoppedError(Exception):
    pass


def run(
    path: Path | None = None,
    *,
    n_epochs: int = 4,
    stop_in: int | None = None,
    key: str = "k",
    is_written: bool = True,
) -> tuple[float, Epochs]:
    """Draw a number an epoch; stop in the middle of one."""
    trainer, generator = Sum(), np.random.default_rng(0)
    kept = None
    if path is not None:
        kept = Kept(Checkpoint(path, key=key), trainer, generator, is_written)
    epochs = Epochs(n_epochs, title="train", rate_setting="lr", kept=kept, is_shown=False)
    for epoch in epochs:
        trainer.total += generator.random()
        if epoch == stop_in:
            raise StoppedError
        epochs.add({"epoch": epoch + 1, "loss": trainer.total})
    return trainer.total, epochs


def test_history_has_a_row_an_epoch() -> None:
    _, epochs = run()
    totals = np.random.default_rng(0).random(4).cumsum()
    table = epochs.table()
    assert list(table) == ["epoch", "loss"]
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(table["loss"], totals)


@pytest.mark.parametrize("stops", [[0], [1], [3], [0, 0, 1, 3]])
def test_a_stopped_training_ends_as_one_that_is_not(stops: list[int], tmp_path: Path) -> None:
    expected, undisturbed = run()
    for stop_in in stops:
        with pytest.raises(StoppedError):
            run(tmp_path / "checkpoint.pt", stop_in=stop_in)
    total, epochs = run(tmp_path / "checkpoint.pt")
    assert total == expected
    assert epochs.history == undisturbed.history


def test_a_finished_training_has_no_epoch_left(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "checkpoint.pt")
    again, epochs = run(tmp_path / "checkpoint.pt", stop_in=0)
    assert again == first
    assert list(epochs) == []


def test_a_training_of_more_epochs_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "checkpoint.pt", n_epochs=2)
    total, _ = run(tmp_path / "checkpoint.pt", n_epochs=4)
    assert total == run()[0]


def test_one_of_several_processes_writes(tmp_path: Path) -> None:
    run(tmp_path / "checkpoint.pt", is_written=False)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    run(tmp_path / "checkpoint.pt", key="other")
    assert run(tmp_path / "checkpoint.pt")[0] == run()[0]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_refuses_a_loss_that_is_not_finite(loss: float) -> None:
    epochs = Epochs(3, title="train", rate_setting="finetuning.learning_rate", is_shown=False)
    message = f"must stay finite, it is {loss} in epoch 2; lower finetuning.learning_rate"
    with pytest.raises(FloatingPointError, match=message):
        epochs.add({"epoch": 2, "loss": loss})
    assert epochs.history == []
