"""The plan of a run, told before anything is computed: what, how, why, how long, how much."""

import io
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import NamedTuple

import numpy as np
import torch

from unic.features.extraction import embed_images
from unic.features.frozen import FrozenBackbone
from unic.images.images import FileImages
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.models.pretrained import Pretrained
from unic.neighbors.automatic import AUTO, choose_far_rank, choose_n_neighbors
from unic.photos.request import EFFORTS, N_VIEWS, QUICK, STANDARD, Found, Request, count_epochs
from unic.photos.room import find_free
from unic.runtime.devices import choose_device

_N_SAMPLED = 72  # images that the plan decodes and embeds to know how long all take
_N_WARM = 8  # of these first, which are not timed
_BATCH_SIZE = 32
_MEASURED, _EMBEDDED = 0.5, 1.5  # seconds for which the processor, and embedding, are tried
_REFERENCE = 0.0085  # seconds of `_measure_processor` where the times below were measured
_VIEW_SHARE = 0.7  # of an image's time in the network, of a cached view of it
_BLOCK_SHARE = 0.07  # of an image's time in the network, where its last block is trained
_STEP = 3e-4  # seconds of a view in a step of the training, whatever the network
_KMEANS = 1.7e-8  # seconds of k-means for an image, a cluster and a dim, ten starts in all
_START = 9.0  # seconds until the first job runs, and between jobs
_MAX_SAMPLE = 10_000  # images on which the recipe seeks partitions


class Speed(NamedTuple):
    """What this machine takes, measured on some of the images."""

    decode: float  # seconds an image, one thread
    embed: float  # seconds an image, decoding included, all threads
    n_dims: int
    processor: float  # times as slow as where the recipe was measured
    device: str  # and the engine, where the backbone was tried
    n_unreadable: int  # of the sampled images
    n_sampled: int


class Plan(NamedTuple):
    """What is going to be done, in words and numbers."""

    lines: list[tuple[str, str]]  # what, and how and why
    seconds: dict[str, float]  # stage to what it is expected to take
    n_bytes: int  # of disk that are needed

    @property
    def total(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())


def measure_speed(
    request: Request, found: Found, backbone: Pretrained, *, has_features: bool = False
) -> Speed:
    """Decode and embed a few of the images, spread over all.

    Args:
        request: What is asked.
        found: The images.
        backbone: That embeds them.
        has_features: Whether an earlier run has embedded all of them, so that nothing need be
            measured.

    Raises:
        ValueError: If none of them can be read, or the backbone cannot be made.
        FileNotFoundError: If its weights are missing.
    """
    if has_features:
        return measure_without_images(request.device)
    device = choose_device(request.device)
    torch.set_num_threads(1)
    processor = _measure_processor() / _REFERENCE
    ids = found.ids["train"]
    rows = np.unique(np.linspace(0, len(ids) - 1, min(_N_SAMPLED, len(ids))).astype(int))
    images = FileImages([ids[row] for row in rows], str(request.photos.absolute()))
    start = time.perf_counter()
    faults = [images.find_fault(row) for row in range(len(images))]
    decode = (time.perf_counter() - start) / len(images)
    good = [image_id for image_id, fault in zip(images.ids, faults, strict=True) if fault is None]
    if not good:
        raise ValueError(
            f"images must be readable, none of {len(images)} that were tried is; the first: "
            f"{faults[0]}"
        )
    view = View(backbone.image_size, backbone.crop_pct, backbone.mean, backbone.std)
    network = load_backbone(
        backbone.name,
        weights=backbone.weights,
        options=backbone.options,
        image_size=backbone.image_size,
    )
    torch.set_num_threads(request.cores)
    frozen = FrozenBackbone.choose(
        network,
        AUTO,
        n_images=sum(map(len, found.ids.values())),
        precision=torch.float32,
        device=device,
        only_features=True,
    )

    def embed(chosen: list[str]) -> None:
        with redirect_stderr(io.StringIO()):  # no terminal, so no display of progress
            embed_images(
                FileImages(chosen, images.root),
                frozen,
                view,
                batch_size=_BATCH_SIZE,
                n_workers=request.cores,
            )

    embed(good[:_N_WARM])
    timed = good[_N_WARM:] or good
    return Speed(
        decode,
        _measure(lambda: embed(timed), _EMBEDDED) / len(timed),
        network.n_dims,
        processor,
        f"{device}, {frozen.engine.describe()}",
        sum(fault is not None for fault in faults),
        len(images),
    )


