import json
from pathlib import Path

import numpy as np
import pytest

from tests.explorer.exhibits import write_exhibit
from unic.explorer.columns import list_columns
from unic.explorer.exhibits import Exhibit, open_exhibit
from unic.explorer.images import describe_image, search_images, tabulate_images


@pytest.fixture
def exhibit(tmp_path: Path) -> Exhibit:
    return open_exhibit(write_exhibit(tmp_path / "results" / "toy"))


def test_an_image_is_described_by_the_rows_of_the_artifacts(exhibit: Exhibit) -> None:
    about = describe_image(exhibit, 5)
    indices = exhibit.artifacts.neighbors.read("indices")
    assert [each["row"] for each in about["neighbors"]] == indices[5].tolist()
    distances = [each["distance"] for each in about["neighbors"]]
    np.testing.assert_array_equal(distances, exhibit.artifacts.neighbors.read("distances")[5])
    union = set(indices[indices[5]].ravel().tolist())
    assert set(about["second_order"]) == union - set(indices[5].tolist())
    assert about["union_size"] == len(union)
    assert exhibit.artifacts.negatives is not None
    negatives = exhibit.artifacts.negatives.read("indices")[5].tolist()
    assert [each["row"] for each in about["negatives"]] == negatives
    assert [seed["cluster"] for seed in about["seeds"]] == [1, 1]
    assert about["known"] == "1"
    assert about["truth"] == "class 3"
    json.dumps(about, allow_nan=False)


def test_search_takes_parts_of_names_and_rows() -> None:
    ids = [f"{'ab'[row % 2]}/Photo {row}.JPG" for row in range(200)]
    assert [found["row"] for found in search_images(ids, "photo 19")] == [19, *range(190, 200)]
    assert search_images(ids, "#7") == [{"row": 7, "id": "b/Photo 7.JPG"}]
    assert search_images(ids, "#200") == []
    assert search_images(ids, "#x") == []
    assert search_images(ids, "") == []
    assert len(search_images(ids, ".jpg")) == 50


def test_a_table_has_names_where_there_are_some(exhibit: Exhibit) -> None:
    table = tabulate_images(exhibit, list_columns(exhibit), [30, 2])
    assert table["path"].tolist() == [exhibit.image_ids[30], exhibit.image_ids[2]]
    assert table["known"].tolist() == ["", "2"]
    assert table["truth"].tolist() == ["class 0", "class 0"]
    assert table["confidence"].tolist() == pytest.approx([0.7, 0.98])
