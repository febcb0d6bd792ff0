"""An exhibit: an experiment, as far as it has come, with what the page shows of every image."""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.metrics import match_clusters, name_clusters
from unic.inspection.neighbors import Artifacts, open_artifacts
from unic.inspection.runs import Run, open_run, read_split, read_truth
from unic.storage.stores import MANIFEST, Store, open_store


class Truth(NamedTuple):
    """The true labels, where somebody gave them: for coloring and scores alone."""

    labels: NDArray[np.int64]  # (n,)
    names: list[str]  # by label


class Exhibit:
    """An experiment; row i means the same training image in all that it holds.

    Args:
        folder: ``results/NAME``.
        artifacts: What its stages have made.
        run: The finished experiment, None before it is.
    """

    def __init__(self, folder: Path, artifacts: Artifacts, run: Run | None) -> None:
        self.folder = folder
        self.artifacts = artifacts
        self.run = run

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.artifacts.experiment

    @property
    def image_ids(self) -> list[str]:
        """Of the training images, which are what is shown."""
        return self.artifacts.image_ids

    @property
    def n_images(self) -> int:
        """Number of training images."""
        return len(self.image_ids)

    @property
    def n_clusters(self) -> int:
        """K, 0 before there are clusters."""
        return 0 if self.run is None else self.run.n_clusters

    @cached_property
    def map(self) -> Store:
        """The map of the images; it is made where the workflow has not.

        Raises:
            ValueError: If it must be made, and there are no features.
        """
        neighbors, features = self.artifacts.neighbors, self.artifacts.features
        path = neighbors.path.with_name("map.zarr")
        if (path / MANIFEST).is_file():
            return open_store(path, kind="map")
        if features is None:
            raise ValueError(f"a map needs features beside {neighbors.path}, there are none")
        from unic.maps.making import make_map  # its compiler takes half a second

        return make_map(features, neighbors, path)

    @cached_property
    def indices(self) -> NDArray[np.int32]:
        """Neighbors of the images, (n, k), the image itself first."""
        indices: NDArray[np.int64] = self.artifacts.neighbors.read("indices")
        return indices.astype(np.int32)

    @cached_property
    def predictions(self) -> dict[int, pd.DataFrame]:
        """Seed to a row a training image: ``image_id``, ``cluster``, ``confidence``.

        Clusters of other seeds are numbered like those of the shown one that they are paired with.
        """
        run = self.run
        if run is None:
            return {}
        shown = read_split(run, "train")["cluster"].to_numpy(np.int64)
        found = {}
        for seed in run.predictions:
            table = read_split(run, "train", seed=seed)
            clusters = table["cluster"].to_numpy(np.int64)
            found[seed] = table.assign(cluster=match_clusters(shown, clusters)[clusters])
        return found

    @property
    def shown(self) -> pd.DataFrame | None:
        """The predictions of the seed that reports show, None before there are any."""
        return None if self.run is None else self.predictions[self.run.seed]

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Clusters of the seed that is shown, (n,), -1 before there are any."""
        shown = self.shown
        if shown is None:
            return np.full(self.n_images, -1)
        return shown["cluster"].to_numpy(np.int64)

    @cached_property
    def known_labels(self) -> NDArray[np.int64]:
        """Labels that training may know, (n,), -1 where none is."""
        known = self.artifacts.known_labels
        return np.full(self.n_images, -1) if known is None else known.read("known_labels")

    @cached_property
    def known_names(self) -> list[str]:
        """Names of the classes of known labels."""
        known = self.artifacts.known_labels
        return [] if known is None else list(known.parameters("known_labels")["class_names"])

    @cached_property
    def cluster_names(self) -> list[str]:
        """Names of the clusters, after labeled images in them; empty where there are none."""
        if self.run is None:
            return []
        return name_clusters(
            self.clusters, self.known_labels, self.known_names, n_clusters=self.n_clusters
        )

    @cached_property
    def truth(self) -> Truth | None:
        """Labels of all images, None where some have none."""
        if self.run is None:
            return None
        labels, names = read_truth(self.run, "train")
        if labels is None:
            return None
        return Truth(labels, names or [str(label) for label in range(int(labels.max()) + 1)])

    @cached_property
    def rows(self) -> dict[str, int]:
        """Image id to row."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def read_list(self, name: str) -> pd.DataFrame | None:
        """A list of examined images (duplicates, outliers, suspects), None where there is none."""
        path = self.folder / f"{name}.csv"
        return pd.read_csv(path) if path.is_file() else None

    def describe_map(self) -> dict[str, Any]:
        """How the map was made, and how far its neighbors are those of the features."""
        described: dict[str, Any] = self.map.parameters("map")
        return described


def open_exhibit(folder: Path) -> Exhibit:
    """Open an experiment.

    Args:
        folder: ``results/NAME``, in which neighbors at least must have been mined.

    Raises:
        FileNotFoundError: If there is no such folder, or nothing was mined; says what to run.
        ValueError: If a file is damaged, or files are of different images.
    """
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    if not (folder / "metrics.json").is_file():
        return Exhibit(folder, open_artifacts(folder), None)
    run = open_run(folder)
    return Exhibit(folder, run.artifacts, run)


def check_same_exhibits(one: Exhibit, other: Exhibit) -> None:
    """Refuse to show experiments on different images beside each other.

    Raises:
        ValueError: If their training images differ; says how many each has.
    """
    if one.image_ids != other.image_ids:
        n_shared = len(set(one.image_ids) & set(other.image_ids))
        raise ValueError(
            f"{one.folder} and {other.folder} must be of the same images, but the first has "
            f"{one.n_images:,}, the second {other.n_images:,}, and {n_shared:,} are in both"
        )
