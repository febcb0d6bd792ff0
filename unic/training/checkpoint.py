"""Checkpoints: what a training needs to go on after it was killed."""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from unic.storage.files import first_line, whole_file

logger = logging.getLogger(__name__)


class Checkpoint:
    """A file with the state of a training after its latest epoch.

    Args:
        path: The file; it need not exist, and is replaced by a whole one at each save.
        key: Says what is trained on what, see :func:`unic.storage.resumption.resumption_key`. A
            state that was saved under another key is not taken up.
    """

    def __init__(self, path: str | Path, *, key: str):
        self.path, self.key = Path(path), key

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state on disk by a new one of tensors, numbers, texts, lists and dicts."""
        with whole_file(self.path) as temporary:
            torch.save({"key": self.key, "state": dict(state)}, temporary)

    def load(self) -> dict[str, Any] | None:
        """The latest state, on the CPU; None where there is none that can be taken up."""
        try:
            _check_archive(self.path)
            found = torch.load(self.path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # torch raises all sorts on broken files
            why = first_line(error)
            logger.warning("%s cannot be read, the training starts anew: %s", self.path, why)
            return None
        if not isinstance(found, dict) or found.get("key") != self.key:
            logger.info("%s is of other settings or inputs, the training starts anew", self.path)
            return None
        state: dict[str, Any] = found["state"]
        return state

    def remove(self) -> None:
        """Remove the file, when the result of the training is safe."""
        self.path.unlink(missing_ok=True)


def _check_archive(path: Path) -> None:
    """Compare the checksums that torch writes and does not look at itself."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} differs")


class Resumable(Protocol):
    """What trains, and can take up the state of another training."""

    def state(self) -> dict[str, Any]:
        """All that changes, between two epochs."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up a state."""


def resume(
    checkpoint: Checkpoint, trainer: Resumable, generator: np.random.Generator
) -> list[dict[str, float]]:
    """Take up the state of a stopped training, where there is one.

    Args:
        checkpoint: Where it may be kept.
        trainer: Given the state.
        generator: Of the draws, set to where it was.

    Returns:
        The rows of the history so far.
    """
    state = checkpoint.load()
    if state is None:
        return []
    trainer.load(state)
    generator.bit_generator.state = state["generator"]
    history: list[dict[str, float]] = state["history"]
    logger.info("the training goes on after epoch %d", len(history))
    return history
