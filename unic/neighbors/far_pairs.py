"""Pairs of images within a batch that are far from each other: negatives at no cost."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.storage.known_labels import check_known_labels, labels_told_apart

ROUNDING = 1e-12  # of squared lengths, far above what float64 loses


class FarPairs:
    """Tells which images of a batch are negatives of which (UNIC, Eq. 3).

    The anchors of a shuffled batch are uniform draws from the images, so those among them that
    lie beyond the far radius of an anchor are uniform draws from its far set. They went through
    the network already. An image just as far as the radius is not taken.

    Args:
        features: Shape ``(n, d)``, float32, those that were mined.
        far_radius: Shape ``(n,)``, float32, of :class:`unic.neighbors.mining.Neighbors`.
        known_labels: Shape ``(n,)``, int64, -1 where unknown.
        exclude_known_same_label: Whether images known to share the anchor's label are left out.
        device: Where distances are computed.

    Raises:
        ValueError: If shapes differ.

    Example:
        >>> features = np.array([[0], [1], [3], [7]], dtype=np.float32)
        >>> far_radius = np.array([2, 2, 3, 5], dtype=np.float32)
        >>> pairs = FarPairs(features, far_radius, known_labels=np.full(4, -1))
        >>> pairs.is_far(np.array([0, 1, 3])).int().tolist()
        [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        far_radius: NDArray[np.float32],
        *,
        known_labels: NDArray[np.int64],
        exclude_known_same_label: bool = True,
        device: torch.device | str = "cpu",
    ):
        shape = features.shape[:1]
        if features.ndim != 2 or far_radius.shape != shape:
            raise ValueError(
                "features and far_radius must have shapes (n, d) and (n,), got "
                f"{features.shape} and {far_radius.shape}"
            )
        check_known_labels(known_labels, len(features))
        self._features = torch.from_numpy(features).to(device)  # (n, d)
        mean = features.mean(axis=0, dtype=np.float64)  # (d,)
        self._mean = torch.from_numpy(mean).to(device)  # less it, lengths are those of distances
        self._far_radius = torch.from_numpy(far_radius).to(device)  # (n,)
        labels = labels_told_apart(
            known_labels, exclude_known_same_label=exclude_known_same_label
        )  # (n,)
        self._labels = torch.from_numpy(labels).to(device)  # (n,)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._features)

    def is_far(self, anchors: NDArray[np.int64]) -> Tensor:
        """Which images of a batch are far from which.

        Args:
            anchors: Shape ``(b,)``, rows of images, each at most once.

        Returns:
            bool, shape ``(b, b)``, on the device: whether column ``j`` is a negative of row ``i``.
        """
        rows = torch.from_numpy(anchors).to(self._features.device)
        features = self._features[rows].double() - self._mean  # (b, d)
        squares = features.square().sum(1)  # (b,)
        sums = squares[:, None] + squares  # (b, b)
        squared = sums * (1 - ROUNDING) - 2 * features @ features.T  # (b, b)
        distances = squared.clamp(min=0).sqrt().float()  # rounded as the radius is
        is_far = distances > self._far_radius[rows, None]  # (b, b)
        labels = self._labels[rows]  # (b,)
        return is_far & ((labels[:, None] < 0) | (labels[:, None] != labels))
