"""Features of images: what the backbone gives for their evaluation view (Eq. 1)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unic.features.frozen import FrozenBackbone
from unic.images.images import Images
from unic.images.loaders import ViewLoader, split_rows
from unic.images.views import View
from unic.models.backbones import Backbone


def extract_features(
    images: Images,
    backbone: Backbone,
    view: View,
    *,
    batch_size: int,
    device: torch.device,
    n_workers: int = 1,
    engine: str = "auto",
) -> NDArray[np.float32]:
    """Embed every image (UNIC, Eq. 1): ``v_i = f_emb(x_i)``, unnormalized.

    Args:
        images: The images.
        backbone: On any device; moved to ``device``.
        view: Evaluation view.
        batch_size: Images a batch.
        device: Where the backbone runs.
        n_workers: Threads that decode.
        engine: ``auto``, ``torch`` or ``openvino``, see :func:`unic.models.engines.choose_engine`.

    Returns:
        Shape ``(n, d)``, float32.

    Raises:
        ValueError: If an image cannot be decoded (names the file), or a feature is not finite
            (names the image).
    """
    frozen = FrozenBackbone.choose(
        backbone,
        engine,
        n_images=len(images),
        precision=torch.float32,
        device=device,
        only_features=True,
    )
    return embed_images(images, frozen, view, batch_size=batch_size, n_workers=n_workers)


def embed_images(
    images: Images, frozen: FrozenBackbone, view: View, *, batch_size: int, n_workers: int = 1
) -> NDArray[np.float32]:
    """Features of all images, as :func:`extract_features` gives them, by a given engine."""
    batches = split_rows(len(images), batch_size)
    found = embed_batches(images, frozen, view, batches, n_workers=n_workers)
    shown = tqdm(found, "features", len(batches), disable=None)
    return np.concatenate([np.empty((0, frozen.backbone.n_dims), np.float32), *shown])


def embed_batches(
    images: Images,
    frozen: FrozenBackbone,
    view: View,
    batches: Sequence[NDArray[np.int64]],
    *,
    n_workers: int = 1,
) -> Iterator[NDArray[np.float32]]:
    """Features ``(b, d)`` of the images of each batch of rows.

    Raises:
        ValueError: If an image cannot be decoded (names the file), or a feature is not finite
            (names the image).
    """
    found = map_batches(
        frozen.features, images, view, batches, device=frozen.engine.device, n_workers=n_workers
    )
    for batch, features in zip(batches, found, strict=True):
        check_finite(features, [images.ids[row] for row in batch])
        yield features


def map_batches(
    compute: Callable[[Tensor], Tensor],
    images: Images,
    view: View,
    batches: Sequence[NDArray[np.int64]],
    *,
    device: torch.device,
    n_workers: int = 1,
) -> Iterator[NDArray[np.float32]]:
    """Compute a row for every image of each batch of rows: shape ``(b, c)``, float32.

    Args:
        compute: From normalized pixels ``(b, 3, s, s)`` to rows ``(b, c)``.
        images: The images.
        view: Evaluation view.
        batches: Rows of the images of each batch, ``(b,)`` each.
        device: Where the pixels go.
        n_workers: Threads that decode.

    Raises:
        ValueError: If an image cannot be decoded (names the file).
    """
    loader = ViewLoader(images, view, n_workers=n_workers, is_read_once=True)
    for pixels in loader.batches(batches, np.random.default_rng(0)):
        with torch.no_grad():  # not around a yield, nor a move: the model may be trained later
            yield compute(pixels.to(device)).float().cpu().numpy()


def check_finite(features: NDArray[np.float32], ids: Sequence[str]) -> None:
    """Refuse features that are not finite.

    Args:
        features: Shape ``(b, d)``, float32.
        ids: Of their images, for the name of the first that is wrong.

    Raises:
        ValueError: Names the first image.
    """
    broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(broken):
        raise ValueError(
            f"features must be finite, those of {len(broken)} of {len(features)} images are not, "
            f"first image {ids[broken[0]]}"
        )
