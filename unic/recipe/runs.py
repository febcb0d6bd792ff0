"""A run of the recipe: what is learned of some images, and their clusters, for one seed."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.recipe.clustering import fit
from unic.recipe.model import Model, Predictions
from unic.storage.prediction_tables import tabulate


class Run(NamedTuple):
    """What a seed has found."""

    model: Model
    about: dict[str, Any]  # JSON to be kept with the model
    history: pd.DataFrame  # one row: how the consensus does without labels, `loss` in all
    predictions: pd.DataFrame  # a row an image, see `cluster_images`


def cluster_images(
    features: Mapping[str, NDArray[np.float32]],
    ids: Mapping[str, Sequence[str]],
    *,
    known_labels: NDArray[np.int64],
    known_names: Sequence[str],
    n_clusters: int,
    seed: int,
) -> Run:
    """Cluster images by the recipe, see :func:`unic.recipe.clustering.cluster`.

    Args:
        features: Split to features, ``(n, d)``, float32; ``train`` is learned from.
        ids: Image ids by split.
        known_labels: Of the training images, ``(n,)``, -1 = unknown.
        known_names: Of the classes of known labels: cluster ``c`` is that of ``known_names[c]``.
        n_clusters: K, at most n, at least the number of names.
        seed: Of all random numbers.

    Returns:
        Predictions have the columns of :func:`unic.storage.prediction_tables.tabulate`, the
        ``second`` likeliest cluster with its ``second_confidence``, and the mean ``distance`` (one
        less the cosine, in the space that heads look at) to the 10 nearest training images.

    Raises:
        ValueError: If K does not fit the images or the names; or as
            :func:`unic.recipe.clustering.fit` does.
    """
    n_images = len(features["train"])
    if not max(2, len(known_names)) <= n_clusters <= n_images:
        named = f", and the {len(known_names)} classes of known labels" if known_names else ""
        raise ValueError(
            f"n_clusters must be in 2 to the {n_images} training images{named}, got {n_clusters}"
        )
    generator = torch.Generator().manual_seed(seed)
    fitted = fit(
        features["train"], known_labels=known_labels, n_clusters=n_clusters, generator=generator
    )
    found = fitted.model.predict_splits(features)
    facts = {
        "silhouette": fitted.silhouette,
        "disagreement": fitted.disagreement,
        "is_balanced": fitted.is_balanced,
    }
    return Run(
        fitted.model,
        {"n_clusters": n_clusters, "seed": seed, "names": list(known_names), **facts},
        pd.DataFrame([{"epoch": 1, "loss": fitted.cost, **facts}]),
        pd.concat([_tabulate(seed, s, ids[s], each) for s, each in found.items()]),
    )


def _tabulate(seed: int, split: str, ids: Sequence[str], predicted: Predictions) -> pd.DataFrame:
    """A row an image."""
    clusters, confidences = predicted.rank()  # (n, 2)
    table = tabulate("unic", seed, {split: ids}, {split: (clusters[:, 0], confidences[:, 0])})
    return table.assign(
        second=clusters[:, 1],
        second_confidence=confidences[:, 1],
        distance=predicted.distances.mean(axis=1),
    )
