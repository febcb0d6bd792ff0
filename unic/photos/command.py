"""The command ``unic cluster``: check, plan, run, tell."""

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from unic.models.pretrained import Pretrained, find_pretrained
from unic.neighbors.automatic import AUTO
from unic.photos.outcome import COPY, LINK, describe_outcome, sort_images
from unic.photos.plan import Plan, count_cores, make_plan, measure_speed
from unic.photos.request import (
    QUICK,
    Request,
    check_name,
    check_request,
    format_yaml,
    has_features,
    make_entry,
    write_entry,
)
from unic.photos.room import check_room
from unic.photos.running import alone, run_workflow
from unic.runtime.failures import GOES_ON, INTERRUPTED
from unic.steering.continuation import ENTRY
from unic.storage.n_clusters import read_n_clusters

TARGETS = ("metrics.json", "predictions.csv", "quality.json", "model.safetensors")
MAP = "map.zarr/zarr.json"  # which unic explore would make else; a later run takes it over
N_CLUSTERS = "n_clusters.json"  # the estimate of K


def cluster(options: argparse.Namespace) -> int:
    """Cluster a folder of images.

    Args:
        options: Of the command line, see :mod:`unic.cli`.

    Returns:
        0; 1 where a stage failed; 130 after Ctrl-C.

    Raises:
        ValueError: If something asked for does not fit; says what.
        OSError: If a file is missing, or the disk is full.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    request = make_request(options)
    found = check_request(request)
    backbone = find_pretrained(options.backbone)
    n_images = len(found.ids["train"])
    entry = make_entry(request, backbone, n_images=n_images)
    is_embedded = has_features(request, entry)
    speed = measure_speed(request, found, backbone, has_features=is_embedded)
    plan = make_plan(request, found, backbone, speed)
    check_room(request.base, plan.n_bytes)
    print(_format_plan(plan), flush=True)
    if options.plan:
        print(f"\n{format_yaml(entry)}")
        return 0
    run = Run(request.cores, options.profile, plan.total)
    try:
        with alone(request.output):
            print(f"  {'settings':<10}  {request.output / ENTRY}\n", flush=True)
            request = _settle_n_clusters(request, run, backbone, n_images)
            entry = make_entry(request, backbone, n_images=n_images)
            run.reach(request.output, entry, [*TARGETS, MAP])
    except RunError as error:
        return tell_end(error.status)
    print(describe_outcome(request.output))
    for how, target in ((COPY, options.copy_to), (LINK, options.link_to)):
        if target is not None:
            n_images = sort_images(request.output, request.photos, target, how=how)
            print(f"  {how:<10}  {n_images:,} images in {target}")
    return 0


class RunError(Exception):
    """A run that has not reached what it was to make.

    Args:
        status: Of Snakemake, or 130 after Ctrl-C.
    """

    def __init__(self, status: int):
        super().__init__(f"the workflow ended with status {status}")
        self.status = status


class Run(NamedTuple):
    """How the workflow is run."""

    cores: int
    profile: str | None
    expected: float  # seconds

    def reach(self, output: Path, entry: Mapping[str, Any], targets: Sequence[str]) -> None:
        """Write the configuration and run until some files of ``results/NAME`` are there.

        Raises:
            RunError: If they are not.
        """
        path = write_entry(output, entry).absolute()
        status = run_workflow(
            [f"results/{output.name}/{target}" for target in targets],
            base=path.parents[2],
            entry=path,
            cores=self.cores,
            profile=self.profile,
            expected=self.expected,
        )
        if status:
            raise RunError(status)


def make_request(options: argparse.Namespace) -> Request:
    """What the command line asks for.

    Raises:
        ValueError: If the name of the results cannot be one.
    """
    photos: Path = options.photos
    output = options.output or Path("results", _name_of(photos))
    check_name(output.name)
    return Request(
        photos=photos,
        output=output,
        n_clusters=options.n_clusters,
        known_labels=tuple(options.labels),
        truth=options.truth,
        effort=options.effort,
        seeds=tuple(range(options.seeds)),
        device=options.device,
        cores=options.cores or count_cores(),
    )


def _settle_n_clusters(request: Request, run: Run, backbone: Pretrained, n_images: int) -> Request:
    """The request with a number for K where a training needs it, which knows no ``auto``."""
    if request.n_clusters != AUTO or request.effort == QUICK:
        return request
    quick = make_entry(replace(request, effort=QUICK), backbone, n_images=n_images)
    run.reach(request.output, quick, [N_CLUSTERS])
    return replace(request, n_clusters=read_n_clusters(AUTO, request.output / N_CLUSTERS))


def _name_of(photos: Path) -> str:
    """A name for the results, after that of the folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", photos.absolute().name).strip("_-") or "photos"


def _format_plan(plan: Plan) -> str:
    return "\n".join(f"  {what:<10}  {how}" for what, how in plan.lines)


def tell_end(status: int) -> int:
    """Say that a run did not come to its end; gives the status of the command."""
    how = "stopped" if status == INTERRUPTED else "failed"
    print(f"{how}; {GOES_ON}", file=sys.stderr)
    return status if status == INTERRUPTED else 1
