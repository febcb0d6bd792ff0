"""Label groups: the images of each known label, drawn from in one step."""

import numpy as np
from numpy.typing import NDArray


class LabelGroups:
    """Lists the labeled images once, label after label.

    Args:
        known_labels: Shape ``(n,)``, int64, -1 where unknown.

    Example:
        >>> groups = LabelGroups(np.array([0, -1, 0, 1]))
        >>> groups.n_others.tolist()
        [1, 3, 1, 2]
        >>> groups.draw_same(np.array([0]), np.array([0.9])).tolist()
        [2]
    """

    def __init__(self, known_labels: NDArray[np.int64]):
        n_images = len(known_labels)
        self.is_labeled = known_labels >= 0  # (n,)
        labeled = np.flatnonzero(self.is_labeled)  # (l,)
        labels = known_labels[labeled]  # (l,)
        order = np.argsort(labels, kind="stable")  # (l,)
        self._members = labeled[order]  # (l,)
        # Where the list of an image's own label starts, and how long it is; 0 where unlabeled.
        self._first = np.zeros(n_images, dtype=np.int64)  # (n,)
        self._count = np.zeros(n_images, dtype=np.int64)  # (n,)
        self._first[labeled] = np.searchsorted(labels[order], labels, side="left")
        self._count[labeled] = np.searchsorted(labels[order], labels, side="right")
        self._count -= self._first

    def __len__(self) -> int:
        """Number of images."""
        return len(self.is_labeled)

    @property
    def n_others(self) -> NDArray[np.int64]:
        """Labeled images ``(n,)`` of other labels than that of each image; all if unlabeled."""
        return len(self._members) - self._count

    def draw_same(
        self, anchors: NDArray[np.int64], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Images known to share the label of labeled anchors, themselves included.

        Args:
            anchors: Shape ``(b,)``, int64, labeled images.
            uniform: Shape ``(b,)``, float64 in [0, 1), which of them.
        """
        offset = (uniform * self._count[anchors]).astype(np.int64)  # (b,)
        drawn: NDArray[np.int64] = self._members[self._first[anchors] + offset]  # (b,)
        return drawn

    def draw_other(
        self, anchors: NDArray[np.int64], uniform: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Labeled images of other labels than those of labeled anchors.

        Args:
            anchors: Shape ``(b,)``, int64, labeled images with at least one such image.
            uniform: Shape ``(b,)``, float64 in [0, 1), which of them.
        """
        offset = (uniform * self.n_others[anchors]).astype(np.int64)  # (b,)
        offset += self._count[anchors] * (offset >= self._first[anchors])  # past the own label
        drawn: NDArray[np.int64] = self._members[offset]  # (b,)
        return drawn
