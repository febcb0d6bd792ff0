"""Inputs of a training, opened from the files of the stages before it."""

from collections.abc import Mapping

import torch

from unic.neighbors.negatives import PoolSettings, open_pool
from unic.storage.stores import Store, check_same_images, open_store
from unic.training.pairs import FreshNegatives, NegativeSampler, StoredNegatives


def open_negatives(
    paths: Mapping[str, str],
    known_labels: Store,
    settings: PoolSettings,
    *,
    device: str | torch.device,
) -> NegativeSampler:
    """Draw from stored negatives where there are some, else from their pool itself.

    Args:
        paths: Of the store ``negatives``, else of ``features`` and ``neighbors``.
        known_labels: Store of the labels that training may know.
        settings: Of the pool; stored negatives were drawn by them.
        device: Where anchors are ranked in float64, in the words of torch.

    Raises:
        ValueError: As :func:`open_pool`.
    """
    if "negatives" in paths:
        negatives = open_store(paths["negatives"], kind="negatives")
        check_same_images(negatives, known_labels)
        return StoredNegatives(negatives.read("indices"))
    features = open_store(paths["features"], kind="features")
    neighbors = open_store(paths["neighbors"], kind="neighbors")
    return FreshNegatives(open_pool(features, neighbors, known_labels, settings, device=device))
