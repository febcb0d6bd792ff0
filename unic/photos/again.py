"""The command ``unic again``: the same images, by what somebody has said of their clusters."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unic.evaluation.metrics import match_clusters
from unic.photos.command import TARGETS, Run, RunError, tell_end
from unic.photos.outcome import describe_outcome
from unic.photos.plan import count_cores, estimate_seconds, format_seconds, measure_without_images
from unic.photos.request import (
    QUICK,
    STANDARD,
    THOROUGH,
    Request,
    check_n_clusters,
    check_name,
    format_yaml,
)
from unic.photos.running import alone
from unic.steering.continuation import (
    KNOWN,
    continue_entry,
    describe_again,
    find_base,
    find_free,
    first_settings,
    hand_on,
    read_entry,
)
from unic.steering.marks import State
from unic.steering.opening import open_marks, read_table
from unic.storage.files import read_json


def again(options: argparse.Namespace) -> int:
    """Cluster the images of a run again, with what was said of it as labels.

    Args:
        options: Of the command line, see :mod:`unic.cli`.

    Returns:
        0, also where it only tells what to type; 1 where a stage failed; 130 after Ctrl-C.

    Raises:
        ValueError: If something asked for does not fit; says what.
        OSError: If a file is missing, or the disk is full.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    folder: Path = options.results
    marks = open_marks(folder)
    entry = read_entry(folder)
    if entry is None:
        print(describe_again(folder, marks.state))
        return 0
    output = options.output or find_free(folder)
    n_clusters = options.n_clusters or marks.state.n_clusters
    _check(folder, output, marks.state, n_clusters)
    known = output / KNOWN if marks.state.labels else None
    name = folder.resolve().name
    continued = continue_entry(entry, name, output.name, n_clusters=n_clusters, known=known)
    settings = first_settings(entry, name)
    request = _make_request(settings, output, n_clusters, options.cores or count_cores())
    expected = _estimate(request, len(marks.state.clusters))
    print(_tell_plan(folder, request, marks.state, expected), flush=True)
    if options.plan:
        print(f"\n{format_yaml(continued)}")
        return 0
    try:
        with alone(output):
            hand_on(folder, output)
            if known is not None:
                marks.write_labels(known)
            Run(request.cores, options.profile, expected).reach(output, continued, TARGETS)
    except RunError as error:
        return tell_end(error.status)
    print(describe_outcome(output))
    print(f"  before      {folder}: {_count_moved(folder, output):,} images have moved since")
    return 0


def _check(folder: Path, output: Path, state: State, n_clusters: int | str) -> None:
    """Refuse what does not fit."""
    n_labeled = len(set(state.labels.values()))
    check_n_clusters(n_clusters, n_images=len(state.clusters), n_labeled=n_labeled)
    before = read_json(folder / "metrics.json")["n_clusters"]
    if not state.labels and n_clusters == before:
        raise ValueError(
            f"{folder} must have marks, or -k be another number than {before}, got neither: all "
            "would come out as it is"
        )
    check_name(output.name)
    if output.resolve().parent != folder.resolve().parent or output.resolve() == folder.resolve():
        raise ValueError(f"--output must be a folder beside {folder}, got {output}")
    entry, name = read_entry(output), folder.resolve().name
    is_taken = output.is_dir() and any(output.iterdir())
    if is_taken and (entry is None or find_base(entry, output.name) != name):
        raise ValueError(
            f"--output must be new, or of an earlier run of this command on {folder}, {output} "
            "holds something else; choose another"
        )


def _make_request(
    settings: Mapping[str, Any], output: Path, n_clusters: int | str, cores: int
) -> Request:
    """What is asked, as ``unic cluster`` would have been for the first run of all."""
    effort = QUICK
    if settings["method"] != "consensus":
        effort = THOROUGH if settings["views"]["n_views"] == "fresh" else STANDARD
    return Request(
        photos=Path(settings["data"]["root"]),
        output=output,
        n_clusters=n_clusters,
        known_labels=(output / KNOWN,),
        truth=None,
        effort=effort,
        seeds=tuple(settings["seeds"]),
        device=settings["machine"]["device"],
        cores=cores,
    )


def _estimate(request: Request, n_images: int) -> float:
    """Seconds that it is expected to take."""
    speed = measure_without_images(request.device)
    return sum(estimate_seconds(request, n_images, n_images, speed).values())


def _tell_plan(folder: Path, request: Request, state: State, expected: float) -> str:
    n_classes = len(set(state.labels.values()))
    return (
        f"  {request.output}: {len(state.clusters):,} images of {request.photos} again, with "
        f"{len(state.labels):,} labels of {n_classes} classes, in {request.n_clusters} clusters; "
        f"features and neighbors are there since {folder}; {format_seconds(expected)} expected\n"
    )


def _count_moved(folder: Path, output: Path) -> int:
    """Images that are in another cluster than before, once clusters are paired."""
    before, after = read_table(folder), read_table(output)
    both = before.merge(after, on="path")
    clusters = both["cluster_x"].to_numpy(np.int64), both["cluster_y"].to_numpy(np.int64)
    return int((match_clusters(*clusters)[clusters[1]] != clusters[0]).sum())
