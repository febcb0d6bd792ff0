import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from tests.photos.folders import write_digits, write_labels
from unic.cli import main
from unic.steering.marks import State
from unic.steering.opening import open_marks
from unic.storage.files import read_json

HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "steer.md"
BACKBONE = ("--backbone", "bundled:digits_test_resnet", "--device", "cpu")
pytestmark = pytest.mark.workflow


class Place(NamedTuple):
    """Where somebody stands, and which digit each of their images is of."""

    folder: Path
    digits: dict[str, int]

    def run(self, *arguments: str) -> str:
        root = str(Path(__file__).parents[2])
        finished = subprocess.run(
            [sys.executable, "-m", "unic.cli", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": root, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def results(self, name: str) -> Path:
        return self.folder / "results" / name

    def files(self, *names: str) -> dict[str, int]:
        """When each file of some runs was written."""
        paths = [p for name in names for p in self.results(name).rglob("*") if p.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in paths}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Digits, of which some had a label when they were clustered."""
    folder = tmp_path_factory.mktemp("standing")
    digits = write_digits(folder / "photos", 120)
    given = {name: "zero" for name, digit in digits.items() if digit == 0}
    write_labels(folder / "given.csv", dict([*given.items()][:3]))
    place = Place(folder, digits)
    place.run("cluster", "photos", *BACKBONE, "-k", "10", "--labels", "given.csv")
    return place


def mark(place: Place) -> State:
    """Name a cluster, merge two, and say of two images what they are."""
    marks = open_marks(place.results("photos"))
    marks.name_cluster(4, "vier, <b>4</b>")
    marks.merge_clusters([6, 7])
    return marks.mark_images([3, 5], "some digit")


@pytest.fixture(scope="module")
def second(place: Place) -> str:
    """What was told of a second run, which left the first as it was."""
    mark(place)
    before = place.files("photos")
    told = place.run("again", "results/photos")
    assert place.files("photos") == before
    return told


def test_what_was_said_is_known(place: Place, second: str) -> None:
    assert "8 labels of 4 classes, in 9 clusters" in second
    assert "images have moved since" in second
    state = open_marks(place.results("photos")).state
    table = pd.read_csv(place.results("photos-2") / "predictions.csv").fillna("")
    said = {row: name for row, name in enumerate(table["label"]) if name}
    assert said == state.labels
    assert all(table["name"][row] == name for row, name in said.items())
    assert read_json(place.results("photos-2") / "metrics.json")["n_clusters"] == 9


def test_features_and_neighbors_stay_where_they_are(place: Place, second: str) -> None:
    assert second
    made = {path.name for path in place.results("photos-2").iterdir()}
    assert not made & {"features.zarr", "neighbors.zarr", "positives.zarr", "images.parquet"}
    owners = read_json(place.results("photos-2") / "metrics.json")["stage_owners"]
    assert owners["extract_features"] == owners["mine_neighbors"] == "photos"
    entry = read_json(place.results("photos-2") / "experiment.json")["experiments"]
    assert entry["photos-2"]["base"] == "photos"


def test_marks_go_on_in_the_next_run(place: Place, second: str) -> None:
    assert second
    before = open_marks(place.results("photos")).state
    marks = open_marks(place.results("photos-2"))
    assert set(before.names.values()) <= {*marks.state.names.values()}
    assert marks.state.labels == before.labels
    sizes = np.bincount(marks.state.clusters)
    marks.split_cluster(int(sizes.argmax()), np.arange(sizes.max()) % 2)
    files = place.files("photos", "photos-2")
    told = place.run("again", "results/photos-2")
    assert place.files("photos", "photos-2") == files
    assert "10 clusters" in told
    assert read_json(place.results("photos-3") / "metrics.json")["n_clusters"] == 10
    owners = read_json(place.results("photos-3") / "metrics.json")["stage_owners"]
    assert owners["extract_features"] == owners["index_images"] == "photos"


def test_the_plan_changes_nothing(place: Place, second: str) -> None:
    assert second
    before = place.files(".")
    told = place.run("again", "results/photos", "-k", "12", "-o", "results/other", "--plan")
    assert "in 12 clusters; features and neighbors are there since results/photos" in told
    assert "base: photos" in told
    assert place.files(".") == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/nowhere"], "must have a list of its clusters"),
        (["results/photos", "-k", "3"], "-k must be in 4 to the number of images, 120, or auto"),
        (["results/photos", "-k", "500"], "got 500; 4 classes have labels"),
        (["results/photos", "-o", "elsewhere/two"], "must be a folder beside results/photos"),
        (["results/photos", "-o", "results/photos"], "must be a folder beside results/photos"),
        (["results/photos", "-o", "results/a b"], "must be of letters, digits, - and _"),
        (["results/photos", "-o", "results/taken"], "results/taken holds something else"),
        (["results/photos-2", "-o", "results/photos"], "results/photos holds something else"),
    ],
)
def test_wrong_uses_are_one_line(
    place: Place,
    second: str,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert second
    monkeypatch.chdir(place.folder)
    place.results("taken").mkdir(exist_ok=True)
    (place.results("taken") / "thesis.tex").touch()
    assert main(["again", *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert len(said) == 1


def test_a_continued_run_is_not_that_of_a_folder(
    place: Place, second: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert second
    monkeypatch.chdir(place.folder)
    arguments = ["cluster", "photos", *BACKBONE, "-k", "10", "-o", "results/photos-2"]
    assert main(arguments) == 2
    assert "results/photos-2 continues photos by what was said of that" in capsys.readouterr().err


def test_a_run_of_a_configuration_is_told_what_to_add(
    place: Place, second: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert second
    monkeypatch.chdir(place.folder)
    entry = place.results("photos-2") / "experiment.json"
    kept = entry.rename(entry.with_suffix(".aside"))
    try:
        assert main(["again", "results/photos-2"]) == 0
    finally:
        kept.rename(entry)
    told = capsys.readouterr().out
    assert "base: photos-2" in told
    assert 'known_labels: ["results/photos-2/labels.csv"]' in told
    assert "snakemake --cores 8 --configfile again.yaml" in told


@pytest.mark.slow
def test_what_the_howto_says_works(
    tmp_path: Path,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(place.results("photos"), tmp_path / "results" / "photos")
    for path in (tmp_path / "results" / "photos").glob("marks.jsonl"):
        path.unlink()
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", HOWTO.read_text("utf-8"), re.DOTALL):
        exec(block, names)
    state = open_marks(Path("results/photos")).state
    assert state.names[5] == "cats"
    assert state.names[3] == "dogs"
    assert state.wrong == {7}
    assert len(np.unique(state.clusters)) == 9
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 20
    assert all(" like it" in line for line in told)


def test_nothing_said_is_nothing_to_do(
    tmp_path: Path,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "results" / "photos"
    folder.mkdir(parents=True)
    for name in ("metrics.json", "experiment.json", "predictions.parquet"):
        (folder / name).write_bytes((place.results("photos") / name).read_bytes())
    table = pd.read_parquet(folder / "predictions.parquet").assign(label="", name="")
    table.to_parquet(folder / "predictions.parquet")
    monkeypatch.chdir(tmp_path)
    assert main(["again", "results/photos"]) == 2
    assert "must have marks, or -k be another number than 10" in capsys.readouterr().err
