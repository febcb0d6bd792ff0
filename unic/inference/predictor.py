"""The predictor: clusters of new images, and what the training images near them are."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.inference.bundle import Bundle, read_bundle
from unic.inference.given import Given, GivenImages, open_given
from unic.quality.outliers import OutlierReference, Outliers, score_outliers
from unic.recipe.model import Predictions
from unic.runtime.devices import choose_device

BATCH_SIZE = 32
BAD_IMAGES = ("error", "skip")
_MAX_WORKERS = 8  # threads that decode


class Prediction(NamedTuple):
    """What was found of ``n`` images, each with ``k`` training images near it."""

    images: list[str]  # (n,), paths, or numbers of images that were not files
    clusters: NDArray[np.int64]  # (n,)
    names: list[str]  # (n,), classes of labeled images that clusters are; empty where none
    confidence: NDArray[np.float32]  # (n,), in [0, 1]
    second: NDArray[np.int64]  # (n,), the next cluster
    second_confidence: NDArray[np.float32]  # (n,), in [0, 1]
    features: NDArray[np.float32]  # (n, d), of the backbone
    neighbors: NDArray[np.int64]  # (n, k), rows of training images, nearest first
    neighbor_ids: list[list[str]]  # (n, k), their ids
    distances: NDArray[np.float32]  # (n, k), one less the cosine, in [0, 2]
    outliers: Outliers  # (n,) each: score, p_value, is_outlier
    skipped: Mapping[str, str]  # images that could not be read, and why; in no array

    def to_frame(self) -> pd.DataFrame:
        """A row an image.

        Columns ``path``, ``cluster``, ``name``, ``confidence``, ``second``, ``second_confidence``,
        ``distance`` (mean over the neighbors), ``outlier_score``, ``p_value``, ``is_outlier`` (see
        :class:`unic.quality.outliers.Outliers`), and ``neighbors``: their ids, joined by ``;``.
        """
        return pd.DataFrame(
            {
                "path": self.images,
                "cluster": self.clusters,
                "name": self.names,
                "confidence": self.confidence,
                "second": self.second,
                "second_confidence": self.second_confidence,
                "distance": self.distances.mean(axis=1),
                "outlier_score": self.outliers.score,
                "p_value": self.outliers.p_value,
                "is_outlier": self.outliers.is_outlier,
                "neighbors": [";".join(ids) for ids in self.neighbor_ids],
            }
        )


class Predictor:
    """Clusters images as the experiment's own workflow does.

    Args:
        bundle: What the experiment has learned.
        device: Where the backbone runs.
    """

    def __init__(self, bundle: Bundle, *, device: torch.device):
        self.bundle, self.device = bundle, device

    @property
    def n_clusters(self) -> int:
        """K."""
        return self.bundle.description.n_clusters

    @property
    def names(self) -> tuple[str, ...]:
        """Of the first clusters, which are those of labeled classes; empty without labels."""
        return self.bundle.description.names

    def predict(
        self,
        images: Given | Iterable[Given],
        *,
        batch_size: int = BATCH_SIZE,
        bad_images: str = "error",
        n_workers: int | None = None,
    ) -> Prediction:
        """Cluster images.

        Args:
            images: A folder (all images below it), a file, a picture of Pillow, a uint8 array
                ``(h, w, 3)`` or ``(n, h, w, 3)`` of RGB, or several of these, of any sizes.
            batch_size: Images that go through the backbone at a time; results change by rounding
                alone.
            bad_images: ``error``, or ``skip`` to leave out what cannot be read.
            n_workers: Threads that decode; by default one a processor, at most 8.

        Raises:
            FileNotFoundError: If a path is missing.
            ValueError: If there is no image, something is none, or cannot be read (names it).
        """
        if bad_images not in BAD_IMAGES:
            raise ValueError(f"bad_images must be {' or '.join(BAD_IMAGES)}, got {bad_images}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        said = self.bundle.description
        given = open_given(images, decoded=said.decoded, is_lenient=bad_images == "skip")
        features, predicted = self.bundle.learned.look(
            self.bundle.backbone,
            given,
            said.view,
            batch_size=batch_size,
            device=self.device,
            n_workers=n_workers or min(os.cpu_count() or 1, _MAX_WORKERS),
        )
        return self._tell(given, features, predicted)

    def _tell(
        self, given: GivenImages, features: NDArray[np.float32], predicted: Predictions
    ) -> Prediction:
        """What was found of those images that could be read."""
        rows = np.array([row for row in range(len(given)) if row not in given.faults], dtype=int)
        clusters, confidences = (each[rows] for each in predicted.rank())  # (n, 2)
        near, distances = predicted.neighbors[rows], predicted.distances[rows]  # (n, k)
        said, ids = self.bundle.description, self.bundle.training_ids
        return Prediction(
            images=[given.ids[row] for row in rows.tolist()],
            clusters=clusters[:, 0],
            names=[said.name_of(cluster) for cluster in clusters[:, 0].tolist()],
            confidence=confidences[:, 0],
            second=clusters[:, 1],
            second_confidence=confidences[:, 1],
            features=features[rows],
            neighbors=near,
            neighbor_ids=[[ids[each] for each in of_image] for of_image in near.tolist()],
            distances=distances,
            outliers=_judge(distances, said.outliers),
            skipped={given.ids[row]: why for row, why in sorted(given.faults.items())},
        )


def load(path: str | Path, *, device: str = "auto") -> Predictor:
    """Load what an experiment has learned, to cluster new images.

    Args:
        path: ``results/NAME``, or its ``model.safetensors``, which is all that is needed.
        device: Where the backbone runs: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.

    Raises:
        FileNotFoundError: If there is no such file; says how to make it.
        ValueError: If it is no such file, or damaged, or there is no such device.
    """
    chosen = choose_device(device)
    return Predictor(read_bundle(path), device=chosen)


def _judge(distances: NDArray[np.float32], reference: OutlierReference) -> Outliers:
    """Score images by their distances ``(n, k)``, of which few training images have one less."""
    if not len(distances):
        return Outliers(np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_))
    ascending = np.sort(distances, axis=1)  # but for rounding they are
    return score_outliers(ascending[:, : reference.n_neighbors], reference)