def measure_without_images(device: str) -> Speed:
    """The speed where all images are embedded already.

    Args:
        device: As it was asked for.
    """
    torch.set_num_threads(1)
    processor = _measure_processor() / _REFERENCE
    return Speed(0.0, 0.0, 0, processor, str(choose_device(device)), 0, 0)


def make_plan(request: Request, found: Found, backbone: Pretrained, speed: Speed) -> Plan:
    """Put the plan together."""
    n_images = len(found.ids["train"])
    n_all = sum(map(len, found.ids.values()))
    seconds = estimate_seconds(request, n_images, n_all, speed)
    n_neighbors = choose_n_neighbors(AUTO, n_images)
    n_bytes = n_all * (4 * speed.n_dims + 20 * n_neighbors + 1300 * len(request.seeds))
    n_bytes += 300_000 * _guess_n_clusters(request.n_clusters, n_images)
    lines = [
        ("images", _tell_images(request, found, speed)),
        ("labels", _tell_labels(found)),
        ("clusters", _tell_n_clusters(request, found)),
        ("backbone", _tell_backbone(backbone, speed)),
        (
            "images are",
            f"resized, cropped to {backbone.image_size} px (crop {backbone.crop_pct:g}), less "
            f"{_list(backbone.mean)}, over {_list(backbone.std)}",
        ),
        ("device", f"{speed.device}, {request.cores} cores{_tell_gpu(speed, seconds)}"),
        (
            "neighbors",
            f"{n_neighbors} of each image by cosine (a fifth of the root of {n_images:,}, in 10 to "
            f"50); far from rank {choose_far_rank(AUTO, n_images):,} on (half of them)",
        ),
        (
            "clustering",
            f"{request.effort}: {EFFORTS[request.effort]}; {_count(len(request.seeds), 'seed')}",
        ),
        (
            "disk",
            f"{n_bytes / 1e6:,.0f} MB, {find_free(request.base) / 1e9:,.1f} GB are free",
        ),
        ("time", format_seconds(sum(seconds.values())) + " expected: " + _tell_seconds(seconds)),
    ]
    return Plan(lines, seconds, n_bytes)


def estimate_seconds(request: Request, n_images: int, n_all: int, speed: Speed) -> dict[str, float]:
    """What each stage is expected to take, from what was measured here, and in docs/log.md."""
    cores = max(1, request.cores)
    n_clusters = _guess_n_clusters(request.n_clusters, n_images)
    sampled = min(n_images, _MAX_SAMPLE)
    recipe = 0.4 + 1.1e-3 * sampled + 1.8e-5 * sampled * n_clusters + 4e-4 * (n_images - sampled)
    mining = 4e-13 * n_images**2 * speed.n_dims / cores
    seconds = {
        "start": _START * speed.processor,
        "checking images": n_all * speed.decode / cores,
        "features": n_all * speed.embed,
        "neighbors": (1.0 + mining) * speed.processor,
        "clusters": recipe * speed.processor * math.ceil(len(request.seeds) / cores),
        "report": (1.5 + 0.06 * n_clusters) * speed.processor,
    }
    if request.effort != QUICK:
        seconds |= _estimate_training(request, n_images, n_all, speed)
    if request.n_clusters == AUTO:
        seconds["number of clusters"] = (0.5 + 4.3e-3 * min(sampled, 6000)) * speed.processor
    return seconds


