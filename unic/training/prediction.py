"""Clusters of images by a trained head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unic.features.extraction import check_finite, embed_images, map_batches
from unic.features.frozen import FrozenBackbone
from unic.images.images import Images
from unic.images.loaders import split_rows
from unic.images.source import ImageSource
from unic.images.views import View
from unic.models.heads import Head
from unic.models.trained import Model
from unic.storage.stores import check_images, open_store

Clusters = tuple[NDArray[np.int64], NDArray[np.float32]]  # (n,) and their confidence (n,)


class Prediction(NamedTuple):
    """What a model says of ``n`` images."""

    features: NDArray[np.float32]  # (n, d)
    logits: Tensor  # (n, c), on the CPU

    def choose(self) -> Clusters:
        """The most probable cluster of each image and its probability, ``(n,)`` each (Eq. 5)."""
        confidence, clusters = torch.softmax(self.logits, dim=1).max(dim=1)
        return clusters.numpy(), confidence.numpy()


def predict_splits(
    model: Model,
    ids: Mapping[str, Sequence[str]],
    source: ImageSource,
    *,
    features: str | Path | None,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    engine: str = "auto",
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Clusters]]:
    """Features and clusters of the images of every split.

    Args:
        model: On any device; moved to ``device``.
        ids: Images by split.
        source: Where pixels are from.
        features: Store of features of a frozen backbone, which need no images.
        batch_size: Images a batch.
        device: Where the model runs.
        n_workers: Threads that decode.
        engine: ``auto``, ``torch`` or ``openvino``, of the backbone.

    Returns:
        Features ``(n, d)``, and clusters ``(n,)`` with their confidence, each by split.

    Raises:
        ValueError: If the store is of other images; else as :func:`predict_by_split`.
    """
    if features is None:
        found = predict_by_split(
            model,
            source.open_splits(ids),
            source.view,
            batch_size=batch_size,
            device=device,
            n_workers=n_workers,
            engine=engine,
        )
    else:
        store, found = open_store(features, kind="features"), {}
        for split in ids:
            check_images(store, ids[split], split=split)
            rows = store.read("features", split=split)
            found[split] = Prediction(rows, _apply(model.head, rows, device=device))
    return (
        {split: prediction.features for split, prediction in found.items()},
        {split: prediction.choose() for split, prediction in found.items()},
    )


def predict_images(
    model: Model,
    images: Images,
    view: View,
    *,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    engine: str = "auto",
) -> Prediction:
    """Features and clusters of images, see :func:`predict_by_split`."""
    found = predict_by_split(
        model,
        {"": images},
        view,
        batch_size=batch_size,
        device=device,
        n_workers=n_workers,
        engine=engine,
    )
    return found[""]


def predict_by_split(
    model: Model,
    images: Mapping[str, Images],
    view: View,
    *,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    engine: str = "auto",
) -> dict[str, Prediction]:
    """Features and clusters of the images of every split, in one pass over these.

    Args:
        model: On any device; moved to ``device``.
        images: By split.
        view: Evaluation view.
        batch_size: Images a batch.
        device: Where the model runs.
        n_workers: Threads that decode.
        engine: ``auto``, ``torch`` or ``openvino``, of the backbone.

    Raises:
        ValueError: If an image cannot be decoded (names the file), or a feature is not finite
            (names the image).
    """
    frozen = FrozenBackbone.choose(
        model.backbone,
        engine,
        n_images=sum(map(len, images.values())),
        precision=torch.float32,
        device=device,
        only_features=not model.head.reads_tokens,
    )
    return {
        split: _predict(model.head, frozen, members, view, batch_size, n_workers)
        for split, members in images.items()
    }


def _predict(
    head: Head,
    frozen: FrozenBackbone,
    images: Images,
    view: View,
    batch_size: int,
    n_workers: int,
) -> Prediction:
    device = frozen.engine.device
    if not head.reads_tokens:
        features = embed_images(images, frozen, view, batch_size=batch_size, n_workers=n_workers)
        return Prediction(features, _apply(head, features, device=device))
    head = head.to(device)

    def compute(pixels: Tensor) -> Tensor:
        features, tokens = frozen.backbone.features_and_tokens(frozen.prepare(pixels))
        return torch.cat([features.float(), head(tokens.float())], dim=1)  # (b, d + c)

    batches = split_rows(len(images), batch_size)
    found = map_batches(compute, images, view, batches, device=device, n_workers=n_workers)
    rows = np.concatenate(list(found))  # (n, d + c)
    check_finite(rows, images.ids)
    features, logits = np.split(rows, [frozen.backbone.n_dims], axis=1)
    return Prediction(np.ascontiguousarray(features), torch.from_numpy(logits))


def predict_clusters(
    head: nn.Module, features: NDArray[np.float32], *, device: torch.device
) -> Clusters:
    """The most probable cluster of each image and its probability (Eq. 5).

    Args:
        head: From features to logits, not one that reads tokens.
        features: Shape ``(n, d)``, float32.
        device: Where the head runs.

    Returns:
        Clusters ``(n,)`` int64 and probabilities ``(n,)`` float32 in (0, 1].
    """
    return Prediction(features, _apply(head, features, device=device)).choose()


def _apply(head: nn.Module, features: NDArray[np.float32], *, device: torch.device) -> Tensor:
    """Logits ``(n, c)`` of features ``(n, d)``, on the CPU."""
    head = head.to(device)
    with torch.inference_mode():  # not around the move: the head may be trained afterwards
        return head(torch.from_numpy(features).to(device)).cpu()
