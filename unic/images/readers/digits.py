"""The handwritten digits that come with scikit-learn; image ids are row numbers."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unic.images.images import ArrayImages
from unic.images.readers.annotations import Annotations, Catalog


def read_digits(_: Path) -> Catalog:
    """List the 1,797 digits, of which every fifth is for testing."""
    labels = _digits()[1]
    rows = np.arange(len(labels))
    splits = {"train": rows[rows % 5 != 4], "test": rows[rows % 5 == 4]}
    return Catalog(
        {split: [str(row) for row in chosen] for split, chosen in splits.items()},
        Annotations(
            {split: labels[chosen] for split, chosen in splits.items()},
            [str(digit) for digit in range(10)],
        ),
    )


def open_digits(ids: Sequence[str]) -> ArrayImages:
    """Open digits by their row numbers: uint8, shape ``(8, 8, 3)`` each."""
    return ArrayImages(ids, _digits()[0][[int(image_id) for image_id in ids]])


@cache
def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (1797, 8, 8, 3) and labels (1797,) of scikit-learn's handwritten digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (n, 8, 8)
    return np.repeat(gray[..., None], 3, axis=3), digits.target.astype(np.int64)
