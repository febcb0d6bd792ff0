import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import make_blobs

from unic.baselines.comparison import kmeans_predictions
from unic.baselines.kmeans import fit_kmeans

IDS = {"train": [f"{row}.png" for row in range(80)], "test": [f"{row}.jpg" for row in range(20)]}


def splits() -> dict[str, NDArray[np.float32]]:
    points = make_blobs(n_samples=100, centers=4, n_features=5, random_state=0)[0] + 20.0
    return {"train": points[:80].astype(np.float32), "test": points[80:].astype(np.float32)}


def known_labels() -> NDArray[np.int64]:
    """Labels of a few images, against what lies near: every eighth is of class 2."""
    return np.where(np.arange(80) % 8 == 0, 2, -1)


def predict(known: NDArray[np.int64] | None, seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    return kmeans_predictions(
        [splits()],
        IDS,
        method="kmeans",
        seeds=seeds,
        n_clusters=4,
        n_restarts=2,
        device=torch.device("cpu"),
        known_labels=known,
    )


def test_labeled_images_are_in_the_cluster_of_their_label() -> None:
    found = predict(known_labels())
    assert set(found["method"]) == {"kmeans", "kmeans_normalized"}
    for _, group in found[found["split"] == "train"].groupby(["method", "seed"]):
        assert group["image_id"].tolist() == IDS["train"]
        assert (group["cluster"].to_numpy()[known_labels() == 2] == 2).all()
        assert group["cluster"].nunique() == 4


def test_others_are_in_the_cluster_of_the_nearest_center() -> None:
    found, features = predict(known_labels(), (3,)), splits()
    centers = fit_kmeans(
        features["train"],
        n_clusters=4,
        known_labels=known_labels(),
        n_restarts=2,
        generator=torch.Generator().manual_seed(3),
    ).centers
    raw = found[found["method"] == "kmeans"]
    for split, is_free in (("train", known_labels() < 0), ("test", np.ones(20, dtype=bool))):
        distances = np.square(features[split][:, None] - centers).sum(axis=2)
        clusters = raw[raw["split"] == split]["cluster"].to_numpy()
        assert (clusters == distances.argmin(axis=1))[is_free].all()


def test_no_known_label_is_plain_k_means() -> None:
    pd.testing.assert_frame_equal(predict(np.full(80, -1)), predict(None))


def test_refuses_labels_of_other_images() -> None:
    with pytest.raises(ValueError, match=r"shape \(80,\), got int64 of shape \(40,\)"):
        predict(known_labels()[:40])
