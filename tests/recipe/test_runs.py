import re

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.recipe.runs import Run, cluster_images


def run(n_clusters: int = 3, known: NDArray[np.int64] | None = None, names: int = 0) -> Run:
    truth = np.arange(60) % 3
    noise = np.random.default_rng(0).normal(size=(60, 12))
    points = (10 * np.eye(3, 12)[truth] + 0.5 * noise).astype(np.float32)
    ids = {"train": [str(i) for i in range(45)], "test": [str(i) for i in range(45, 60)]}
    return cluster_images(
        {"train": points[:45], "test": points[45:]},
        ids,
        known_labels=np.full(45, -1) if known is None else known,
        known_names=[f"class {number}" for number in range(names)],
        n_clusters=n_clusters,
        seed=4,
    )


def test_every_image_has_two_choices_in_order() -> None:
    table = run().predictions
    assert table["image_id"].tolist() == [str(i) for i in range(60)]
    assert table["split"].tolist() == ["train"] * 45 + ["test"] * 15
    assert (table["seed"] == 4).all()
    assert (table["confidence"] >= table["second_confidence"]).all()
    assert (table["cluster"] != table["second"]).all()
    assert table["distance"].between(0, 2).all()
    clusters = table["cluster"].to_numpy()
    assert all(len(set(clusters[c::3])) == 1 for c in range(3))


def test_the_history_is_one_row_that_says_how_good_the_clusters_are() -> None:
    history = run().history
    assert list(history) == ["epoch", "loss", "silhouette", "disagreement", "is_balanced"]
    row = history.iloc[0]
    assert row["loss"] == pytest.approx(2 * row["disagreement"] - np.log(row["silhouette"]))


def test_names_go_along_with_the_model() -> None:
    known = np.where(np.arange(45) < 6, np.arange(45) % 2, -1)
    found = run(known=known, names=2)
    assert found.about["names"] == ["class 0", "class 1"]
    clusters = found.predictions["cluster"].to_numpy()
    assert clusters[:6].tolist() == known[:6].tolist()


@pytest.mark.parametrize(
    ("n_clusters", "names", "message"),
    [
        (1, 0, "n_clusters must be in 2 to the 45 training images, got 1"),
        (46, 0, "n_clusters must be in 2 to the 45 training images, got 46"),
        (3, 4, "and the 4 classes of known labels, got 3"),
    ],
)
def test_refuses_numbers_that_do_not_fit(n_clusters: int, names: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run(n_clusters, names=names)
