"""A run of the finetuning: from the files of the stages before it to a model and its history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unic.features.sources import Views, images_of, open_views
from unic.models.backbones import Backbone
from unic.models.heads import FITTED_NORMS, Head, fit_norms
from unic.models.trained import Model, make_backbone, make_heads, save_model
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.metric import to_euclidean
from unic.neighbors.negatives import PoolSettings
from unic.runtime.devices import choose_device
from unic.runtime.jobs import limit_threads
from unic.runtime.processes import Processes
from unic.storage.files import write_csv
from unic.storage.resumption import resumption_key
from unic.storage.stores import Store, check_same_images, open_store
from unic.training.checkpoint import Checkpoint
from unic.training.finetuning import finetune
from unic.training.inputs import open_negatives
from unic.training.pairs import NegativeSampler, Pairs, PositiveSampler
from unic.training.snapshots import Snapshots
from unic.training.step import FinetuningSettings


@dataclass(frozen=True)
class FinetuningRun:
    """What a run reads and writes, and its settings.

    Args:
        inputs: Files by name: ``images``, ``positives``, ``known_labels``; ``negatives``, or
            ``features`` and ``neighbors`` for those drawn anew or within the batch; ``features``
            also for heads that center or standardize them; ``tokens`` for cached views, ``frozen``
            for features in place of views; ``decoded`` for decoded images; ``backbone`` where its
            weights are a file.
        outputs: Files by name: ``model``, ``history``.
        checkpoint: File that is kept between the start of the run and its end.
        snapshots: Folder of the snapshots that ``params["snapshot_every"]`` asks for, or None;
            those of an earlier training are removed from it.
        params: ``data``, ``root``, ``view``, ``augmentation``, ``negatives``,
            ``pool``, ``weights``, ``network``, ``model``, ``n_heads``, ``finetuning``,
            ``snapshot_every``, and what else the result depends on.
        seed: Of the head, the order, the pairs and the views.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: Of all processes together.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    checkpoint: str
    snapshots: str
    params: Mapping[str, Any]
    seed: int
    device: str
    threads: int


def train(run: FinetuningRun, processes: Processes) -> None:
    """Carry a run out, together with the other processes that were given the same one.

    A run that was stopped goes on from its checkpoint. The first process writes.

    Raises:
        ValueError: If the inputs are of different images, or do not fit the backbone.
        OSError: If one cannot be read.
    """
    threads = max(1, run.threads // processes.size)
    limit_threads(threads)
    device = processes.place(choose_device(run.device))
    positives, known = _open(run, "positives"), _open(run, "known_labels")
    check_same_images(positives, known)
    params = run.params
    weights = run.inputs.get("backbone", params["weights"])
    settings = FinetuningSettings(**params["finetuning"])
    backbone = make_backbone(
        params["model"],
        weights=weights,
        network=params["network"],
        is_frozen=settings.trainable is None,
    )
    heads = make_heads(params["model"], backbone, seed=run.seed, n_heads=params["n_heads"])
    _fit_norms(heads, run, known)
    known_labels = known.read("known_labels")
    negatives = _open_negatives(run, known, device)
    sampler = PositiveSampler(positives.read("indices"), known_labels)
    views = open_views(run.inputs, params, backbone, device=device, n_workers=threads)
    checkpoint = Checkpoint(run.checkpoint, key=_key(run, backbone, views))
    history = finetune(
        backbone,
        heads,
        views,
        Pairs(sampler, negatives),
        settings,
        seed=run.seed,
        device=device,
        checkpoint=checkpoint,
        snapshots=Snapshots(
            run.snapshots, every=params["snapshot_every"], description=params["model"]
        ),
        processes=processes,
    )
    if processes.rank == 0:
        write_csv(run.outputs["history"], history)
        kept = Model(backbone, heads[int(history["head"].iloc[-1])])
        save_model(run.outputs["model"], kept, description=params["model"])
        checkpoint.remove()


def _open(run: FinetuningRun, kind: str) -> Store:
    return open_store(run.inputs[kind], kind=kind)


def _fit_norms(heads: Sequence[Head], run: FinetuningRun, known: Store) -> None:
    """Give heads the statistics of the features that were mined, where they take any."""
    if run.params["model"]["head_norm"] not in FITTED_NORMS:
        return
    features = _open(run, "features")
    check_same_images(features, known)
    fit_norms(heads, features.read("features"))


def _open_negatives(
    run: FinetuningRun, known: Store, device: torch.device
) -> NegativeSampler | FarPairs:
    """What draws negatives, or tells them within a batch."""
    settings = PoolSettings(**run.params["pool"])
    if run.params["negatives"] != "in_batch":
        return open_negatives(run.inputs, known, settings, device=device)
    features, neighbors = _open(run, "features"), _open(run, "neighbors")
    check_same_images(features, neighbors, known)
    metric = neighbors.attributes["parameters"]["metric"]
    return FarPairs(
        to_euclidean(features.read("features"), metric),
        neighbors.read("far_radius"),
        known_labels=known.read("known_labels"),
        exclude_known_same_label=settings.exclude_known_same_label,
        device=device,
    )


def _key(run: FinetuningRun, backbone: Backbone, views: Views) -> str:
    return resumption_key(
        {"params": dict(run.params), "seed": run.seed},
        files=run.inputs.values(),
        images=images_of(views),
        network=backbone.model,
    )
