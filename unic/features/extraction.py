"""Features of images: what the backbone gives for their evaluation view (Eq. 1)."""

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unic.images.images import Images
from unic.images.loaders import ViewLoader, split_rows
from unic.images.views import View
from unic.models.backbones import Backbone
from unic.runtime.shards import Shard

logger = logging.getLogger(__name__)


def extract_features(
    images: Images,
    backbone: Backbone,
    view: View,
    *,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    rows: range | None = None,
) -> NDArray[np.float32]:
    """Embed every image (UNIC, Eq. 1): ``v_i = f_emb(x_i)``, unnormalized.

    Args:
        images: The images.
        backbone: On any device; moved to ``device``.
        view: Evaluation view.
        batch_size: Images a batch.
        device: Where the backbone runs.
        n_workers: Threads that decode.
        rows: Neighboring images to embed, all by default. The result is that of all images to the
            last bit where it begins at a multiple of ``batch_size``.

    Returns:
        Shape ``(n, d)``, float32.

    Raises:
        ValueError: If an image cannot be decoded (names the file), or a feature is not finite
            (names the image).
    """
    backbone = backbone.to(device)
    features = map_images(
        backbone,
        images,
        view,
        n_columns=backbone.n_dims,
        batch_size=batch_size,
        device=device,
        n_workers=n_workers,
        rows=rows,
    )
    check_finite(features, images, first=0 if rows is None else rows.start)
    logger.info("features of %d images, %d dims", *features.shape)
    return features


def extract_splits(
    images: Mapping[str, Images],
    backbone: Backbone,
    view: View,
    *,
    shard: Shard,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Sequence[str]]]:
    """Embed a shard of every split, see :func:`extract_features`.

    Returns:
        Features ``(n, d)`` by split, and the ids of their images.
    """
    features, held = {}, {}
    for split, part in images.items():
        rows = shard.rows(len(part), multiple=batch_size)
        held[split] = part.ids[rows.start : rows.stop]
        features[split] = extract_features(
            part,
            backbone,
            view,
            batch_size=batch_size,
            device=device,
            n_workers=n_workers,
            rows=rows,
        )
    return features, held


def map_images(
    compute: Callable[[Tensor], Tensor],
    images: Images,
    view: View,
    *,
    n_columns: int,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    rows: range | None = None,
) -> NDArray[np.float32]:
    """Compute a row for every image: shape ``(n, n_columns)``, float32.

    Args:
        compute: From normalized pixels ``(b, 3, s, s)`` to rows ``(b, n_columns)``.
        images: The images.
        view: Evaluation view.
        n_columns: Width of the rows.
        batch_size: Images a batch.
        device: Where the pixels go.
        n_workers: Threads that decode.
        rows: Neighboring images, all by default.

    Raises:
        ValueError: If an image cannot be decoded (names the file).
    """
    rows = range(len(images)) if rows is None else rows
    loader = ViewLoader(images, view, n_workers=n_workers)
    parts = split_rows(len(rows), batch_size)
    batches = loader.batches([rows.start + part for part in parts], np.random.default_rng(0))
    found = np.empty((len(rows), n_columns), dtype=np.float32)  # (n, n_columns)
    shown = tqdm(batches, "features", len(parts), disable=None)
    with torch.inference_mode():  # not around a move: the model may be trained afterwards
        for part, pixels in zip(parts, shown, strict=True):
            found[part] = compute(pixels.to(device)).float().cpu().numpy()
    return found


def extract_pixels(images: Images, view: View, *, n_workers: int = 1) -> NDArray[np.float32]:
    """Pixels of the evaluation view, normalized and flattened: shape ``(n, 3 s s)``, float32."""
    loader = ViewLoader(images, view, n_workers=n_workers)
    batches = loader.batches(split_rows(len(images), 256), np.random.default_rng(0))
    return np.concatenate([pixels.flatten(1).numpy() for pixels in batches])


def check_finite(features: NDArray[np.float32], images: Images, *, first: int = 0) -> None:
    """Refuse features that are not finite.

    Args:
        features: Shape ``(b, d)``, float32, of neighboring images.
        images: All of them, for the name of the first that is wrong.
        first: Row among ``images`` of the first of the features.

    Raises:
        ValueError: Names the first image.
    """
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise ValueError(
            f"features must be finite, those of {len(broken)} of {len(features)} images are not, "
            f"first row {first + broken[0]}, image {images.ids[first + broken[0]]}"
        )
