"""The classifier of SimGCD: a prototype a cluster, compared with features by its cosine."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from unic.storage.tensor_files import read_tensors, save_tensors


class CosineClassifier(nn.Module):
    """Cosines of features with a prototype a cluster, over a temperature.

    Args:
        n_dims: Width of the features.
        n_clusters: Number of prototypes.
        temperature: Of the logits.
        generator: Source of the first prototypes.
    """

    def __init__(
        self, n_dims: int, n_clusters: int, *, temperature: float, generator: torch.Generator
    ):
        super().__init__()
        bound = 1 / math.sqrt(n_dims)  # as of any linear layer; the length scales the gradient
        drawn = torch.rand(n_clusters, n_dims, generator=generator)
        self.weight = nn.Parameter((2 * drawn - 1) * bound)  # (c, d)
        self.n_clusters, self.temperature = n_clusters, temperature

    def cosines(self, features: Tensor) -> Tensor:
        """Cosines ``(b, c)`` of features ``(b, d)`` of any length."""
        return linear(normalize(features), normalize(self.weight))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(b, c)`` of features ``(b, d)`` of any length."""
        return self.cosines(features) / self.temperature


def save_classifier(path: str | Path, classifier: CosineClassifier) -> None:
    """Write the prototypes and the temperature, whole or not at all."""
    temperature = torch.tensor(classifier.temperature, dtype=torch.float64)
    save_tensors(path, {"weight": classifier.weight, "temperature": temperature})


def load_classifier(path: str | Path) -> CosineClassifier:
    """Read what :func:`save_classifier` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    state = read_tensors(path).tensors
    n_clusters, n_dims = state["weight"].shape
    classifier = CosineClassifier(
        n_dims,
        n_clusters,
        temperature=float(state["temperature"]),
        generator=torch.Generator().manual_seed(0),
    )
    classifier.load_state_dict({"weight": state["weight"]})
    return classifier
