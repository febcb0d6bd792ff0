"""What a training has learned, as new images need it."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unic.images.images import Images
from unic.images.views import View
from unic.models.backbones import Backbone
from unic.models.heads import Head
from unic.models.trained import Model
from unic.models.weights import load_weights
from unic.neighbors.metric import to_euclidean
from unic.recipe.model import Predictions, find_neighbors
from unic.training.prediction import predict_images

_HEAD = "head."


class Finetuned(NamedTuple):
    """A trained head, and the training images that new ones are neighbors of."""

    head: Head
    points: NDArray[np.float32]  # (n, d), features of the training images, of unit length
    clusters: NDArray[np.int64]  # (n,), of the training images
    known_labels: NDArray[np.int64]  # (n,), -1 = unknown

    @property
    def n_clusters(self) -> int:
        """K."""
        return self.head.n_clusters

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
        found = predict_images(
            Model(backbone, self.head),
            images,
            view,
            batch_size=batch_size,
            device=device,
            n_workers=n_workers,
        )
        near = find_neighbors(to_euclidean(found.features, "cosine"), self.points)
        return found.features, Predictions(found.logits.softmax(1), *near)

    def graph(self, backbone: Backbone) -> nn.Module:
        """See :class:`unic.inference.bundle.Learned`."""
        return FinetunedGraph(backbone, self.head)

    def take_apart(self) -> dict[str, Tensor]:
        """See :class:`unic.inference.bundle.Learned`."""
        state = self.head.state_dict()
        return {f"{_HEAD}{name}": tensor for name, tensor in state.items()} | {
            "training_points": torch.from_numpy(self.points),
            "training_clusters": torch.from_numpy(self.clusters),
            "training_known_labels": torch.from_numpy(self.known_labels),
        }

    @classmethod
    def put_together(cls, tensors: Mapping[str, Tensor], head: Head, *, origin: str) -> Self:
        """What :meth:`take_apart` took apart.

        Args:
            tensors: By name.
            head: One of its kind, whose weights are replaced.
            origin: The file, for messages.

        Raises:
            ValueError: If the weights do not fit the head.
        """
        own = {k.removeprefix(_HEAD): t for k, t in tensors.items() if k.startswith(_HEAD)}
        load_weights(head, own, origin=origin)
        kept = ("training_points", "training_clusters", "training_known_labels")
        return cls(head, *(tensors[name].numpy() for name in kept))


class FinetunedGraph(nn.Module):
    """From features, or tokens, to probabilities: the head.

    Args:
        backbone: That gives them.
        head: From one of the two to logits.
    """

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.head = head
        self._as_sequence = backbone.as_sequence

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Probabilities ``(b, c)`` of tokens, or a feature map, and features ``(b, d)``."""
        read = self._as_sequence(tokens) if self.head.reads_tokens else features
        return self.head(read).softmax(1)
