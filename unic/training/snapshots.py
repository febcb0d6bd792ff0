"""Snapshots: a model after some of its epochs, for its learning curve."""

import shutil
from pathlib import Path

from unic.models.trained import Model, ModelDescription, save_model


class Snapshots:
    """A folder of models, ``epoch_0010.safetensors`` and so on.

    Args:
        folder: It need not exist.
        every: Epochs between two models, None to keep none.
        description: Of the model, see :func:`unic.models.trained.save_model`.
    """

    def __init__(self, folder: str | Path, *, every: int | None, description: ModelDescription):
        self.folder, self.every, self.description = Path(folder), every, description

    def clear(self) -> None:
        """Remove those of an earlier training, when one starts anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def save(self, model: Model, epoch: int) -> None:
        """Keep the model after this epoch, counted from 1, if its turn has come."""
        if self.every and epoch % self.every == 0:
            path = self.folder / f"epoch_{epoch:04}.safetensors"
            save_model(path, model, description=self.description)
