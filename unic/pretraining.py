"""Self-supervised training of a backbone, for data that no pretrained backbone fits."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate
from tqdm import tqdm

from unic.backbones import Backbone
from unic.data.images import Images
from unic.data.loaders import ViewLoader, split_rows
from unic.data.views import View
from unic.files import whole_file
from unic.losses import contrastive_loss
from unic.mining import mine_neighbors

log = logging.getLogger(__name__)

ROTATION, SHIFT, SHEAR = math.radians(15), 0.12, math.radians(10)
SCALE, ASPECT = (0.8, 1.25), 0.1
BEND = 0.06  # std of the elastic displacement at 4 x 4 nodes, in half sides
BLUR, STROKE, NOISE = 0.6, 0.5, 0.05
ERASED, ERASED_SIDE = 0.3, (0.16, 0.36)
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
            f"pretraining.batch_size must be at most the {len(images)} training images, got "
            f"{settings.batch_size}"
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
    history = []
    for epoch in tqdm(range(settings.epochs), "pretraining", disable=None):
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
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the loss must stay finite, it is {mean_loss} in epoch {epoch + 1}; "
                "lower pretraining.learning_rate"
            )
        history.append({"epoch": epoch + 1, "loss": mean_loss, "learning_rate": rate})
        log.info("epoch %d loss %.3f", epoch + 1, mean_loss)
    model.eval()
    return pd.DataFrame(history)


def writing_views(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change each image of a batch as a writer might: posture, bend, stroke, blots.

    Rotation within 15 degrees, shift within 12 % of the side, scale 0.8 to 1.25, shear within 10
    degrees, a smooth elastic bend, blur, thinner or thicker strokes (a power of the brightness),
    one erased square, noise. What comes in from outside is black.

    Args:
        pixels: Shape ``(b, 3, s, s)``, float32 in [0, 1].
        generator: On the CPU, source of every draw.

    Returns:
        Shape ``(b, 3, s, s)``, float32, about [0, 1].
    """
    n, side = len(pixels), pixels.shape[-1]
    pixels = grid_sample(pixels, _writing_grid(n, side, generator), align_corners=False)
    blur = _uniform(n, generator) * (_uniform(n, generator) < BLUR)
    pixels = pixels + blur * (avg_pool2d(pixels, 5, 1, 2) - pixels)
    pixels = pixels.clamp(1e-4, 1) ** torch.exp(_signed(n, generator) * STROKE)
    pixels = pixels * ~_erased(n, side, generator)
    noise = torch.randn(n, 1, side, side, generator=generator) * NOISE
    return pixels + noise * _uniform(n, generator)


def save_backbone(path: str | Path, backbone: Backbone) -> None:
    """Write the weights with timm's keys, whole or not at all."""
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.model.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(state, temporary)


def _read_pixels(images: Images, view: View, n_workers: int) -> Tensor:
    """All prepared pixels in [0, 1], shape ``(n, 3, s, s)``."""
    raw = View(view.image_size, view.crop_pct, mean=(0.0,) * 3, std=(1.0,) * 3)
    loader = ViewLoader(images, raw, augmentation="none", n_workers=n_workers)
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


def _writing_grid(n: int, side: int, generator: torch.Generator) -> Tensor:
    """Where each output pixel is taken from, ``(n, s, s, 2)``: affine and elastic."""
    angle = _signed(n, generator).view(n) * ROTATION
    slant = torch.tan(_signed(n, generator).view(n) * SHEAR)
    low, high = map(math.log, SCALE)
    scale = torch.exp(low + (high - low) * _uniform(n, generator)).view(n)
    aspect = torch.exp(_signed(n, generator).view(n) * ASPECT)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(n)
    turn = torch.stack([cos, -sin, sin, cos], 1).view(n, 2, 2)
    stretch = torch.stack([aspect / scale, slant, zero, 1 / (scale * aspect)], 1).view(n, 2, 2)
    shift = (torch.rand(n, 2, 1, generator=generator) * 2 - 1) * SHIFT * 2
    theta = torch.cat([turn @ stretch, shift], 2)  # (n, 2, 3)
    grid = affine_grid(theta, [n, 3, side, side], align_corners=False)
    nodes = torch.randn(n, 2, 4, 4, generator=generator) * BEND
    bend = interpolate(nodes, (side, side), mode="bicubic", align_corners=False)
    return grid + bend.permute(0, 2, 3, 1)


def _erased(n: int, side: int, generator: torch.Generator) -> Tensor:
    """The erased square of some images, ``(n, 1, s, s)`` bool."""
    low, high = ERASED_SIDE
    radius = side * (low + (high - low) * _uniform(n, generator)) / 2
    center = torch.rand(n, 2, 1, 1, generator=generator) * side
    is_erased = _uniform(n, generator) < ERASED
    line = torch.arange(side)
    rows = (line.view(1, 1, side, 1) - center[:, :1]).abs() < radius
    columns = (line.view(1, 1, 1, side) - center[:, 1:]).abs() < radius
    return is_erased & rows & columns


def _uniform(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, 1, 1, 1, generator=generator)


def _signed(n: int, generator: torch.Generator) -> Tensor:
    return _uniform(n, generator) * 2 - 1
