"""Epochs: the loop that every training goes through, and what it keeps after each turn."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from unic.training.checkpoint import Checkpoint, Resumable, resume

Row = dict[str, float]


class Kept(NamedTuple):
    """What a training that is stopped takes up again."""

    checkpoint: Checkpoint
    trainer: Resumable
    generator: np.random.Generator  # of the draws
    is_written: bool = True  # one of several processes writes


class Epochs:
    """The epochs that are still to come, counted from 0, and the history of all.

    The state of the training is kept after each turn of the loop.

    Args:
        n_epochs: Of the whole training.
        title: Of the progress bar.
        rate_setting: Key of the learning rate, which is named where the loss is not finite.
        kept: What is taken up now and kept after each epoch, where anything is.
        is_shown: Whether there is a progress bar, on a terminal.
    """

    def __init__(
        self,
        n_epochs: int,
        *,
        title: str,
        rate_setting: str,
        kept: Kept | None = None,
        is_shown: bool = True,
    ):
        self.n_epochs, self.title, self.rate_setting = n_epochs, title, rate_setting
        self.kept, self.is_shown = kept, is_shown
        self.history: list[Row] = []
        if kept is not None:
            self.history = resume(kept.checkpoint, kept.trainer, kept.generator)

    def __iter__(self) -> Iterator[int]:
        """Give the number of each epoch; :meth:`add` is to be called before the next."""
        first = len(self.history)
        left = range(first, self.n_epochs)
        is_hidden = None if self.is_shown else True  # None: but on a terminal
        for epoch in tqdm(left, self.title, self.n_epochs, initial=first, disable=is_hidden):
            yield epoch
            if self.kept is not None and self.kept.is_written:
                state = self.kept.trainer.state()
                draws = self.kept.generator.bit_generator.state
                self.kept.checkpoint.save(state | {"generator": draws, "history": self.history})

    def add(self, row: Row) -> None:
        """Add an epoch's row, with its ``epoch`` from 1 and its ``loss``.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"the loss must stay finite, it is {row['loss']} in epoch {row['epoch']}; "
                f"lower {self.rate_setting}"
            )
        self.history.append(row)

    def table(self) -> pd.DataFrame:
        """The history, a row an epoch."""
        return pd.DataFrame(self.history)
