"""What the recipe has learned: where new images lie, and which cluster they belong to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.baselines.assignment import find_nearest
from unic.recipe.consensus import average, smooth
from unic.recipe.heads import Heads
from unic.recipe.spaces import Directions, whiten
from unic.storage.tensor_files import read_tensors, save_tensors

N_NEIGHBORS = 10
FORMAT = 2  # of the file; raised where one of before cannot be read
_BLOCK_ROWS = 4096  # of images whose distances are computed at a time


class Predictions(NamedTuple):
    """Probabilities of images, and the training images near them."""

    probs: Tensor  # (n, c), half by an image's own features, half by its neighbors'
    neighbors: NDArray[np.int64]  # (n, k), rows of training images, nearest first
    distances: NDArray[np.float32]  # (n, k), one less the cosine, in [0, 2]

    def rank(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The two likeliest clusters of each image and their probabilities, ``(n, 2)`` each."""
        best = self.probs.topk(2, dim=1)  # K is at least 2
        return best.indices.numpy(), best.values.clamp(0.0, 1.0).numpy()


class Model(NamedTuple):
    """A consensus of heads, and the training images among which new ones have neighbors."""

    directions: Directions
    whitening: NDArray[np.float32]  # (r,) or (r, r), see `whiten`
    heads: Heads
    orders: NDArray[np.int64]  # (h, c), which cluster of a head is which of the consensus
    points: NDArray[np.float32]  # (n, r), the training images
    probs: Tensor  # (n, c), what the heads say of them
    neighbors: NDArray[np.int64]  # (n, k), without themselves
    known_labels: NDArray[np.int64]  # (n,), -1 = unknown
    reads_coordinates: bool  # whether heads look at coordinates as they are, not at points

    @property
    def n_clusters(self) -> int:
        """K."""
        return int(self.probs.shape[1])

    def predict(self, features: NDArray[np.float32]) -> Predictions:
        """Cluster new images: half by the heads, half by their 10 nearest training images.

        Args:
            features: Shape ``(n, d)``, float32, finite, of the backbone that training had.

        Raises:
            ValueError: If features are not a finite float32 matrix of the dims of training.
        """
        coordinates = self.directions.project(features)  # (n, r)
        points = whiten(coordinates, self.whitening)  # (n, r)
        read = coordinates if self.reads_coordinates else points  # (n, r)
        probs = average(self.heads.predict(read), self.orders)  # (n, c)
        near, distances = find_neighbors(points, self.points)  # (n, k) each
        return Predictions(smooth(probs, self.probs, near), near, distances)

    def predict_training(self) -> Predictions:
        """Cluster the training images, labeled ones for sure by their label."""
        probs = smooth(self.probs, self.probs, self.neighbors)  # (n, c)
        known = torch.from_numpy(self.known_labels)
        labeled = (known >= 0).nonzero()[:, 0]
        probs[labeled] = torch.eye(self.n_clusters)[known[labeled]]
        distances = measure_distances(self.points, self.points, self.neighbors)
        return Predictions(probs, self.neighbors, distances)

    def predict_splits(self, features: Mapping[str, NDArray[np.float32]]) -> dict[str, Predictions]:
        """Cluster all splits: ``train`` is what was learned from, the others have new images.

        Args:
            features: Split to features, ``(n, d)``.
        """
        return {
            split: self.predict_training() if split == "train" else self.predict(rows)
            for split, rows in features.items()
        }


def find_neighbors(
    points: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The 10 nearest of some other points, fewer where there are fewer.

    Args:
        points: Shape ``(n, r)``, of unit length.
        others: Shape ``(m, r)``, of unit length.

    Returns:
        Rows of the others, ``(n, k)``, nearest first, and one less the cosine to them, ``(n, k)``.
    """
    n_nearest = min(N_NEIGHBORS, len(others))
    found = find_nearest(torch.from_numpy(points), torch.from_numpy(others), n_nearest)
    near = torch.cat([torch.empty(0, n_nearest, dtype=torch.int64), *found]).numpy()  # (n, k)
    return near, measure_distances(points, others, near)


def measure_distances(
    points: NDArray[np.float32], others: NDArray[np.float32], near: NDArray[np.int64]
) -> NDArray[np.float32]:
    """One less the cosine to each of some other points.

    Args:
        points: Shape ``(n, r)``, of unit length.
        others: Shape ``(m, r)``, of unit length.
        near: Rows of the others, ``(n, k)``.

    Returns:
        Shape ``(n, k)``, float32, in ``[0, 2]``.
    """
    distances = np.empty(near.shape, dtype=np.float32)
    for start in range(0, len(points), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        distances[rows] = 1.0 - np.einsum("nr,nkr->nk", points[rows], others[near[rows]])
    return distances.clip(0.0, 2.0)


def save_model(path: str | Path, model: Model, about: Mapping[str, Any]) -> None:
    """Write a model to a safetensors file, whole or not at all.

    Args:
        path: The file.
        model: What is to be kept.
        about: JSON that comes back with it: backbone, view, names of images and clusters.
    """
    save_tensors(path, take_apart(model), about={"format": FORMAT, **about})


def read_model(path: str | Path) -> tuple[Model, dict[str, Any]]:
    """Read a model, and what was said about it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no model of the recipe, one of another format, or damaged.
    """
    tensors, about = read_tensors(path)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise ValueError(
            f"{path} must be a model of the recipe of format {FORMAT}, got format {found}; "
            "delete it and run the workflow again"
        )
    return put_together(tensors), about


def take_apart(model: Model) -> dict[str, Tensor]:
    """The tensors of a model by name, from which :func:`put_together` makes it again."""
    return {
        "mean": torch.from_numpy(model.directions.mean),
        "directions": torch.from_numpy(model.directions.vectors),
        "variances": torch.from_numpy(model.directions.variances),
        "whitening": torch.from_numpy(model.whitening),
        "head_weights": model.heads.weights,
        "head_biases": model.heads.biases,
        "head_orders": torch.from_numpy(model.orders),
        "training_points": torch.from_numpy(model.points),
        "training_probs": model.probs,
        "training_neighbors": torch.from_numpy(model.neighbors),
        "training_known_labels": torch.from_numpy(model.known_labels),
        "reads_coordinates": torch.tensor(model.reads_coordinates),
    }


def put_together(tensors: Mapping[str, Tensor]) -> Model:
    """A model of the tensors of :func:`take_apart`."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return Model(
        Directions(arrays["mean"], arrays["directions"], arrays["variances"]),
        arrays["whitening"],
        Heads(tensors["head_weights"], tensors["head_biases"]),
        arrays["head_orders"],
        arrays["training_points"],
        tensors["training_probs"],
        arrays["training_neighbors"],
        arrays["training_known_labels"],
        reads_coordinates=bool(arrays["reads_coordinates"]),
    )
