"""Self-supervised training of a backbone, for data that no pretrained backbone fits."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unic.images.images import Images
from unic.images.loaders import ViewLoader, split_rows
from unic.images.views import View
from unic.images.writing import writing_views
from unic.models.backbones import Backbone
from unic.neighbors.mining import mine_neighbors
from unic.training.epochs import Epochs
from unic.training.losses import contrastive_loss

logger = logging.getLogger(__name__)

WARM_UP_STEPS = 50
PROJECTOR = (512, 128)


@dataclass(frozen=True)
class PretrainingSettings:
    """Settings of :func:`pretrain`; defaults and ranges are in the configuration's schema."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    temperature: float
    pixel_neighbors: int
    feature_neighbors: int
    pixel_fraction: float
    remine_every: int
    seed: int


def pretrain(
    backbone: Backbone,
    images: Images,
    view: View,
    settings: PretrainingSettings,
    *,
    device: torch.device,
    n_workers: int = 1,
) -> pd.DataFrame:
    """Train a backbone in place so that neighbors become alike, without any label.

    Contrastive learning (NT-Xent; Chen et al., 2020) between a view of an image and a view of one
    of its nearest neighbors (Dwibedi et al., 2021): neighbors in pixels for the first part of the
    epochs, then neighbors in the features learned so far, mined again every few epochs. The views
    are those of :func:`writing_views`, which keep the meaning of handwriting and similar
    drawings, not of photographs.

    Args:
        backbone: Trained whole; its running statistics too.
        images: Training images; all prepared pixels must fit the memory.
        view: Evaluation view.
        settings: See :class:`PretrainingSettings`.
        device: Where to train.
        n_workers: Threads that decode.

    Returns:
        A row per epoch: ``epoch``, ``loss``, ``learning_rate``.

    Raises:
        ValueError: If there are fewer images than a batch.
        FloatingPointError: If the loss is no longer finite.
    """
    if len(images) < settings.batch_size:
        raise ValueError(
            "pretraining.neighbors.batch_size must be at most the "
            f"{len(images)} training images, got {settings.batch_size}"
        )
    pixels = _read_pixels(images, view, n_workers)  # (n, 3, s, s)
    model = backbone.model.to(device).requires_grad_(True)
    projector = _make_projector(backbone.n_dims, settings.seed).to(device)
    parameters = [*model.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    n_steps = settings.epochs * (len(images) // settings.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, n_steps))
    generator = torch.Generator().manual_seed(settings.seed)
    neighbors = _nearest(pixels.flatten(1).numpy(), settings.pixel_neighbors)  # (n, k)
    epochs = Epochs(
        settings.epochs, title="pretraining", rate_setting="pretraining.neighbors.learning_rate"
    )
    for epoch in epochs:
        if _is_remined(epoch, settings):
            features = _embed(model, pixels, view, device)
            neighbors = _nearest(features, settings.feature_neighbors)
        losses, rate = [], scheduler.get_last_lr()[0]
        model.train()
        for first, second in _pairs(neighbors, settings.batch_size, generator):
            views = writing_views(pixels[torch.cat([first, second])], generator)
            projected = projector(model(view.normalize(views * 255).to(device)))  # (2 b, d)
            pairs = nn.functional.normalize(projected).unflatten(0, (2, -1)).transpose(0, 1)
            loss = contrastive_loss(pairs, temperature=settings.temperature)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.detach())
        mean_loss = float(torch.stack(losses).mean())
        epochs.add({"epoch": epoch + 1, "loss": mean_loss, "learning_rate": float(rate)})
        logger.info("epoch %d loss %.3f", epoch + 1, mean_loss)
    model.eval()
    return epochs.table()


def _read_pixels(images: Images, view: View, n_workers: int) -> Tensor:
    """All prepared pixels in [0, 1], shape ``(n, 3, s, s)``."""
    raw = View(view.image_size, view.crop_pct, mean=(0.0,) * 3, std=(1.0,) * 3)
    loader = ViewLoader(images, raw, n_workers=n_workers)
    rows = split_rows(len(images), 256)
    return torch.cat(list(loader.batches(rows, np.random.default_rng(0))))


def _make_projector(n_dims: int, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden, out = PROJECTOR
        return nn.Sequential(
            nn.Linear(n_dims, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
        )


def _rate(step: int, n_steps: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _is_remined(epoch: int, settings: PretrainingSettings) -> bool:
    since = epoch - math.ceil(settings.pixel_fraction * settings.epochs)
    return since >= 0 and since % settings.remine_every == 0


def _nearest(features: NDArray[np.float32], n_neighbors: int) -> Tensor:
    mined = mine_neighbors(features, n_neighbors=n_neighbors, far_rank=None)
    return torch.from_numpy(mined.indices)  # (n, k)


@torch.no_grad()
def _embed(
    model: nn.Module, pixels: Tensor, view: View, device: torch.device
) -> NDArray[np.float32]:
    """Features of unit length of all images, ``(n, d)``."""
    model.eval()
    batches = [model(view.normalize(batch * 255).to(device)) for batch in pixels.split(256)]
    unit: NDArray[np.float32] = nn.functional.normalize(torch.cat(batches)).cpu().numpy()
    return unit


def _pairs(
    neighbors: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled full batches of images, with a random neighbor of each."""
    order = torch.randperm(len(neighbors), generator=generator)
    for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
        columns = torch.randint(neighbors.shape[1], (len(rows),), generator=generator)
        yield rows, neighbors[rows, columns]
