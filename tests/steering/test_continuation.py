import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.experiments.configurations import example, resolve
from tests.steering.runs import make_run, open_run
from unic.experiments.stages import stage_owners
from unic.steering.continuation import (
    continue_entry,
    describe_again,
    find_base,
    find_free,
    first_settings,
    hand_on,
    read_entry,
)

ENDS = ("metrics.json", "predictions.csv", "quality.json")


def begin(folder: Path, bases: dict[str, str | None], *, is_finished: bool = True) -> Path:
    """The folder of a run with its configuration, each name with what it continues."""
    folder.mkdir(parents=True, exist_ok=True)
    experiments = {
        name: {"n_clusters": 3} if base is None else {"base": base} for name, base in bases.items()
    }
    (folder / "experiment.json").write_text(json.dumps({"experiments": experiments}))
    for name in ENDS if is_finished else ():
        (folder / name).write_text("{}")
    return folder


# The experiment


def test_runs_share_all_but_what_labels_change() -> None:
    settings = example() | {"method": "consensus"}
    entry: dict[str, Any] = {"experiments": {"mine": settings}}
    second = continue_entry(entry, "mine", "mine-2", n_clusters=7, known=Path("known.csv"))
    third = continue_entry(second, "mine-2", "mine-3", n_clusters=8, known=Path("more.csv"))
    resolved = resolve(third["experiments"])
    for name in ("mine-2", "mine-3"):
        owners = stage_owners(resolved, name)
        shared = ("index_images", "extract_features", "mine_neighbors", "clean_neighbors")
        assert {owners[stage] for stage in shared} == {"mine"}
        assert {owners[stage] for stage in ("split_labels", "fit_consensus")} == {name}
    assert resolved["mine-3"]["n_clusters"] == 8
    assert resolved["mine-3"]["data"]["known_labels"] == [str(Path("more.csv").absolute())]
    assert resolved["mine-2"]["data"]["known_labels"] == [str(Path("known.csv").absolute())]
    assert first_settings(third, "mine-3") == settings
    assert find_base(third, "mine-3") == "mine-2"
    assert find_base(third, "mine") is None


def test_cleared_labels_are_no_longer_known() -> None:
    entry: dict[str, Any] = {"experiments": {"mine": example() | {"data": {"known_labels": ["a"]}}}}
    continued = continue_entry(entry, "mine", "mine-2", n_clusters=7, known=None)
    assert continued["experiments"]["mine-2"]["data"] == {"known_labels": []}


def test_the_same_run_continued_anew_replaces_what_it_was() -> None:
    entry: dict[str, Any] = {"experiments": {"mine": example()}}
    second = continue_entry(entry, "mine", "mine-2", n_clusters=7, known=None)
    again = continue_entry(second, "mine", "mine-2", n_clusters=9, known=None)
    assert [*again["experiments"]] == ["mine", "mine-2"]
    assert again["experiments"]["mine-2"]["n_clusters"] == 9


# Its folder


def test_runs_are_numbered(tmp_path: Path) -> None:
    first = begin(tmp_path / "mine", {"mine": None})
    assert find_free(first) == tmp_path / "mine-2"
    second = begin(tmp_path / "mine-2", {"mine": None, "mine-2": "mine"})
    assert find_free(first) == find_free(second) == tmp_path / "mine-3"
    begin(tmp_path / "mine-3", {"mine": None, "mine-2": "mine", "mine-3": "mine-2"})
    assert find_free(first) == tmp_path / "mine-4"


def test_a_number_of_its_own_is_no_count(tmp_path: Path) -> None:
    assert find_free(begin(tmp_path / "trip-2019", {"trip-2019": None})).name == "trip-2019-2"


def test_what_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    first = begin(tmp_path / "mine", {"mine": None})
    begin(tmp_path / "mine-2", {"mine": None, "mine-2": "mine"}, is_finished=False)
    assert find_free(first).name == "mine-2"
    begin(tmp_path / "mine-2", {"mine": None, "mine-2": "other"}, is_finished=False)
    assert find_free(first).name == "mine-3"
    (tmp_path / "mine-3").mkdir()
    assert find_free(first).name == "mine-3"
    (tmp_path / "mine-3" / "thesis.tex").touch()
    assert find_free(first).name == "mine-4"


def test_what_was_said_is_handed_on(tmp_path: Path) -> None:
    first, second = tmp_path / "mine", tmp_path / "mine-2"
    for folder in (first, second):
        folder.mkdir()
    hand_on(first, second)
    assert not [*second.iterdir()]
    marks = open_run(first, make_run())
    marks.name_cluster(0, "dog")
    hand_on(first, second)
    assert open_run(second, make_run("1110002222")).state.names == {1: "dog"}
    marks.name_cluster(1, "cat")
    hand_on(first, second)
    later = open_run(second, make_run("1110002222"))
    assert later.state.names == {0: "cat", 1: "dog"}
    later.mark_wrong([0])
    with pytest.raises(ValueError, match=r"mine-2 has marks of its own; choose another --output"):
        hand_on(first, second)


# What is told


def test_a_run_of_the_command_is_continued_by_it(tmp_path: Path) -> None:
    folder = begin(tmp_path / "my photos", {"my photos": None})
    state = open_run(folder, make_run()).state
    assert describe_again(folder, state) == f"unic again '{folder}'"


@pytest.mark.parametrize("task", ["clustering", "gcd"])
def test_another_run_is_told_what_its_configuration_needs(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "results" / "digits"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"task": task}))
    marks = open_run(folder, make_run())
    marks.mark_images([0], "dog")
    told = describe_again(folder, marks.split_cluster(2, np.array([0, 0, 1, 1])))
    text, _, command = told.partition("\n\n")
    entry = {
        "base": "digits",
        "n_clusters": 4,
        "data": {"known_labels": [str(folder / "labels.csv")]},
    }
    assert yaml.safe_load(text) == {
        "experiments": {"digits-2": entry | ({"gcd": None} if task == "gcd" else {})}
    }
    assert command.endswith("-- results/digits-2/metrics.json")


# Refusals


def test_refuses_a_folder_that_was_renamed(tmp_path: Path) -> None:
    folder = begin(tmp_path / "yours", {"mine": None})
    with pytest.raises(ValueError, match=re.escape("must have the experiment yours")):
        read_entry(folder)
    assert read_entry(tmp_path) is None
