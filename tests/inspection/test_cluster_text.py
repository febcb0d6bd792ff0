import csv
import io
import json

import pytest

from tests.experiment import N_IMAGES, write_run
from unic.evaluation.formatting import MISSING
from unic.inspection.cluster_text import format_clusters, format_images
from unic.inspection.clusters import Description, describe_clusters, list_images
from unic.inspection.runs import Run, open_run

K = 5
CLUSTERS = {
    seed: {"train": [(row + seed * (row == 8)) % 4 for row in range(N_IMAGES)], "test": [3]}
    for seed in range(2)
}
LABELS = {"train": [row % 4 for row in range(N_IMAGES)], "test": [2]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("project") / "results" / "toy"
    return open_run(write_run(folder, CLUSTERS, labels=LABELS, n_clusters=K))


@pytest.fixture(scope="module")
def clusters(run: Run) -> list[Description]:
    return describe_clusters(run)


def test_a_table_has_a_row_a_cluster(clusters: list[Description], run: Run) -> None:
    lines = format_clusters(clusters, run, "table", split="train").splitlines()
    assert lines[:2] == ["toy: 40 train images in 4 of 5 clusters, seed 0", ""]
    header = ["cluster", "size", "share", "confidence", "least", "neighbors", "seeds", "nearest"]
    assert lines[2].split() == [*header, "labeled", "label", "class", "purity"]
    assert len(lines) == 3 + K
    first = lines[3].split()
    assert first[:3] == ["0", "10", "25.0%"]
    assert first[6] == "90.0%"  # one of ten images is in another cluster by the other seed
    assert first[-5:] == ["3", "0", "class", "0", "100.0%"]  # three labels are known
    assert lines[-1].split() == ["4", "0", "0.0%", *4 * [MISSING], "0", *3 * [MISSING]]


def test_columns_are_aligned(clusters: list[Description], run: Run) -> None:
    lines = format_clusters(clusters, run, "table", split="train").splitlines()[2:]
    start = lines[0].index("nearest")
    assert {line[start - 1] for line in lines} == {" "}


def test_columns_that_say_nothing_are_left_out(run: Run) -> None:
    described = describe_clusters(run, split="test")
    header = format_clusters(described, run, "table", split="test").splitlines()[2].split()
    expected = ["cluster", "size", "share", "confidence", "least", "seeds", "class", "purity"]
    assert header == expected


def test_csv_and_json_have_all_fields(clusters: list[Description], run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(format_clusters(clusters, run, "csv", split="train"))))
    content = json.loads(format_clusters(clusters, run, "json", split="train"))
    assert (content["experiment"], content["split"], content["seed"]) == ("toy", "train", 0)
    assert len(rows) == len(content["clusters"]) == K
    for about, row, found in zip(clusters, rows, content["clusters"], strict=True):
        assert list(row) == list(found) == list(Description._fields)
        assert row["nearest"] == " ".join(map(str, about.nearest))
        assert int(row["size"]) == found["size"] == about.size
    empty = content["clusters"][4]
    assert (empty["confidence"], empty["purity"], empty["nearest"]) == (None, None, [])


def test_images_of_clusters_in_each_form(clusters: list[Description], run: Run) -> None:
    images = {number: list_images(run, number) for number in (2, 4)}
    shown = [clusters[2], clusters[4]]
    first, second = format_images(shown, images, run, "table").split("\n\ntoy, ")
    assert first.startswith("toy, cluster 2: 10 images (25.0%)\n  confidence 0.800, least 0.620")
    table = [line.split() for line in first.splitlines()[3:]]
    header = ["row", "image", "confidence", "neighbors", "seeds", "label", "class"]
    assert table[0] == header
    assert [row[0] for row in table[1:]] == [str(row) for row in images[2]["row"]]
    assert table[1][-3:] == ["2", "class", "2"]
    assert table[-1][-3:] == [MISSING, "class", "2"]
    assert second.startswith("cluster 4: 0 images (0.0%)")
    rows = list(csv.DictReader(io.StringIO(format_images(shown, images, run, "csv"))))
    assert [(row["cluster"], row["image_id"]) for row in rows] == [
        ("2", image_id) for image_id in images[2]["image_id"]
    ]
    content = json.loads(format_images(shown, images, run, "json"))
    assert [len(found["images"]) for found in content] == [10, 0]
    assert content[0]["images"][0]["known_label"] == "2"
    assert content[0]["images"][-1]["known_label"] is None
