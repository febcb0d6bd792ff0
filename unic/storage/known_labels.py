"""Known labels: the classes that training may know of some images; none in clustering."""

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1


def check_known_labels(
    known_labels: NDArray[np.int64], n_images: int, *, n_clusters: int | None = None
) -> None:
    """Check that there is a label, or :data:`UNKNOWN`, for each of ``n`` images.

    Args:
        known_labels: To be checked.
        n_images: n.
        n_clusters: What labels must be below, where they name clusters.

    Raises:
        ValueError: If they are not int64 of shape ``(n,)``, or one is out of range.
    """
    if known_labels.shape != (n_images,) or known_labels.dtype != np.int64:
        raise ValueError(
            f"known_labels must be an int64 array of shape ({n_images},), "
            f"got {known_labels.dtype} of shape {known_labels.shape}"
        )
    lowest, highest = known_labels.min(initial=UNKNOWN), known_labels.max(initial=UNKNOWN)
    if lowest < UNKNOWN or (n_clusters is not None and highest >= n_clusters):
        below = "" if n_clusters is None else f" and below n_clusters={n_clusters}"
        raise ValueError(
            f"known_labels must be at least {UNKNOWN}{below}, got {lowest} to {highest}"
        )


def labels_told_apart(
    known_labels: NDArray[np.int64], *, exclude_known_same_label: bool
) -> NDArray[np.int64]:
    """The labels ``(n,)`` by which images are no negatives of each other; none where all may be."""
    return known_labels if exclude_known_same_label else np.full_like(known_labels, UNKNOWN)
