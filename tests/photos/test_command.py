import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from PIL import Image

import unic
from tests.photos.folders import write_blind_backbone, write_digits, write_labels
from unic.cli import main
from unic.storage.files import read_json

BACKBONE = ("--backbone", "bundled:digits_test_resnet", "--device", "cpu")
pytestmark = pytest.mark.workflow


class Place(NamedTuple):
    """Photos, and a folder to stand in."""

    photos: Path
    folder: Path
    labels: dict[str, int]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "unic.cli", "cluster", str(self.photos), *BACKBONE, *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "COLUMNS": "200"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("standing")
    photos = folder / "my photos"
    labels = write_digits(photos, 200)
    (photos / "notes.txt").write_text("not an image")
    (photos / "broken.png").write_bytes(b"not an image either")
    return Place(photos, folder, labels)


@pytest.fixture(scope="module")
def clustered(place: Place) -> "subprocess.CompletedProcess[str]":
    return place.run("-k", "10", "--cores", "2", "--link-to", "sorted")


def test_one_command_clusters_a_folder(
    place: Place, clustered: "subprocess.CompletedProcess[str]"
) -> None:
    assert clustered.returncode == 0, clustered.stderr
    results = place.folder / "results" / "my_photos"
    table = pd.read_csv(results / "predictions.csv")
    assert sorted(table["path"]) == sorted(place.labels)
    assert table["cluster"].between(0, 9).all()
    assert (results / "report.html").is_file()
    metrics = read_json(results / "metrics.json")
    assert metrics["method"] == "consensus"
    assert metrics["skipped"][0]["image_id"] == "broken.png"
    assert "1 .txt" in clustered.stdout
    assert "200 images in " in clustered.stdout
    assert "1 images could not be read (first broken.png)" in clustered.stdout


def test_images_are_linked_into_a_folder_a_cluster(
    place: Place, clustered: "subprocess.CompletedProcess[str]"
) -> None:
    assert clustered.returncode == 0
    table = pd.read_csv(place.folder / "results" / "my_photos" / "predictions.csv")
    row = table.iloc[0]
    link = place.folder / "sorted" / str(row["cluster"]) / row["path"]
    assert link.resolve() == (place.photos / row["path"]).resolve()


def test_the_same_command_has_nothing_left_to_do(
    place: Place, clustered: "subprocess.CompletedProcess[str]"
) -> None:
    assert clustered.returncode == 0
    model = place.folder / "results" / "my_photos" / "seed0" / "consensus.safetensors"
    before = model.stat().st_mtime_ns
    again = place.run("-k", "10", "--cores", "2")
    assert again.returncode == 0
    assert model.stat().st_mtime_ns == before
    assert "features are there already" in again.stdout
    assert "Embedding" not in again.stderr


def test_a_few_labels_name_their_clusters_and_are_kept(
    place: Place, clustered: "subprocess.CompletedProcess[str]"
) -> None:
    assert clustered.returncode == 0
    some = {name: f"digit {label}" for name, label in place.labels.items() if label < 3}
    some = dict(list(some.items())[:30])
    labels = write_labels(place.folder / "some.csv", dict(some))
    truth = {name: f"digit {label}" for name, label in place.labels.items()}
    found = place.run(
        *("-k", "10", "--labels", str(labels)),
        *("--truth", str(write_labels(place.folder / "truth.csv", dict(truth)))),
    )
    assert found.returncode == 0, found.stderr
    table = pd.read_csv(place.folder / "results" / "my_photos" / "predictions.csv").fillna("")
    rows = table.set_index("path")
    assert all(rows.loc[name, "name"] == label for name, label in some.items())
    assert set(table["name"]) == {"", "digit 0", "digit 1", "digit 2"}
    assert re.search(r"by the true labels, unlabeled: all \d", found.stdout)


def test_more_effort_estimates_k_first_and_has_a_model_too(place: Place) -> None:
    some = place.folder / "some"
    write_digits(some, 60)
    found = place._replace(photos=some).run("--effort", "standard")
    assert found.returncode == 0, found.stderr
    results = place.folder / "results" / "some"
    metrics = read_json(results / "metrics.json")
    assert metrics["method"] == "finetuning"
    assert metrics["n_clusters"] == read_json(results / "n_clusters.json")["n_clusters"]
    assert f"{metrics['n_clusters']} clusters by estimate" in found.stdout
    assert f"unic predict {Path('results', 'some')} NEW" in found.stdout
    predicted = unic.load(results, device="cpu").predict(some)
    table = pd.read_csv(results / "predictions.csv").set_index("path")
    rows = table.loc[[Path(path).name for path in predicted.images]]
    assert predicted.clusters.tolist() == rows["cluster"].tolist()
    assert abs(predicted.confidence - rows["confidence"].to_numpy()).max() < 1e-3


