"""Classes of unequal size: how many images stay, and which."""

import numpy as np
import pytest

from unic.images.readers.annotations import Annotations
from unic.images.thinning import thin_classes

SIZES = {"train": [30, 200, 1, 50], "test": [9, 40, 2, 10]}
LABELS = {
    split: np.random.default_rng(3).permutation(np.repeat(np.arange(4), sizes))
    for split, sizes in SIZES.items()
}
IDS = {split: [f"{split}/{row}" for row in range(len(rows))] for split, rows in LABELS.items()}
ANNOTATIONS = Annotations(LABELS, ["ant", "bee", "cat", "dog"])


def count(ids: dict[str, list[str]], split: str) -> list[int]:
    rows = [int(name.partition("/")[2]) for name in ids[split]]
    return np.bincount(LABELS[split][rows], minlength=4).tolist()


@pytest.mark.parametrize("ratio", [1.0, 2.5, 10.0, 1e6])
def test_each_class_keeps_its_share_of_each_split(ratio: float) -> None:
    thin = thin_classes(IDS, ANNOTATIONS, imbalance_ratio=ratio)
    for split, sizes in SIZES.items():
        expected = [max(1, round(size / ratio ** (c / 3))) for c, size in enumerate(sizes)]
        assert count(thin, split) == expected


def test_images_keep_their_order_and_are_the_same_each_time() -> None:
    thin = thin_classes(IDS, ANNOTATIONS, imbalance_ratio=4.0)
    assert thin == thin_classes(IDS, ANNOTATIONS, imbalance_ratio=4.0)
    for split, names in IDS.items():
        assert thin[split] == [name for name in names if name in set(thin[split])]


def test_images_that_stay_are_drawn() -> None:
    """They are no first ones: a folder's first images are often alike."""
    labels = {"train": np.zeros(100, dtype=np.int64)}
    ids = {"train": [str(row) for row in range(100)]}
    one_of_two = Annotations(labels, ["ant", "bee"])
    labels["train"][50:] = 1
    kept = thin_classes(ids, one_of_two, imbalance_ratio=5.0)["train"]
    assert len(kept) == 60
    assert kept[50:] != ids["train"][50:60]


def test_one_class_keeps_all() -> None:
    labels = {"train": np.zeros(5, dtype=np.int64)}
    thin = thin_classes({"train": list("abcde")}, Annotations(labels, ["ant"]), imbalance_ratio=9.0)
    assert thin == {"train": list("abcde")}


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.imbalance_ratio .* needs labels"):
        thin_classes(IDS, None, imbalance_ratio=2.0)
