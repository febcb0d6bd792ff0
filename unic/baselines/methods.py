"""What a clustering method is given, and what it finds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class MethodInputs(NamedTuple):
    """What a method may see of the images: features of all splits, neighbors in training."""

    features: Mapping[str, NDArray[np.float32]]  # split to (n, d); "train" is among them
    neighbors: NDArray[np.int64]  # (n, k) of "train", nearest first, column 0 the image itself
    known_labels: NDArray[np.int64]  # (n,) of "train", -1 = unknown


# Split to clusters (n,) and confidence (n,) in [0, 1].
Found = dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]
