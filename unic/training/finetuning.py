"""The training engine: last block and head learn clusters from neighbors (Eqs. 5-9)."""

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from unic.features.sources import TrunkSource
from unic.models.backbones import Backbone
from unic.models.heads import Head, Projector, is_centered
from unic.models.trained import Model
from unic.runtime.processes import ALONE, Processes
from unic.training.checkpoint import Checkpoint
from unic.training.epochs import Epochs, Kept
from unic.training.pairs import Pairs
from unic.training.snapshots import Snapshots
from unic.training.step import FinetuningSettings, Trainer

logger = logging.getLogger(__name__)

TERMS = ("loss", "loss_pos", "loss_neg", "loss_ent", "loss_con")


def finetune(
    backbone: Backbone,
    heads: Sequence[Head],
    source: TrunkSource,
    pairs: Pairs,
    settings: FinetuningSettings,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
    snapshots: Snapshots | None = None,
    processes: Processes = ALONE,
) -> pd.DataFrame:
    """Train backbone and heads in place by Eq. 9.

    ``lambda_pos L_pos + lambda_neg L_neg + lambda_ent L_ent`` is minimized by Adam, the learning
    rate falling to 0 along a cosine over all steps. No label is read but those that GCD gives,
    and the last epoch is kept. The frozen trunk sees the views of a batch in one pass that keeps
    no graph, or its outputs come from a cache; the losses are in float32. With ``lambda_con`` the
    ablation's contrastive loss (A.9) is added: SupCon of anchors and their positives on a
    projection that is trained along and thrown away.

    Several heads learn side by side from the same batches, and the sum of their losses is
    minimized. The objective has many minima; the head whose loss is lowest in the last epoch is
    the one to keep, for which no label is needed.

    Args:
        backbone: Cut backbone; ``settings.trainable`` says what of it is trained.
        heads: From features or tokens to logits, all of one kind.
        source: What the trunk gives for views of the training images.
        pairs: Draws positives and negatives.
        settings: See :class:`unic.training.step.FinetuningSettings`.
        seed: Of the order, the pairs and the views.
        device: Where to train.
        checkpoint: Where the state is kept after each epoch; a training that was stopped goes on
            from there, to the same weights.
        snapshots: Where the model is kept every few epochs; those of an earlier training are
            removed.
        processes: This process and those that train along with it; all give the same arguments.

    Returns:
        A row per epoch: ``epoch, step, loss, loss_pos, loss_neg, loss_ent, loss_con, entropy,
        used_clusters, learning_rate, images_per_second, head``. ``head`` is that of the lowest
        loss, and losses, entropy and clusters are its. Losses are means over the epoch, all
        of them at least 0. ``used_clusters`` counts the clusters that are the first choice of an
        anchor, ``step`` those of the optimizer.

    Raises:
        FloatingPointError: If the loss is no longer finite.
        ValueError: If a setting is out of its range, or all of the backbone is to be trained on
            cached outputs of its trunk.
    """
    _check_settings(settings, source, reads_tokens=heads[0].reads_tokens)
    generator = np.random.default_rng(seed)
    backbone.to(device).set_trainable(settings.trainable, final_norm=settings.train_final_norm)
    for head in heads:
        head.to(device)
    n_batches = pairs.count_batches(settings.batch_size)
    projector = None
    if settings.lambda_con:
        weights = torch.Generator().manual_seed(seed)
        projector = Projector(backbone.n_dims, generator=weights).to(device)
    trainer = Trainer(backbone, heads, settings, n_batches, processes, projector)
    is_first = processes.rank == 0
    epochs = Epochs(
        settings.epochs,
        title=f"seed {seed}",
        rate_setting="finetuning.learning_rate",
        kept=None if checkpoint is None else Kept(checkpoint, trainer, generator, is_first),
        is_shown=is_first,
    )
    if snapshots is not None and is_first and not epochs.history:
        snapshots.clear()
    for epoch in epochs:
        started, rate = time.perf_counter(), trainer.rate
        batches = pairs.draw_epoch(settings.batch_size, generator)
        positions = processes.positions(*batches[0].shape)
        used = torch.zeros(len(heads), heads[0].n_clusters, dtype=torch.bool, device=device)
        terms = []
        outputs = source.batches(batches, generator, positions=positions)
        for rows, output in zip(batches, outputs, strict=True):
            predictions, losses = trainer.train(output, len(rows), pairs.find_far(rows[0]))
            used.scatter_(1, predictions, True)
            terms.append(losses)
        trainer.step()
        means = torch.stack(terms).mean(0)  # (h, 5)
        best = int(means[:, 0].argmin())
        losses_of_best, used_by_best = means[best].tolist(), used[best]
        row = {
            "epoch": epoch + 1,
            "step": trainer.n_steps,
            **dict(zip(TERMS, losses_of_best, strict=True)),
            "entropy": math.log(len(used_by_best)) - losses_of_best[3],
            "used_clusters": int(used_by_best.sum()),
            "learning_rate": rate,
            "images_per_second": sum(r.size for r in batches) / (time.perf_counter() - started),
            "head": best,
        }
        epochs.add(row)
        is_risky = settings.entropy_momentum > 0 and not is_centered(heads[0])
        _log_epoch(row, len(used_by_best), is_risky=is_risky)
        if snapshots is not None and is_first:
            snapshots.save(Model(backbone, heads[best]), epoch + 1)
    return epochs.table()


def _check_settings(
    settings: FinetuningSettings, source: TrunkSource, *, reads_tokens: bool
) -> None:
    if settings.schedule not in ("cosine", "constant"):
        raise ValueError(f"schedule must be cosine or constant, got {settings.schedule}")
    if settings.accumulation < 1:
        raise ValueError(f"accumulation must be at least 1, got {settings.accumulation}")
    if not 0 <= settings.entropy_momentum < 1:
        raise ValueError(
            f"entropy_momentum must be at least 0 and below 1, got {settings.entropy_momentum}"
        )
    if settings.lambda_con and reads_tokens:
        raise ValueError("lambda_con must be 0 with a head that reads all tokens")
    if settings.trainable == "all" and not source.has_gradient:
        raise ValueError("trainable must be null or last_block with cached views, got all")


def _log_epoch(row: dict[str, float], n_clusters: int, *, is_risky: bool) -> None:
    logger.info(
        "epoch %(epoch)d loss %(loss).4f pos %(loss_pos).4f neg %(loss_neg).4f ent %(loss_ent).4f",
        row,
    )
    if row["used_clusters"] < n_clusters / 2:
        logger.warning(
            "only %d of %d clusters are used after epoch %d: the clustering may collapse%s",
            row["used_clusters"],
            n_clusters,
            row["epoch"],
            "; entropy_momentum needs features that are centered (head_norm)" if is_risky else "",
        )
