"""A small training: images of four colors, a class each."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.features.sources import FreshViews
from unic.images.augmentations import choose_augmentation
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.heads import ClusterHead, Head
from unic.neighbors.far_pairs import FarPairs
from unic.training.checkpoint import Checkpoint
from unic.training.finetuning import finetune
from unic.training.pairs import Pairs, PositiveSampler, StoredNegatives
from unic.training.step import FinetuningSettings

N_IMAGES, N_CLASSES = 64, 4
LABELS = np.arange(N_IMAGES) % N_CLASSES
SETTINGS = FinetuningSettings(
    trainable="last_block",
    epochs=2,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=0.0,
    lambda_pos=1.0,
    lambda_neg=1.0,
    lambda_ent=3.0,
)


def rows_of(*, same: bool) -> NDArray[np.int64]:
    """For each image the others of its class, itself first; or those of other classes."""
    rows = [np.flatnonzero((label == LABELS) == same) for label in LABELS]
    if not same:
        return np.array(rows)
    return np.array([[i, *row[row != i]] for i, row in enumerate(rows)])


def far_by_class() -> FarPairs:
    """The classes as features: images of another class are beyond the far radius."""
    features = np.eye(N_CLASSES, dtype=np.float32)[LABELS]
    radius = np.full(N_IMAGES, 0.5, dtype=np.float32)
    return FarPairs(features, radius, known_labels=np.full(N_IMAGES, -1, dtype=np.int64))


def make_pairs(known_labels: NDArray[np.int64] | None = None, *, in_batch: bool = False) -> Pairs:
    if known_labels is None:
        known_labels = np.full(N_IMAGES, -1, dtype=np.int64)
    sampler = PositiveSampler(rows_of(same=True), known_labels)
    stored = StoredNegatives(rows_of(same=False))
    return Pairs(sampler, far_by_class() if in_batch else stored)


def make_loader(augmentation: str | None = None) -> ViewLoader:
    """Noise of four colors, a class each; a random backbone does not tell much more apart."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 90, size=(N_IMAGES, 8, 8, 3), dtype=np.uint8)
    pixels += np.array([[0, 0, 0], [150, 0, 0], [0, 150, 0], [0, 0, 150]], dtype=np.uint8)[
        LABELS, None, None
    ]
    ids = [str(row) for row in range(N_IMAGES)]
    view = View(image_size=32, crop_pct=1.0, mean=(0.3,) * 3, std=(0.1,) * 3)
    return ViewLoader(
        ArrayImages(ids, pixels), view, augmentation=choose_augmentation(augmentation)
    )


def fresh_views(
    backbone: Backbone,
    settings: FinetuningSettings,
    loader: ViewLoader | None = None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> FreshViews:
    return FreshViews(
        loader or make_loader(),
        backbone,
        precision=precision,
        device=torch.device(device),
        has_gradient=settings.trainable == "all",
    )


def make_model(name: str = "test_vit", *, seed: int = 0) -> tuple[Backbone, ClusterHead]:
    options = {"img_size": 32} if name == "test_vit" else {}
    backbone = load_backbone(name, weights="random", options=options, image_size=32)
    generator = torch.Generator().manual_seed(seed)
    return backbone, ClusterHead(backbone.n_dims, N_CLASSES, width=512, generator=generator)


def train(
    model: tuple[Backbone, Head] | None = None,
    settings: FinetuningSettings = SETTINGS,
    *,
    seed: int = 0,
    loader: ViewLoader | None = None,
    pairs: Pairs | None = None,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[Backbone, Head, pd.DataFrame]:
    backbone, head = model or make_model()
    history = finetune(
        backbone,
        [head],
        fresh_views(backbone, settings, loader, device=device, precision=precision),
        pairs or make_pairs(),
        settings,
        seed=seed,
        device=torch.device(device),
        checkpoint=checkpoint,
    )
    return backbone, head, history


def weights_of(backbone: Backbone, head: Head) -> dict[str, torch.Tensor]:
    named = {**backbone.model.state_dict(prefix="backbone."), **head.state_dict(prefix="head.")}
    return {name: tensor.detach().clone().cpu() for name, tensor in named.items()}
