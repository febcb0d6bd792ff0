"""Listings of the images of an experiment."""

from pathlib import Path

import pytest

from tests.images.files import write_images
from unic.images.listing import index_images


def test_lists_the_images_of_the_data_set() -> None:
    ids = index_images("digits", root=None, n_clusters=1438, far_rank=1437).ids
    assert {split: len(split_ids) for split, split_ids in ids.items()} == {
        "train": 1438,
        "test": 359,
    }


def test_leaves_images_out_where_classes_are_to_be_unequal() -> None:
    whole, thin = (
        index_images("digits", root=None, n_clusters=10, far_rank=9, imbalance_ratio=ratio).ids
        for ratio in (None, 10.0)
    )
    for split in ("train", "test"):
        assert len(thin[split]) < len(whole[split]) / 2
        assert set(thin[split]) < set(whole[split])


def test_refuses_unequal_classes_of_images_without_labels(tmp_path: Path) -> None:
    root = write_images(tmp_path, "train/1.png", "train/2.png")
    with pytest.raises(ValueError, match=r"imbalance_ratio .* needs labels: the data set has none"):
        index_images("folder", root=root, n_clusters=2, far_rank=1, imbalance_ratio=2.0)


@pytest.mark.parametrize(
    ("n_clusters", "far_rank", "message"),
    [
        (4, 2, "n_clusters must be at most the 3 training images, got 4"),
        (3, 3, "far_rank must be below the 3 training images, got 3"),
        (3, 4, "far_rank must be below the 3 training images, got 4"),
    ],
)
def test_refuses_numbers_that_do_not_fit(
    n_clusters: int, far_rank: int, message: str, tmp_path: Path
) -> None:
    names = ["train/1.png", "train/2.png", "train/3.png", "test/4.png", "test/5.png"]
    root = write_images(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        index_images("folder", root=root, n_clusters=n_clusters, far_rank=far_rank)


def test_refuses_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        index_images("folder", root=str(tmp_path / "absent"), n_clusters=2, far_rank=2)
