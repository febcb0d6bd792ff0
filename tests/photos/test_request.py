import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.experiments.configurations import resolve
from tests.photos.folders import write_digits, write_labels
from unic.models.pretrained import find_pretrained
from unic.photos.request import (
    Request,
    check_request,
    format_yaml,
    make_entry,
    write_entry,
)

BUNDLED = "bundled:digits_test_resnet"


@pytest.fixture
def request_of(tmp_path: Path) -> Request:
    write_digits(tmp_path / "photos", 12)
    return Request(
        photos=tmp_path / "photos",
        output=tmp_path / "results" / "mine",
        n_clusters=3,
        known_labels=(),
        truth=None,
        effort="quick",
        seeds=(0,),
        device="cpu",
        cores=1,
    )


def test_finds_images_at_any_depth_and_counts_other_files(request_of: Request) -> None:
    write_digits(request_of.photos / "2019" / "june", 3)
    (request_of.photos / "notes.txt").write_text("x")
    (request_of.photos / "clip.mp4").write_bytes(b"x")
    found = check_request(request_of)
    assert len(found.ids["train"]) == 15
    assert found.n_others == {".txt": 1, ".mp4": 1}


def test_says_how_many_labels_of_how_many_classes(request_of: Request, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "some.csv", {"digit_0000.png": "zero", "digit_0001.png": "a"})
    found = check_request(replace(request_of, known_labels=(labels,)))
    assert found.n_labeled == 2
    assert found.labeled_classes == ("a", "zero")


def test_the_entry_is_a_whole_experiment(request_of: Request, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "some.csv", {"digit_0000.png": "zero"})
    asked = replace(request_of, known_labels=(labels,), truth="folders")
    entry = make_entry(asked, find_pretrained(BUNDLED), n_images=12)
    settings = resolve(entry["experiments"])["mine"]
    assert settings["method"] == "consensus"
    assert settings["data"]["root"] == str(request_of.photos)
    assert settings["data"]["class_folders"] is True
    assert settings["data"]["known_labels"] == [str(labels)]
    assert settings["data"]["image_size"] == 32
    assert settings["backbone"]["weights"] == BUNDLED
    assert settings["neighbors"]["far_rank"] == "auto"


@pytest.mark.parametrize("effort", ["standard", "thorough"])
def test_more_effort_trains_from_the_recipe(request_of: Request, effort: str) -> None:
    asked = replace(request_of, effort=effort)
    entry = make_entry(asked, find_pretrained(BUNDLED), n_images=12)
    settings = resolve(entry["experiments"])["mine"]
    assert settings["method"] == "finetuning"
    assert settings["finetuning"]["start"] == "consensus"
    assert settings["finetuning"]["batch_size"] == 12
    assert settings["views"]["n_views"] == {"standard": 4, "thorough": "fresh"}[effort]


def test_what_is_printed_is_the_entry(request_of: Request) -> None:
    entry = make_entry(request_of, find_pretrained(BUNDLED), n_images=12)
    assert yaml.safe_load(format_yaml(entry)) == entry


def test_words_that_yaml_takes_for_others_are_quoted() -> None:
    content = {"a": {"b": "yes", "c": "1e3", "d": "x: y", "e": None, "f": ["on"], "g": "auto"}}
    assert yaml.safe_load(format_yaml(content)) == content


def test_results_of_the_same_folder_are_gone_on_with(request_of: Request) -> None:
    write_entry(request_of.output, make_entry(request_of, find_pretrained(BUNDLED), n_images=12))
    check_request(replace(request_of, n_clusters=4))


# Refusals


def test_refuses_results_of_another_folder(request_of: Request, tmp_path: Path) -> None:
    write_entry(request_of.output, make_entry(request_of, find_pretrained(BUNDLED), n_images=12))
    write_digits(tmp_path / "others", 12)
    message = f"has the results of {request_of.photos}, not of {tmp_path / 'others'}"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_request(replace(request_of, photos=tmp_path / "others"))


def test_refuses_a_folder_of_something_else(request_of: Request) -> None:
    request_of.output.mkdir(parents=True)
    (request_of.output / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"holds something else; choose another"):
        check_request(request_of)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_clusters": 1}, "-k must be in 2 to the number of images, 12, or auto, got 1"),
        ({"n_clusters": 13}, "-k must be in 2 to the number of images, 12, or auto, got 13"),
        ({"output": Path("mine")}, "must be a folder within one named results"),
    ],
)
def test_refuses_what_does_not_fit(
    request_of: Request, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_request(replace(request_of, **change))  # type: ignore[arg-type]


def test_refuses_more_labeled_classes_than_clusters(request_of: Request, tmp_path: Path) -> None:
    names = {f"digit_{row:04d}.png": f"class {row}" for row in range(4)}
    asked = replace(request_of, known_labels=(write_labels(tmp_path / "some.csv", dict(names)),))
    with pytest.raises(ValueError, match=r"-k must be in 4 .* got 3; 4 classes have labels"):
        check_request(asked)


def test_refuses_folders_without_enough_images(request_of: Request, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_digits(tmp_path / "three", 3)
    with pytest.raises(ValueError, match=r"must have images .* found none below"):
        check_request(replace(request_of, photos=tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"at least 4 images to cluster, .*three has 3"):
        check_request(replace(request_of, photos=tmp_path / "three"))
    with pytest.raises(FileNotFoundError, match=r"PHOTOS must be a folder, there is none"):
        check_request(replace(request_of, photos=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"PHOTOS must be a folder of images, .* is a file"):
        check_request(replace(request_of, photos=tmp_path / "three" / "digit_0000.png"))
