"""The predictor: clusters of new images, and what the training images near them are."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.features.extraction import extract_features
from unic.inference.bundle import Bundle, read_bundle
from unic.inference.given import Given, GivenImages, open_given
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
    outlier: NDArray[np.float32]  # (n,), in [0, 1], see `score_outliers`
    skipped: Mapping[str, str]  # images that could not be read, and why; in no array

    def to_frame(self) -> pd.DataFrame:
        """A row an image.

        Columns ``path``, ``cluster``, ``name``, ``confidence``, ``second``, ``second_confidence``,
        ``distance`` (mean over the neighbors), ``outlier``, and ``neighbors``: their ids, joined
        by ``;``.
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
                "outlier": self.outlier,
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
        self._typical = bundle.model.predict_training().distances  # (m, k)

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
        features = extract_features(
            given,
            self.bundle.backbone,
            said.view,
            batch_size=batch_size,
            device=self.device,
            n_workers=n_workers or min(os.cpu_count() or 1, _MAX_WORKERS),
        )
        return self._place(given, features)

    def _place(self, given: GivenImages, features: NDArray[np.float32]) -> Prediction:
        is_read = np.array([row not in given.faults for row in range(len(given))])
        kept = features[is_read]  # (n, d)
        predicted = self.bundle.model.predict(kept)
        clusters, confidences = predicted.rank()  # (n, 2)
        ids = self.bundle.training_ids
        return Prediction(
            images=[given.ids[row] for row in np.flatnonzero(is_read).tolist()],
            clusters=clusters[:, 0],
            names=[self.bundle.description.name_of(cluster) for cluster in clusters[:, 0].tolist()],
            confidence=confidences[:, 0],
            second=clusters[:, 1],
            second_confidence=confidences[:, 1],
            features=kept,
            neighbors=predicted.neighbors,
            neighbor_ids=[[ids[row] for row in near] for near in predicted.neighbors.tolist()],
            distances=predicted.distances,
            outlier=score_outliers(predicted.distances, self._typical),
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


def score_outliers(
    distances: NDArray[np.float32], typical: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How far out images lie: the share of the training images that are nearer to their neighbors.

    Args:
        distances: To the nearest training images, ``(n, k)``.
        typical: Of the training images to their own neighbors, ``(m, k)``.

    Returns:
        Shape ``(n,)``, float32: the rank of the mean distance among those of the training images,
        over m; 0 where all of these are as far or farther, 1 where all are nearer.

    Example:
        >>> typical = np.array([[0.1], [0.2], [0.3], [0.4]], dtype=np.float32)
        >>> score_outliers(np.array([[0.05], [0.25], [0.9]], dtype=np.float32), typical).tolist()
        [0.0, 0.5, 1.0]
    """
    own = np.sort(typical.mean(axis=1))  # (m,)
    ranks = np.searchsorted(own, distances.mean(axis=1))  # (n,)
    return (ranks / len(own)).astype(np.float32)
