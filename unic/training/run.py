"""A run of the finetuning: from the files of the stages before it to a model and its history."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from unic.features.sources import TrunkSource
from unic.models.backbones import Backbone
from unic.models.heads import FITTED_NORMS, fit_norms
from unic.models.trained import Model, ModelDescription, make_backbone, make_heads, save_model
from unic.runtime.devices import choose_device
from unic.runtime.jobs import limit_threads
from unic.runtime.memory import keep_freed_memory
from unic.runtime.processes import Processes
from unic.storage.digests import json_digest
from unic.storage.files import write_csv
from unic.storage.prediction_tables import read_clusters
from unic.storage.resumption import resumption_key
from unic.training.checkpoint import Checkpoint
from unic.training.finetuning import finetune
from unic.training.inputs import PairInputs, ViewInputs
from unic.training.snapshots import Snapshots
from unic.training.starting import learn_clusters
from unic.training.step import FinetuningSettings


@dataclass(frozen=True)
class FinetuningRun:
    """What a run reads and writes, and its settings.

    Args:
        views: What is trained on.
        pairs: Positives and negatives.
        model: What the model is made of.
        start: Table of clusters of the training images that heads start from; None
            leaves them random.
        weights: Of the backbone, see :func:`unic.models.backbones.load_backbone`.
        network: Of a checkpoint that holds several.
        n_heads: That learn side by side.
        settings: Of the training.
        snapshot_every: Epochs between two snapshots, None for none; those of an
            earlier training are removed.
        inputs: All files that are read.
        digest: Of all that the result depends on beside these files, the code too.
        model_file: Is written.
        history_file: Is written.
        seed: Of the head, the order, the pairs and the views.
        device: ``auto``, ``cpu`` or ``cuda``.
        engine: ``auto``, ``torch`` or ``openvino``, of a trunk that is not trained.
        threads: Of all processes together.
    """

    views: ViewInputs
    pairs: PairInputs
    model: ModelDescription
    start: str | None
    weights: str
    network: str
    n_heads: int
    settings: FinetuningSettings
    snapshot_every: int | None
    inputs: tuple[str, ...]
    digest: str
    model_file: str
    history_file: str
    seed: int
    device: str
    engine: str
    threads: int

    @property
    def checkpoint(self) -> str:
        """File of the state after the latest epoch, until the end of the run."""
        return f"{self.model_file}.checkpoint"

    @property
    def snapshots(self) -> str:
        """Folder of the snapshots."""
        return f"{self.model_file}.snapshots"

    @classmethod
    def parse(
        cls,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        params: Mapping[str, Any],
        *,
        seed: int,
        device: str,
        engine: str,
        threads: int,
    ) -> Self:
        """Take a run from the files and parameters of a rule, by the names they have there."""
        return cls(
            views=ViewInputs.parse(inputs, params),
            pairs=PairInputs.parse(inputs, params),
            model=ModelDescription(**params["model"]),
            start=inputs.get("start"),
            weights=inputs.get("backbone", params["weights"]),
            network=params["network"],
            n_heads=params["n_heads"],
            settings=FinetuningSettings(**params["finetuning"]),
            snapshot_every=params["snapshot_every"],
            inputs=tuple(inputs.values()),
            digest=json_digest(params),
            model_file=outputs["model"],
            history_file=outputs["history"],
            seed=seed,
            device=device,
            engine=engine,
            threads=threads,
        )


def train(run: FinetuningRun, processes: Processes) -> None:
    """Carry a run out, together with the other processes that were given the same one.

    A run that was stopped goes on from its checkpoint. The first process writes.

    Raises:
        ValueError: If the inputs are of different images, or do not fit the backbone.
        OSError: If one cannot be read.
    """
    threads = max(1, run.threads // processes.size)
    limit_threads(threads)
    keep_freed_memory()
    device = processes.place(choose_device(run.device))
    trainable = run.settings.trainable
    backbone = make_backbone(
        run.model, weights=run.weights, network=run.network, is_frozen=trainable is None
    )
    heads = make_heads(run.model, backbone, seed=run.seed, n_heads=run.n_heads)
    if run.model.head_norm in FITTED_NORMS:
        fit_norms(heads, run.pairs.open_features().read("features"))
    if run.start is not None:
        features = run.pairs.open_features()
        clusters = read_clusters(run.start, features.read_image_ids())
        learn_clusters(heads, features.read("features"), clusters, seed=run.seed, device=device)
    pairs = run.pairs.open(device=device)
    source = run.views.open(
        backbone,
        device=device,
        n_workers=threads,
        has_gradient=trainable == "all",
        engine=run.engine,
        n_epochs=run.settings.epochs,
    )
    checkpoint = Checkpoint(run.checkpoint, key=_key(run, backbone, source))
    history = finetune(
        backbone,
        heads,
        source,
        pairs,
        run.settings,
        seed=run.seed,
        device=device,
        checkpoint=checkpoint,
        snapshots=Snapshots(run.snapshots, every=run.snapshot_every, description=run.model),
        processes=processes,
    )
    if processes.rank == 0:
        write_csv(run.history_file, history)
        kept = Model(backbone, heads[int(history["head"].iloc[-1])])
        save_model(run.model_file, kept, description=run.model)
        checkpoint.remove()


def _key(run: FinetuningRun, backbone: Backbone, source: TrunkSource) -> str:
    return resumption_key(
        {"run": run.digest, "seed": run.seed},
        files=run.inputs,
        images=source.images,
        network=backbone.model,
    )