def test_an_image_of_which_the_backbone_says_nothing_stops_nothing(place: Place) -> None:
    photos = place.folder / "blind"
    write_digits(photos, 80)
    Image.new("RGB", (32, 32)).save(photos / "black.png")
    backbone = str(write_blind_backbone(place.folder / "backbone"))
    found = place._replace(photos=photos).run("--backbone", backbone, "-k", "10")
    assert found.returncode == 0, found.stderr
    told = "the backbone says nothing of 1 images (first black.png), their features are all 0"
    assert told in found.stdout
    results = place.folder / "results" / "blind"
    assert read_json(results / "quality.json")["featureless"] == ["black.png"]
    assert "says nothing" in (results / "quality.html").read_text()


def test_a_killed_run_goes_on_by_the_same_command(place: Place) -> None:
    command = [sys.executable, "-m", "unic.cli", "cluster", str(place.photos), *BACKBONE]
    with subprocess.Popen(
        [*command, "-k", "10", "-o", "results/stopped"],
        cwd=place.folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        features = place.folder / "results" / "stopped" / "features.zarr" / "zarr.json"
        next_job = place.folder / "logs" / "stopped" / "mine_neighbors.log"
        deadline = time.monotonic() + 120
        while not next_job.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; the same command goes on where it was" in said
    written = features.stat().st_mtime_ns
    again = place.run("-k", "10", "-o", "results/stopped")
    assert again.returncode == 0, again.stderr
    assert features.stat().st_mtime_ns == written


KILLED = """
import os, signal, sys
from unic.cli import main

def die(event, arguments):
    if event == EVENT and NAME in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("event", "name", "left"),
    [
        ("open", ".unic.lock", 0),
        ("open", ".experiment.json.tmp-", 1),
        ("os.rename", ".experiment.json.tmp-", 2),
    ],
)
def test_a_run_that_was_killed_before_its_first_file_can_be_repeated(
    event: str, name: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / "photos", 12)
    code = KILLED.replace("EVENT", repr(event)).replace("NAME", repr(name))
    asked = ["cluster", "photos", "-k", "3", *BACKBONE]
    killed = subprocess.run(
        [sys.executable, "-c", code, *asked],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    results = tmp_path / "results" / "photos"
    assert len(list(results.iterdir())) == left
    assert not (results / "experiment.json").exists()
    assert main([*asked, "--plan"]) == 0
    (results / "mine.txt").touch()
    assert main([*asked, "--plan"]) == 2  # something else


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "PHOTOS must be a folder, there is none at nowhere"),
        (["photos", "-k", "1"], "-k must be in 2 to the number of images, 12, or auto, got 1"),
        (["photos", "-k", "500"], "-k must be in 2 to the number of images, 12, or auto, got 500"),
        (["photos", "-o", "mine"], "--output must be a folder within one named results"),
        (["photos", "-o", "results/my photos"], "must be of letters, digits, - and _"),
        (["photos", "--labels", "none.csv"], "must be a CSV file, there is none at none.csv"),
        (["photos", "--labels", "strange.csv"], "1 are not among them (first cat.jpg (line 2))"),
        (["photos", "--labels", "columns.csv"], "must have the columns path and label, got"),
        (["photos", "--labels", "a.csv", "b.csv"], "must have one label, got x (a.csv, line 2)"),
        (["photos", "--truth", "none.csv"], "--truth must be a CSV file or folders, there is none"),
        (["photos", "--backbone", "resnet"], "must be a model of timm, a folder, or a file"),
        (["photos", "--backbone", "none.pth"], "a file of weights, there is none at none.pth"),
        (["empty"], "must have images"),
        (["films"], "must have images"),
        (["broken", "-k", "2"], "images must be readable, none of 4 that were tried is"),
        (["photos", "-k", "3", "--device", "cuda"], "machine.device must be cpu or auto"),
    ],
)
def test_wrong_uses_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_digits(tmp_path / "photos", 12)
    for name in ("empty", "films", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "films" / "clip.mp4").write_bytes(b"\0" * 9)
    for number in range(4):
        (tmp_path / "broken" / f"{number}.jpg").write_bytes(b"no image")
    write_labels(tmp_path / "strange.csv", {"cat.jpg": "cat"})
    (tmp_path / "columns.csv").write_text("file,class\na,b\n")
    write_labels(tmp_path / "a.csv", {"digit_0000.png": "x"})
    write_labels(tmp_path / "b.csv", {"digit_0000.png": "y"})
    if "--backbone" not in arguments:
        arguments = [*arguments, *BACKBONE[:2]]
    if "-k" not in arguments:
        arguments = [*arguments, "-k", "3"]
    assert main(["cluster", *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert said[-1].startswith("unic: error: ")
    assert len(said) == 1
    assert not (tmp_path / "results").exists()
