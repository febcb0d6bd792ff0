"""Classes of unequal size: images left out, so that what methods assume of sizes can be tested."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from unic.images.readers.annotations import Annotations


def thin_classes(
    ids: Mapping[str, Sequence[str]], annotations: Annotations | None, *, imbalance_ratio: float
) -> dict[str, list[str]]:
    """Leave images out, so that class sizes fall by the same factor from class to class.

    Class ``c`` of ``K`` keeps the share ``ratio^(-c / (K - 1))`` of its images in every split,
    rounded, at least one: classes of equal size get the sizes of the long-tailed versions of
    CIFAR (Cui et al., 2019), in the order of their numbers. Which images stay is drawn once, by a
    generator of its own; they keep their order.

    Args:
        ids: Image ids by split.
        annotations: True classes of these images.
        imbalance_ratio: How many times the share of the last class the first one keeps, at
            least 1, which leaves all images.

    Raises:
        ValueError: If the images have no labels.

    Example:
        >>> labels = np.repeat([0, 1, 2], 8)
        >>> ids = {"train": [f"{label}-{row}" for row, label in enumerate(labels)]}
        >>> annotations = Annotations({"train": labels}, ["ant", "bee", "cat"])
        >>> kept = thin_classes(ids, annotations, imbalance_ratio=4)["train"]
        >>> [sum(name.startswith(f"{label}-") for name in kept) for label in range(3)]
        [8, 4, 2]
    """
    if annotations is None:
        raise ValueError(
            "data.imbalance_ratio leaves out images by their class, and needs labels: the data "
            "set has none"
        )
    generator = np.random.default_rng(0)
    n_classes = len(annotations.class_names)
    shares = imbalance_ratio ** -np.linspace(0.0, 1.0, n_classes)  # (c,)
    return {
        split: [split_ids[row] for row in _draw(annotations.labels[split], shares, generator)]
        for split, split_ids in ids.items()
    }


def _draw(
    labels: NDArray[np.int64], shares: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows that stay, ascending: a share of each class, at least one image."""
    kept = []
    for label, share in enumerate(shares):
        rows = np.flatnonzero(labels == label)
        n_kept = max(1, round(share * len(rows)))
        kept.append(generator.permutation(rows)[:n_kept])
    return np.sort(np.concatenate(kept))
