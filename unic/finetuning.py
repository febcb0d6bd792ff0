"""The training engine: last block and head learn clusters from neighbors (Eqs. 5-9)."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from unic.backbones import Backbone, ClusterHead
from unic.cleaning import PositiveSampler
from unic.data.loaders import ViewLoader
from unic.losses import entropy_loss, negative_loss, positive_loss
from unic.negatives import NegativeSampler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinetuningSettings:
    """Settings of :func:`finetune`; the paper's values are the defaults of the configuration."""

    trainable: str  # none, last_block or all
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    lambda_pos: float
    lambda_neg: float
    lambda_ent: float


class Pairs:
    """Anchors with one positive and one negative each, redrawn every epoch.

    Args:
        positives: Draws positives (cleaned neighbors, or labeled images of the same class).
        negatives: Draws negatives, from a stored set or from all far images.
    """

    def __init__(self, positives: PositiveSampler, negatives: NegativeSampler):
        self.positives, self.negatives = positives, negatives

    def draw_epoch(
        self, batch_size: int, generator: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Batches of rows ``[anchors, positives, negatives]``, shape ``(3, b)`` each.

        Every image is an anchor once, in random order; a last batch that is not full is dropped,
        because the entropy of a small batch is far from that of the data set.
        """
        n = self.positives.n_images
        batch_size = min(batch_size, n)
        anchors = generator.permutation(n)[: n - n % batch_size]
        positives = self.positives.sample(anchors, generator)
        negatives = self.negatives.sample(anchors, generator)
        rows = np.stack([anchors, positives, negatives])  # (3, n)
        return np.split(rows, len(anchors) // batch_size, axis=1)


def finetune(
    backbone: Backbone,
    head: ClusterHead,
    loader: ViewLoader,
    pairs: Pairs,
    settings: FinetuningSettings,
    *,
    seed: int,
    device: torch.device,
) -> pd.DataFrame:
    """Train backbone and head in place by Eq. 9.

    ``lambda_pos L_pos + lambda_neg L_neg + lambda_ent L_ent`` is minimized by Adam, the learning
    rate falling to 0 along a cosine over all steps. No label is read but those that GCD gives,
    and the last epoch is kept.

    Args:
        backbone: Cut backbone; ``settings.trainable`` says what of it is trained.
        head: From features to logits.
        loader: Views of the training images.
        pairs: Draws positives and negatives.
        settings: See :class:`FinetuningSettings`.
        seed: Of the order, the pairs and the views.
        device: Where to train.

    Returns:
        A row per epoch: ``epoch, step, loss, loss_pos, loss_neg, loss_ent, entropy,
        used_clusters, learning_rate, images_per_second``. Losses are means over the epoch.
        ``used_clusters`` counts the clusters that are the first choice of an anchor.

    Raises:
        FloatingPointError: If the loss is no longer finite.
    """
    generator = np.random.default_rng(seed)
    backbone.to(device).set_trainable(settings.trainable)
    head.to(device)
    steps = len(pairs.draw_epoch(settings.batch_size, np.random.default_rng(0))) * settings.epochs
    optimizer, scheduler = _make_optimizer(backbone, head, settings, steps)
    history = []
    for epoch in tqdm(range(settings.epochs), f"seed {seed}", disable=None):
        started, terms = time.perf_counter(), []
        batches = pairs.draw_epoch(settings.batch_size, generator)
        views = loader.batches([rows.ravel() for rows in batches], generator)
        used = torch.zeros(head.n_clusters, dtype=torch.bool, device=device)
        rate = scheduler.get_last_lr()[0]
        for log_probs in _predictions(backbone, head, views, settings.trainable, device):
            loss, parts = _loss(log_probs, settings)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            used[log_probs[0].argmax(1)] = True
            terms.append(parts)
        means = torch.stack(terms).mean(0).tolist()
        n_images = 3 * sum(rows.shape[1] for rows in batches)
        history.append(
            {
                "epoch": epoch + 1,
                "step": (epoch + 1) * len(batches),
                **dict(zip(("loss", "loss_pos", "loss_neg", "loss_ent"), means, strict=True)),
                "entropy": float(np.log(len(used))) - means[3],
                "used_clusters": int(used.sum()),
                "learning_rate": rate,
                "images_per_second": n_images / (time.perf_counter() - started),
            }
        )
        _check_epoch(history[-1], len(used))
    return pd.DataFrame(history)


def read_histories(paths: Sequence[str | Path], *, seeds: Sequence[int]) -> pd.DataFrame:
    """Read the histories of several seeds into one table with a column ``seed``."""
    tables = [pd.read_csv(path).assign(seed=seed) for path, seed in zip(paths, seeds, strict=True)]
    return pd.concat(tables, ignore_index=True)


def _make_optimizer(
    backbone: Backbone, head: ClusterHead, settings: FinetuningSettings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    parameters = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    return optimizer, scheduler


def _predictions(
    backbone: Backbone,
    head: nn.Module,
    views: Iterator[Tensor],
    trainable: str,
    device: torch.device,
) -> Iterator[Tensor]:
    """Log-probabilities of anchors, positives and negatives (Eq. 5), ``(3, b, c)`` a batch.

    The three go through the network as one batch; the frozen part keeps no graph.
    """
    for pixels in views:
        with torch.set_grad_enabled(trainable == "all"):
            tokens = backbone.trunk(pixels.to(device, non_blocking=True))
        with torch.set_grad_enabled(trainable != "none"):
            features = backbone.last_block(tokens)  # (3b, d)
        log_probs = torch.log_softmax(head(features.float()), dim=1)  # (3b, c)
        yield log_probs.view(3, -1, log_probs.shape[1])


def _loss(log_probs: Tensor, settings: FinetuningSettings) -> tuple[Tensor, Tensor]:
    """Eq. 9 and its detached terms ``[loss, L_pos, L_neg, L_ent]``."""
    anchors, positives, negatives = log_probs
    pos = positive_loss(anchors, positives)
    neg = negative_loss(anchors, negatives)
    ent = entropy_loss(anchors)
    loss = settings.lambda_pos * pos + settings.lambda_neg * neg + settings.lambda_ent * ent
    return loss, torch.stack([loss, pos, neg, ent]).detach()


def _check_epoch(row: dict[str, float], n_clusters: int) -> None:
    if not np.isfinite(row["loss"]):
        raise FloatingPointError(
            f"the loss must stay finite, it is {row['loss']} in epoch {row['epoch']}; "
            "lower finetuning.learning_rate"
        )
    log.info(
        "epoch %(epoch)d loss %(loss).4f pos %(loss_pos).4f neg %(loss_neg).4f ent %(loss_ent).4f",
        row,
    )
    if row["used_clusters"] < n_clusters / 2:
        log.warning(
            "only %d of %d clusters are used after epoch %d: the clustering may collapse",
            row["used_clusters"],
            n_clusters,
            row["epoch"],
        )
