"""What the recipe has learned, as new images need it."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unic.features.extraction import extract_features
from unic.images.images import Images
from unic.images.views import View
from unic.models.backbones import Backbone
from unic.recipe.model import N_NEIGHBORS, Model, Predictions, take_apart

_TINY = float(np.finfo(np.float32).tiny)


class Consensus(NamedTuple):
    """Heads on frozen features, half of whose say the nearest training images have."""

    model: Model

    @property
    def n_clusters(self) -> int:
        """K."""
        return self.model.n_clusters

    @property
    def known_labels(self) -> NDArray[np.int64]:
        """Of the training images, ``(n,)``, -1 = unknown."""
        return self.model.known_labels

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Of the training images, ``(n,)``."""
        return self.model.predict_training().probs.argmax(1).numpy()

    def look(
        self,
        backbone: Backbone,
        images: Images,
        view: View,
        *,
        batch_size: int,
        device: torch.device,
        n_workers: int,
    ) -> tuple[NDArray[np.float32], Predictions]:
        """See :class:`unic.inference.bundle.Learned`."""
        features = extract_features(
            images, backbone, view, batch_size=batch_size, device=device, n_workers=n_workers
        )
        return features, self.model.predict(features)

    def graph(self, backbone: Backbone) -> nn.Module:  # noqa: ARG002 - of all that is learned
        """See :class:`unic.inference.bundle.Learned`."""
        return ConsensusGraph(self.model)

    def take_apart(self) -> dict[str, Tensor]:
        """See :class:`unic.inference.bundle.Learned`."""
        return take_apart(self.model)


class ConsensusGraph(nn.Module):
    """From features to probabilities: whitening, heads, and the nearest training images.

    Args:
        model: Of the recipe.
    """

    center: Tensor
    directions: Tensor
    whitening: Tensor
    weights: Tensor
    biases: Tensor
    orders: Tensor
    points: Tensor
    probs: Tensor

    def __init__(self, model: Model):
        super().__init__()
        self.n_heads, self.reads_coordinates = len(model.orders), model.reads_coordinates
        held = {
            "center": torch.from_numpy(model.directions.mean),  # (d,)
            "directions": torch.from_numpy(model.directions.vectors),  # (d, r)
            "whitening": torch.from_numpy(model.whitening),  # (r,) or (r, r)
            "weights": model.heads.weights.flatten(0, 1).T.contiguous(),  # (r, h * c)
            "biases": model.heads.biases.flatten(),  # (h * c,)
            "orders": torch.from_numpy(model.orders),  # (h, c)
            "points": torch.from_numpy(model.points).T.contiguous(),  # (r, m)
            "probs": model.probs,  # (m, c)
        }
        for name, tensor in held.items():
            self.register_buffer(name, tensor)
        self.n_nearest = min(N_NEIGHBORS, len(model.points))

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002 - of all graphs
        """Probabilities ``(b, c)`` of features ``(b, d)``."""
        coordinates = (_to_unit(features) - self.center) @ self.directions  # (b, r)
        is_map = self.whitening.ndim == 2
        spread = coordinates @ self.whitening if is_map else coordinates * self.whitening
        points = _to_unit(spread)  # (b, r)
        read = coordinates if self.reads_coordinates else points  # (b, r)
        logits = read @ self.weights + self.biases  # (b, h * c)
        heads = logits.unflatten(1, (self.n_heads, -1)).softmax(2)  # (b, h, c)
        index = self.orders.expand(heads.shape[0], -1, -1)  # (b, h, c), len would fix b
        own = heads.gather(2, index).mean(1)  # (b, c)
        nearest = (points @ self.points).topk(self.n_nearest, dim=1).indices  # (b, k)
        return 0.5 * own + 0.5 * self.probs[nearest].mean(1)  # (b, c)


def _to_unit(rows: Tensor) -> Tensor:
    """Rows of unit length, zeros as they are; squares stay within the range of float32."""
    scaled = rows / rows.abs().amax(1, keepdim=True).clamp(min=_TINY)
    return scaled / scaled.square().sum(1, keepdim=True).sqrt().clamp(min=_TINY)
