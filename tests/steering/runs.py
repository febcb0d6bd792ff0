"""Runs to be marked: images in clusters, as a clustering has found them."""

from pathlib import Path

import numpy as np

from unic.steering.board import Run
from unic.steering.marks import Marks


def make_run(
    clusters: str = "0001112222",
    *,
    n_clusters: int | None = None,
    names: dict[int, str] | None = None,
    given: dict[str, str] | None = None,
    first: int = 0,
) -> Run:
    """Images ``i0.png``, ``i1.png`` ... from a number on, in clusters of one digit each."""
    numbers = np.array([int(cluster) for cluster in clusters], dtype=np.int64)
    ids = [f"i{first + row}.png" for row in range(len(numbers))]
    return Run(ids, numbers, n_clusters or int(numbers.max()) + 1, names or {}, given or {})


def open_run(folder: Path, run: Run, *, n_examples: int = 3) -> Marks:
    """Marks of a run in which images of low rows are the most typical."""
    return Marks(folder, run, np.arange(len(run.ids)), n_examples=n_examples)
