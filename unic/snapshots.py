"""Snapshots: a model after some of its epochs, for looking on."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unic.models import Model, save_model


class Snapshots:
    """A folder of models, ``epoch_0010.safetensors`` and so on.

    Args:
        folder: It need not exist.
        every: Epochs between two models, at least 1.
        description: Of the model, see :func:`unic.models.save_model`.
    """

    def __init__(self, folder: str | Path, *, every: int, description: Mapping[str, Any]):
        self.folder, self.every, self.description = Path(folder), every, description

    def save(self, model: Model, epoch: int) -> None:
        """Keep the model after this epoch, counted from 1, if its turn has come."""
        if epoch == self.every:
            shutil.rmtree(self.folder, ignore_errors=True)  # of an earlier training
        if epoch % self.every == 0:
            path = self.folder / f"epoch_{epoch:04}.safetensors"
            save_model(path, model, description=self.description)
