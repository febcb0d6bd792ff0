"""Sources of what the last block is trained on: fresh views through the trunk, or cached ones."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from unic.features.frozen import FrozenBackbone
from unic.images.images import Images
from unic.images.loaders import ViewLoader
from unic.models.backbones import Backbone
from unic.models.trunk_output import TrunkOutput
from unic.runtime.devices import choose_precision


class TrunkSource(Protocol):
    """What the trunk gives for views of the training images, batch by batch."""

    @property
    def images(self) -> Sequence[Images]:
        """The images that are read as batches are asked for; none where these are cached."""

    @property
    def has_gradient(self) -> bool:
        """Whether the trunk is trained through the outputs."""

    def batches(
        self,
        rows: Iterable[NDArray[np.int64]],
        generator: np.random.Generator,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> Iterator[TrunkOutput]:
        """Outputs of a view of each image.

        Args:
            rows: Arrays of image rows of shape ``(r, b)``, a batch each, such as anchors and their
                positives.
            generator: Source of all that is random in the views.
            positions: Which images of every raveled batch to give; all by default.

        Yields:
            ``r b`` views, the first row's first.
        """


class FreshViews:
    """Views that are new each time, through the trunk.

    Args:
        loader: Gives the views.
        backbone: On the device, when batches are asked for.
        precision: Of the trunk: ``float32``, ``bfloat16`` or ``auto``.
        device: Where the backbone is.
        has_gradient: Whether the trunk is trained too, by torch whatever the engine.
        engine: ``auto``, ``torch`` or ``openvino``, of a trunk that is not trained.
        n_epochs: How often the images are gone through, by which ``auto`` chooses.
    """

    def __init__(
        self,
        loader: ViewLoader,
        backbone: Backbone,
        *,
        precision: str,
        device: torch.device,
        has_gradient: bool = False,
        engine: str = "auto",
        n_epochs: int = 1,
    ):
        self.loader, self.backbone, self.device = loader, backbone, device
        self.has_gradient = has_gradient
        self.precision = choose_precision(precision, device, is_transformer=backbone.is_transformer)
        self._frozen: FrozenBackbone | None = None
        if not has_gradient:
            n_images = 2 * n_epochs * len(loader.images)  # anchors and positives
            self._frozen = FrozenBackbone.choose(
                backbone, engine, n_images=n_images, precision=self.precision, device=device
            )

    @property
    def images(self) -> Sequence[Images]:
        """The images of the loader."""
        return [self.loader.images]

    def batches(
        self,
        rows: Iterable[NDArray[np.int64]],
        generator: np.random.Generator,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> Iterator[TrunkOutput]:
        """Outputs of a new view of each image, see :meth:`TrunkSource.batches`.

        Raises:
            ValueError: If an image cannot be decoded; names the file.
        """
        raveled = [batch.ravel() for batch in rows]
        for pixels in self.loader.batches(raveled, generator, positions=positions):
            moved = pixels.to(self.device, non_blocking=True)
            if self._frozen is None:
                yield self.backbone.prepare(moved, precision=self.precision)
            else:
                yield self._frozen.prepare(moved)


class FrozenFeatures:
    """Features of a frozen backbone in place of views, where these are not augmented.

    Args:
        features: Shape ``(n, d)``, float32.
        device: Where they are wanted, and held.
    """

    images: Sequence[Images] = ()
    has_gradient = False

    def __init__(self, features: NDArray[np.float32], *, device: torch.device):
        self._features = torch.from_numpy(features).to(device)

    def batches(
        self,
        rows: Iterable[NDArray[np.int64]],
        generator: np.random.Generator,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> Iterator[TrunkOutput]:
        """Features ``(r b, 1, d)``, as a frozen backbone gives them; nothing is drawn."""
        del generator
        part = slice(None) if positions is None else positions
        for batch in rows:
            chosen = torch.from_numpy(batch.ravel()[part]).to(self._features.device)
            yield TrunkOutput(self._features[chosen][:, None])
