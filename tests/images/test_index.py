from pathlib import Path

import pandas as pd
import pytest

from tests.images.files import write_images
from unic.images.index import read_index, read_source, write_index
from unic.images.listing import index_images


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
