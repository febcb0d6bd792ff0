"""A run continued by what was said of it: the same images, with labels."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unic.steering.marks import JOURNAL, LABELS, State
from unic.storage.files import read_json, whole_file

ENTRY = "experiment.json"  # the configuration, of runs of `unic cluster` and `unic again`
KNOWN = "known_labels.csv"  # what the run was told
_ENDS = ("metrics.json", "predictions.csv", "quality.json")  # a run is finished with

Entry = Mapping[str, Any]


def describe_again(folder: Path, state: State) -> str:
    """What somebody types to cluster the images again by what they have said.

    Args:
        folder: ``results/NAME``, as it is called where they stand.
        state: What was said.

    Returns:
        A command; for a run that a configuration of the user's own describes, what to add to it,
        and then the command.
    """
    if read_entry(folder) is not None:
        return f"unic again {shlex.quote(str(folder))}"
    name, again = folder.resolve().name, find_free(folder).name
    settings = {"base": name, "n_clusters": state.n_clusters}
    lines = ["experiments:", f"  {again}:", *(f"    {k}: {v}" for k, v in settings.items())]
    if read_json(folder / "metrics.json")["task"] == "gcd":
        lines.append("    gcd: null")  # its labels are among those of the file
    if state.labels:
        lines += ["    data:", f"      known_labels: [{json.dumps(str(folder / LABELS))}]"]
    command = f"snakemake --cores 8 --configfile again.yaml -- results/{again}/metrics.json"
    return "\n".join(["# again.yaml", *lines, "", command])


def read_entry(folder: Path) -> Entry | None:
    """The configuration that ``unic cluster`` or ``unic again`` wrote; None where neither did.

    Raises:
        ValueError: If it is damaged, or not of this folder.
    """
    path = folder / ENTRY
    if not path.is_file():
        return None
    entry = read_json(path)
    name = folder.resolve().name
    if name not in entry.get("experiments", {}):
        raise ValueError(f"{path} must have the experiment {name}, was the folder renamed?")
    return entry


def find_base(entry: Entry, name: str) -> str | None:
    """The run that another one continues; None of a first one."""
    base: str | None = entry["experiments"][name].get("base")
    return base


def first_settings(entry: Entry, name: str) -> dict[str, Any]:
    """The settings of the run that all began with."""
    while (base := find_base(entry, name)) is not None:
        name = base
    settings: dict[str, Any] = entry["experiments"][name]
    return settings


def continue_entry(
    entry: Entry, name: str, again: str, *, n_clusters: int | str, known: Path | None
) -> dict[str, Any]:
    """The configuration of the next run: all before it, and what differs.

    Runs that agree in what a stage depends on share its result, in the folder of the first of
    them, so that features and neighbors stay where they are.

    Args:
        entry: That of the run before.
        name: Of the run before.
        again: Of the next run.
        n_clusters: K, or ``auto``.
        known: File of the labels; None where there is none.
    """
    before = {key: value for key, value in entry["experiments"].items() if key != again}
    files = [] if known is None else [str(known.absolute())]
    settings = {"base": name, "n_clusters": n_clusters, "data": {"known_labels": files}}
    return {"experiments": before | {again: settings}}


def find_free(folder: Path) -> Path:
    """The folder of the next run: ``NAME-2``, then ``NAME-3``, of which none is taken.

    One that was begun from the same run and has not come to its end is gone on with.
    """
    name = folder.resolve().name
    stem, number = name, 2
    numbered = re.fullmatch(r"(.+)-(\d+)", name)
    entry = read_entry(folder)
    if numbered and entry is not None and find_base(entry, name) is not None:
        stem, number = numbered[1], int(numbered[2]) + 1
    while True:
        place = folder.with_name(f"{stem}-{number}")
        if not place.is_dir() or _is_begun(place, name) or not any(place.iterdir()):
            return place
        number += 1


def hand_on(folder: Path, target: Path) -> None:
    """Give the next run the journal, so that what was said is known there, too.

    Raises:
        ValueError: If things were said of the next run already which are no part of it.
    """
    if not (folder / JOURNAL).is_file():
        return
    said, there = (folder / JOURNAL).read_bytes(), target / JOURNAL
    if there.is_file() and not said.startswith(there.read_bytes()):
        raise ValueError(f"{target} has marks of its own; choose another --output")
    with whole_file(there) as temporary:
        temporary.write_bytes(said)


def _is_begun(folder: Path, name: str) -> bool:
    """Whether a run was begun that continues another one, and has no end."""
    path = folder / ENTRY
    if not path.is_file() or all((folder / end).is_file() for end in _ENDS):
        return False
    entry = read_entry(folder)
    return entry is not None and find_base(entry, folder.name) == name