def _estimate_training(
    request: Request, n_images: int, n_all: int, speed: Speed
) -> dict[str, float]:
    """What the training that follows the recipe is expected to take, and what follows it."""
    n_seeds = len(request.seeds)
    n_seen = 2 * n_images * count_epochs(request.effort, n_images) * n_seeds
    view = _STEP * speed.processor + _BLOCK_SHARE * speed.embed  # forward and backward
    if request.effort != STANDARD:
        view += speed.embed
    size = n_images * _guess_n_clusters(request.n_clusters, n_images) * speed.n_dims
    seconds = {
        "training": n_seen * view + 2.0 * n_seeds * speed.processor,
        "predicting": n_all * speed.embed * n_seeds,
        "k-means": 2 * n_seeds * (0.7 + _KMEANS * size) * speed.processor,  # to compare with
    }
    if request.effort == STANDARD:
        seconds["views"] = N_VIEWS * n_images * _VIEW_SHARE * speed.embed
    return seconds


def format_seconds(seconds: float) -> str:
    """A time as people say it.

    Example:
        >>> format_seconds(44), format_seconds(400), format_seconds(9000)
        ('44 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _measure_processor() -> float:
    """Seconds of a small piece of work like the recipe's: products, exponentials, counts."""
    rows = torch.rand(4096, 256, generator=torch.Generator().manual_seed(0))
    counts = np.arange(200_000) * 7919 % 5000

    def work() -> None:
        (rows @ rows[:200].T).softmax(1).sum()
        np.bincount(counts, minlength=5000)
        np.sort(counts)

    work()
    return _measure(work, _MEASURED)


def _measure(work: Callable[[], None], least: float) -> float:
    """Seconds of a piece of work, done again for at least so many: the median, not the best.

    Other work on the machine slows the run as well, and does so by fits and starts.
    """
    times: list[float] = []
    while sum(times) < least:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _tell_images(request: Request, found: Found, speed: Speed) -> str:
    told = f"{len(found.ids['train']):,} in {request.photos}"
    if "test" in found.ids:
        told += f" (train), {len(found.ids['test']):,} further ones get clusters too"
    if found.n_others:
        others = ", ".join(f"{count:,} {suffix}" for suffix, count in [*found.n_others.items()][:4])
        told += f"; left out as no images: {others}"
    if speed.n_unreadable:
        told += (
            f"; {speed.n_unreadable} of {speed.n_sampled} that were tried cannot be read: such "
            "images are left out and listed"
        )
    return told


def _tell_backbone(backbone: Pretrained, speed: Speed) -> str:
    told = f"{backbone.name} ({backbone.weights}); {backbone.why}"
    return told + (f"; {speed.n_dims} dims" if speed.n_dims else "; features are there already")


def _tell_labels(found: Found) -> str:
    if not found.n_labeled:
        return "none"
    classes = found.labeled_classes
    names = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    return f"{found.n_labeled:,} images of {_count(len(classes), 'class')} ({names})"


def _tell_n_clusters(request: Request, found: Found) -> str:
    if request.n_clusters == AUTO:
        return "their number is estimated from the features (-k sets it)"
    named = len(found.labeled_classes)
    return f"{request.n_clusters}" + (f", {named} of them named by labels" if named else "")


def _tell_gpu(speed: Speed, seconds: dict[str, float]) -> str:
    if not speed.device.startswith("cpu"):
        return ""
    share = seconds["features"] / sum(seconds.values())
    if share < 0.3:
        return "; a GPU would change little"
    return f"; a GPU would take most of the {format_seconds(seconds['features'])} of features"


def _tell_seconds(seconds: dict[str, float]) -> str:
    order = sorted(seconds.items(), key=lambda item: -item[1])
    return ", ".join(f"{stage} {format_seconds(each)}" for stage, each in order if each >= 0.5)


def _guess_n_clusters(n_clusters: int | str, n_images: int) -> int:
    """K, or for ``auto`` a number of its order, for times and sizes alone."""
    return n_clusters if isinstance(n_clusters, int) else min(n_images, 30)


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _list(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
