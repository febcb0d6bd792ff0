from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from unic.images.index import read_index, read_source, write_index
from unic.images.listing import index_images


def write_images(root: Path, *image_ids: str) -> str:
    for image_id in image_ids:
        (root / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / image_id)
    return str(root)


def test_lists_the_images_of_the_data_set() -> None:
    ids = index_images("digits", root=None, n_clusters=1438, far_rank=1437).ids
    assert {split: len(split_ids) for split, split_ids in ids.items()} == {
        "train": 1438,
        "test": 359,
    }


def test_round_trip_keeps_splits_and_order(tmp_path: Path) -> None:
    ids = {"train": ["b/2.png", "a/1.png", "ä/10.png"], "test": ["z.png", "c.png"]}
    write_index(tmp_path / "images.parquet", ids, name="folder", root=None)
    found = read_index(tmp_path / "images.parquet")
    assert found == ids
    assert list(found) == ["train", "test"]


def test_writes_the_sizes_of_files(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", "train/a.png", "test/b.bmp")
    ids = {"train": ["train/a.png"], "test": ["test/b.bmp"]}
    write_index(tmp_path / "images.parquet", ids, name="folder", root=root)
    index = pd.read_parquet(tmp_path / "images.parquet")
    assert index.columns.tolist() == ["split", "image_id", "n_bytes"]
    assert index["n_bytes"].tolist() == [
        (tmp_path / "images" / split_ids[0]).stat().st_size for split_ids in ids.values()
    ]


def test_a_root_changes_nothing_for_images_that_are_not_files(tmp_path: Path) -> None:
    ids = index_images("digits", root=str(tmp_path), n_clusters=10, far_rank=700).ids
    write_index(tmp_path / "images.parquet", ids, name="digits", root=str(tmp_path))
    assert read_index(tmp_path / "images.parquet") == ids
    assert not pd.read_parquet(tmp_path / "images.parquet")["n_bytes"].any()


def test_leaves_nothing_but_the_index(tmp_path: Path) -> None:
    write_index(tmp_path / "made" / "images.parquet", {"train": ["1"]}, name="digits", root=None)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["images.parquet"]


@pytest.mark.parametrize("source", [("digits", None), ("folder", "/a/b"), ("folder", "c d")])
def test_the_index_says_where_the_images_are(
    source: tuple[str, str | None], tmp_path: Path
) -> None:
    path = tmp_path / "images.parquet"
    write_index(path, {"train": ["1"]}, name=source[0], root=source[1])
    assert read_source(path) == source


def test_an_index_of_an_older_version_does_not_say_where(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    pd.DataFrame({"split": ["train"], "image_id": ["1"]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"images\.parquet must say where its images are; delete"):
        read_source(path)


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
