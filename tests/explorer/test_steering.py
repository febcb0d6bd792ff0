import csv
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiment import N_IMAGES, path_of, write_experiment
from tests.explorer.exhibits import CLUSTERS, write_exhibit
from unic.explorer.exhibits import open_exhibit
from unic.explorer.steering import Steering, list_choices, open_steering


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_exhibit(tmp_path / "results" / "toy")


@pytest.fixture
def steering(folder: Path) -> Steering:
    return Steering(open_exhibit(folder))


def read_labels(folder: Path) -> dict[str, str]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return {line["path"]: line["label"] for line in csv.DictReader(file)}


def test_what_is_said_is_in_the_file_when_the_answer_comes(
    steering: Steering, folder: Path
) -> None:
    ids = open_exhibit(folder).image_ids
    state = steering.mark({"action": "label", "rows": [30, 31], "label": "dog, big"})
    assert state["said"] == "2 images: dog, big"
    assert dict(state["labels"])[30] == "dog, big"
    assert read_labels(folder)[ids[31]] == "dog, big"
    assert state["file"] == str(folder / "labels.csv")
    json.dumps(state, allow_nan=False)


def test_each_action(steering: Steering) -> None:
    def do(**asked: Any) -> dict[str, Any]:
        return steering.mark(asked)

    assert do(action="name", cluster=2, name="cat")["names"]["2"] == "cat"
    assert dict(do(action="right", rows=[22])["labels"])[22] == "cat"
    assert do(action="wrong", rows=[26])["wrong"] == [26]
    assert do(action="clear", rows=[26])["wrong"] == []
    assert do(action="merge", clusters=[1, 3])["said"] == "clusters 1 and 3 are one"
    assert set(steering.clusters.tolist()) == {0, 1, 2}
    split = do(action="split", cluster=0, n_parts=2)
    assert split["said"] == "cluster 0 is 2 now"
    assert split["n_clusters"] == 5
    assert len(np.unique(steering.clusters)) == 4
    undone = do(action="undo")
    assert set(steering.clusters.tolist()) == {0, 1, 2}
    assert undone["n_marks"] == split["n_marks"] - 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "rows must be a list of whole numbers, got None"),
        ({"action": "delete", "rows": [1]}, "action must be name, merge"),
        ({"action": "name", "cluster": "1", "name": "a"}, "cluster must be a whole number"),
        ({"action": "name", "cluster": True, "name": "a"}, "cluster must be a whole number"),
        ({"action": "name", "cluster": 1}, "name must be a text, got None"),
        ({"action": "name", "cluster": 9, "name": "a"}, "cluster must be one of the 4"),
        ({"action": "label", "rows": [N_IMAGES], "label": "a"}, "rows must be below 40"),
        ({"action": "label", "rows": [1], "label": " "}, "a name must have a letter"),
        ({"action": "split", "cluster": 1, "n_parts": 11}, "n_parts must be in 2 to the 10"),
        ({"action": "undo"}, "there must be a mark"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    steering: Steering, asked: dict[str, Any], message: str
) -> None:
    before = steering.describe()
    with pytest.raises(ValueError, match=message):
        steering.mark(asked)
    assert steering.describe() == before


def test_requests_at_once_are_all_kept(steering: Steering, folder: Path) -> None:
    rows = range(10, N_IMAGES)

    def label(row: int) -> None:
        steering.mark({"action": "label", "rows": [row], "label": f"class of {row}"})

    threads = [threading.Thread(target=label, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    labels, ids = read_labels(folder), open_exhibit(folder).image_ids
    assert {ids[row]: f"class of {row}" for row in rows}.items() <= labels.items()


def test_it_is_there_when_opened_again(steering: Steering, folder: Path) -> None:
    steering.mark({"action": "name", "cluster": 3, "name": "bird"})
    again = Steering(open_exhibit(folder)).describe()
    assert again["names"]["3"] == "bird"
    assert again["can_undo"]


def test_the_next_command_is_told(steering: Steering, folder: Path) -> None:
    state = steering.mark({"action": "label", "rows": [12], "label": "fox"})
    assert "known_labels" in state["command"]  # not made by unic cluster: what to add
    assert state["look"] == f"unic explore {folder} {folder}-2"


def test_a_split_needs_features(folder: Path) -> None:
    shutil.rmtree(path_of(folder, "features").parent)
    steering = Steering(open_exhibit(folder))
    with pytest.raises(ValueError, match="a split needs the features"):
        steering.mark({"action": "split", "cluster": 1, "n_parts": 2})
    np.testing.assert_array_equal(steering.clusters, CLUSTERS[0]["train"])


def test_nothing_is_steered_before_there_are_clusters(tmp_path: Path) -> None:
    assert open_steering(open_exhibit(write_experiment(tmp_path / "results" / "toy"))) is None


def test_images_are_asked_about_with_the_names_around_them(steering: Steering) -> None:
    steering.mark({"action": "name", "cluster": 0, "name": "cat"})
    asked = steering.suggest(5)["images"]
    assert len({image["row"] for image in asked}) == 5
    assert all(image["reason"] for image in asked)
    own = [image for image in asked if steering.clusters[image["row"]] == 0]
    assert all(image["choices"] == ["cat"] for image in own)
    json.dumps(asked)


def test_choices_are_the_names_of_most_neighbors_first(steering: Steering) -> None:
    for cluster, name in enumerate(("a", "b", "c")):  # 3 has the name of known labels
        steering.mark({"action": "name", "cluster": cluster, "name": name})
    state = steering.state
    assert list_choices(state, np.array([2, 1, 5, 3, 7, 11], dtype=np.int32)) == ["3", "b", "c"]
