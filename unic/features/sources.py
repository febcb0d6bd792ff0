"""Sources of what the last block is trained on: fresh views through the trunk, or cached ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unic.features.cached_views import CachedViews
from unic.images.augmentations import choose_augmentation
from unic.images.decoded import open_pixels
from unic.images.images import Images
from unic.images.index import read_index
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone
from unic.models.trunk_output import TrunkOutput
from unic.runtime.devices import choose_precision
from unic.runtime.processes import ALONE, Processes
from unic.storage.digests import image_digest
from unic.storage.stores import check_images, open_store


class FrozenFeatures:
    """Features of a frozen backbone in place of views, where these are not augmented.

    Args:
        features: Shape ``(n, d)``, float32.
        device: Where they are wanted, and held.
    """

    def __init__(self, features: NDArray[np.float32], *, device: torch.device):
        self._features = torch.from_numpy(features).to(device)

    def batches(
        self,
        rows: Iterable[NDArray[np.int64]],
        generator: np.random.Generator,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> Iterator[TrunkOutput]:
        """Features ``(r b, 1, d)`` of each array of rows, as a frozen backbone gives them.

        Args:
            rows: Arrays of image rows, a batch each.
            generator: Not drawn from.
            positions: Which images of every raveled batch to give; all by default.
        """
        del generator
        part = slice(None) if positions is None else positions
        for batch in rows:
            chosen = torch.from_numpy(batch.ravel()[part]).to(self._features.device)
            yield TrunkOutput(self._features[chosen][:, None])


Views = ViewLoader | CachedViews | FrozenFeatures


class TrunkSource:
    """What the trunk gives for this process's share of each batch.

    Args:
        backbone: On its device.
        views: Views of the training images, or what the trunk gave for some of each.
        precision: Of the trunk: ``float32``, ``bfloat16`` or ``auto``.
        has_gradient: Whether the trunk is trained too.
        device: Where the backbone is.
        processes: This process and those that train along with it.
    """

    def __init__(
        self,
        backbone: Backbone,
        views: Views,
        *,
        precision: str,
        has_gradient: bool,
        device: torch.device,
        processes: Processes = ALONE,
    ):
        self.backbone, self.views, self.device = backbone, views, device
        self.processes, self.has_gradient = processes, has_gradient
        self.precision = torch.float32
        if isinstance(views, ViewLoader):
            self.precision = choose_precision(
                precision, device, is_transformer=backbone.is_transformer
            )

    def outputs(
        self, batches: Sequence[NDArray[np.int64]], generator: np.random.Generator
    ) -> Iterator[TrunkOutput]:
        """What the trunk gives for ``(r, b)`` rows of images a batch, raveled: ``r b`` views."""
        positions = None
        if self.processes.size > 1:
            positions = self.processes.share(*batches[0].shape)
        if not isinstance(self.views, ViewLoader):
            yield from self.views.batches(batches, generator, positions=positions)
            return
        raveled = [rows.ravel() for rows in batches]
        for pixels in self.views.batches(raveled, generator, positions=positions):
            with torch.set_grad_enabled(self.has_gradient):
                moved = pixels.to(self.device, non_blocking=True)
                output = self.backbone.prepare(moved, precision=self.precision)
            yield output


def images_of(views: Views) -> list[Images]:
    """The images that a training reads as it goes; none where their views are cached."""
    return [views.images] if isinstance(views, ViewLoader) else []


def open_views(
    inputs: Mapping[str, str],
    params: Mapping[str, Any],
    backbone: Backbone,
    *,
    device: torch.device,
    n_workers: int,
) -> Views:
    """Open the training images as a source of views.

    Args:
        inputs: Files by name: ``images``; ``tokens`` for cached views, ``frozen`` for the features
            of a frozen backbone; ``decoded`` for decoded images.
        params: ``data``, ``root``, ``view`` and ``augmentation``.
        backbone: That is to be trained.
        device: Where cached views are wanted.
        n_workers: Threads that decode.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If cached views are of other images or another backbone.
    """
    ids = read_index(inputs["images"])["train"]
    if "frozen" in inputs:
        store = open_store(inputs["frozen"], kind="features")
        check_images(store, ids)
        features = store.read("features")
        if features.shape[1] != backbone.n_dims:
            raise ValueError(
                f"{store.path} must hold features of the backbone's {backbone.n_dims} dims, it has "
                f"{features.shape[1]}; delete it and run the workflow again"
            )
        return FrozenFeatures(features, device=device)
    if "tokens" not in inputs:
        decoded = inputs.get("decoded")
        images = open_pixels(params["data"], ids, root=params["root"], decoded=decoded)
        view = View(**params["view"])
        return ViewLoader(
            images,
            view,
            augmentation=choose_augmentation(params["augmentation"]),
            n_workers=n_workers,
        )
    cached = CachedViews(inputs["tokens"], device=device)
    if cached.images != image_digest(ids) or not _fit(cached, backbone):
        raise ValueError(
            f"{inputs['tokens']} must hold views of the {len(ids)} training images by this "
            "backbone, it holds others; delete it and run the workflow again"
        )
    return cached


def _fit(cached: CachedViews, backbone: Backbone) -> bool:
    """Whether what is cached is what the backbone would give."""
    layout = cached.layout
    if backbone.gives_features:
        return layout.class_token == 0 and layout.shape == (1, backbone.n_dims)
    return (layout.class_token > 0) == backbone.has_class_token_path
