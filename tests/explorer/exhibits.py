"""Experiments on disk for the explorer: 40 photos, two seeds, a map."""

from pathlib import Path

import numpy as np

from tests.experiment import N_IMAGES, path_of, write_run
from unic.storage.stores import open_store, write_derived

CLUSTERS = {
    0: {"train": [row % 4 for row in range(N_IMAGES)], "test": [1]},
    1: {"train": [(row + 1) % 4 for row in range(N_IMAGES)], "test": [2]},
}
LABELS = {"train": [(row + 2) % 4 for row in range(N_IMAGES)], "test": [0]}


def write_exhibit(
    folder: Path, clusters: dict[int, dict[str, list[int]]] = CLUSTERS, *, shown: int = 0
) -> Path:
    """``results/NAME`` of a finished experiment, with photos and a map."""
    write_run(folder, clusters, labels=LABELS, shown=shown, images=True)
    write_map(folder)
    return folder


def write_map(folder: Path) -> None:
    neighbors = open_store(path_of(folder, "neighbors"), kind="neighbors")
    angles = 2 * np.pi * np.arange(N_IMAGES) / N_IMAGES
    positions = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    arrays = {"positions": positions}
    parameters = {"seed": 0, "n_neighbors": 5, "scores": {"trustworthiness": 1.0}}
    write_derived(path_of(folder, "map"), "map", arrays, of=neighbors, parameters=parameters)
