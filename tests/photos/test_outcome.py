import re
from pathlib import Path

import pandas as pd
import pytest

from tests.photos.folders import write_digits
from unic.photos.outcome import describe_outcome, sort_images
from unic.storage.files import write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = tmp_path / "results" / "mine"
    results.mkdir(parents=True)
    write_digits(tmp_path / "photos" / "june", 4)
    table = pd.DataFrame(
        {
            "path": [f"june/digit_{row:04d}.png" for row in range(4)],
            "cluster": [0, 0, 1, 11],
            "name": ["fox / hound", "fox / hound", "", ""],
            "confidence": [0.9, 0.7, 0.5, 1.0],
        }
    )
    table.to_csv(results / "predictions.csv", index=False)
    metrics = {
        "n_clusters": 12,
        "n_skipped": 1,
        "skipped": [{"image_id": "bad.png"}],
        "methods": {
            "unic": {"train": {"acc": {"mean": 0.5}, "used_clusters": {"mean": 3.0}}},
        },
    }
    write_json(results / "metrics.json", metrics)
    return results


def test_clusters_are_listed_by_size(folder: Path) -> None:
    lines = describe_outcome(folder).splitlines()
    assert lines[0] == "4 images in 3 of 12 clusters:"
    assert " ".join(lines[1].split()) == "0 fox / hound 2 images, mean confidence 80.0%"
    assert "1 images could not be read (first bad.png)" in lines
    assert "by the true labels, train: acc 50.0%" in lines


def test_an_estimate_is_told_with_what_else_it_might_be(folder: Path) -> None:
    estimate = {"n_clusters": 12, "best": 12, "low": 9, "high": 20, "candidates": [12, 17]}
    write_json(folder / "n_clusters.json", estimate)
    first = describe_outcome(folder).splitlines()[0]
    assert first == "12 clusters by estimate, between 9 and 20; next best 17"
    write_json(folder / "n_clusters.json", estimate | {"best": 1})
    assert "The images may well be of one kind" in describe_outcome(folder).splitlines()[0]
    write_json(folder / "n_clusters.json", estimate | {"n_clusters": 5})
    assert describe_outcome(folder).startswith("4 images")


@pytest.mark.parametrize("how", ["copy", "link"])
def test_images_go_into_a_folder_a_cluster(folder: Path, tmp_path: Path, how: str) -> None:
    photos = tmp_path / "photos"
    assert sort_images(folder, photos, tmp_path / "sorted", how=how) == 4
    found = sorted(p.relative_to(tmp_path / "sorted") for p in (tmp_path / "sorted").glob("*/*"))
    assert found == [
        Path("00_fox_hound/june__digit_0000.png"),
        Path("00_fox_hound/june__digit_0001.png"),
        Path("01/june__digit_0002.png"),
        Path("11/june__digit_0003.png"),
    ]
    assert (tmp_path / "sorted" / found[0]).is_symlink() == (how == "link")
    original = (photos / "june" / "digit_0000.png").read_bytes()
    assert (tmp_path / "sorted" / found[0]).read_bytes() == original


def test_refuses_folders_that_hold_something(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("must be a new or an empty folder")):
        sort_images(folder, tmp_path / "photos", folder, how="copy")
    with pytest.raises(ValueError, match=re.escape("must not lie among the images")):
        sort_images(folder, tmp_path / "photos", tmp_path / "photos" / "x", how="link")
