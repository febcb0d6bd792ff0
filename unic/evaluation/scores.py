"""Scores of predictions: with the report, all that reads true labels."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.metrics import clustering_scores, gcd_accuracy
from unic.storage.stores import Store, check_images, read_splits

Scores = dict[str, dict[str, dict[str, float]]]  # seed to split to name to value


class Truth(NamedTuple):
    """Image ids and true labels of each split, and which training images were labeled."""

    image_ids: dict[str, list[str]]
    labels: dict[str, NDArray[np.int64]] | None  # None where nobody knows
    is_old: dict[str, NDArray[np.bool_]]
    is_labeled: NDArray[np.bool_]  # (n,), of the training split
    class_names: list[str]

    @property
    def is_gcd(self) -> bool:
        """Whether some images were labeled, which makes the task GCD."""
        return bool(self.is_labeled.any())


def make_truth(ids: dict[str, list[str]], labels: Store, known_labels: Store) -> Truth:
    """Put together what is true of the images of an index.

    Raises:
        ValueError: If a store is of other images, or lacks a split; or there are old classes, but
            no image is labeled.
    """
    for split in ids:
        check_images(labels, ids[split], split=split)
    check_images(known_labels, ids["train"])
    by_split = read_splits(labels, "labels")
    is_old = read_splits(labels, "is_old")
    is_labeled = known_labels.read("known_labels") >= 0
    if is_old["train"].any() and not is_labeled.any():
        raise ValueError(
            f"{known_labels.path} must label images of old classes, of which {labels.path} has "
            f"{is_old['train'].sum()}, it labels none; run the workflow again"
        )
    return Truth(
        image_ids=ids,
        labels=None if any((rows < 0).any() for rows in by_split.values()) else by_split,
        is_old=is_old,
        is_labeled=is_labeled,
        class_names=labels.parameters("labels")["class_names"],
    )


def evaluate(predictions: pd.DataFrame, truth: Truth) -> dict[str, Scores]:
    """Score the predictions of each method and seed.

    Clustering: every split by ACC, balanced ACC, NMI, AMI and ARI; where there is a test split,
    that is the protocol's number. GCD: the unlabeled training images by All, Old and New; labeled
    images are never scored. Always: how many clusters are used. No label, no score.

    Args:
        predictions: Columns ``method``, ``seed``, ``split``, ``image_id``, ``cluster``; the
            images of each split in the order of ``truth.image_ids``.
        truth: True labels.

    Returns:
        Method to seed to split to name of the score to value.

    Raises:
        ValueError: If the predictions are not of these images.
    """
    scores: dict[str, Scores] = {}
    for (method, seed, split), group in predictions.groupby(
        ["method", "seed", "split"], sort=False
    ):
        if group["image_id"].tolist() != truth.image_ids.get(split):
            raise ValueError(f"predictions of seed {seed} must be of the {split} images, in order")
        clusters = group["cluster"].to_numpy(dtype=np.int64)
        of_seed = scores.setdefault(method, {}).setdefault(str(seed), {})
        if not truth.is_gcd:
            of_seed[split] = _score_clustering(clusters, truth, split)
        elif split == "train":
            of_seed["unlabeled"] = _score_gcd(clusters, truth)
    return scores


def _score_clustering(clusters: NDArray[np.int64], truth: Truth, split: str) -> dict[str, float]:
    used = {"used_clusters": float(len(np.unique(clusters)))}
    if truth.labels is None:
        return used
    return clustering_scores(truth.labels[split], clusters)._asdict() | used


def _score_gcd(clusters: NDArray[np.int64], truth: Truth) -> dict[str, float]:
    scored = ~truth.is_labeled
    if truth.labels is None:
        return {"used_clusters": float(len(np.unique(clusters[scored])))}
    labels, clusters = truth.labels["train"][scored], clusters[scored]
    accuracy = gcd_accuracy(labels, clusters, is_old=truth.is_old["train"][scored])
    others = clustering_scores(labels, clusters)._asdict()
    del others["acc"], others["balanced_acc"]
    return accuracy._asdict() | others | {"used_clusters": float(len(np.unique(clusters)))}
