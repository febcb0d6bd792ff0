"""What every method refuses of its inputs."""

import numpy as np
from numpy.typing import NDArray

from unic.baselines.kmeans import check_n_clusters
from unic.baselines.methods import MethodInputs
from unic.neighbors.checks import check_neighbors
from unic.neighbors.metric import check_features
from unic.storage.known_labels import check_known_labels


def check_inputs(inputs: MethodInputs, n_clusters: int) -> NDArray[np.float32]:
    """Return the training features ``(n, d)`` if all inputs fit together.

    Raises:
        ValueError: If features are not finite float32 of one width, there are fewer than 2 or
            more than n clusters, or neighbors or known labels are not those of the n images.
    """
    if "train" not in inputs.features:
        raise ValueError(f"features must have a split train, got {sorted(inputs.features)}")
    train = inputs.features["train"]
    for split, features in inputs.features.items():
        if check_features(features).shape[1] != check_features(train).shape[1]:
            raise ValueError(
                f"features of {split} must have the {train.shape[1]} dims of train, "
                f"got {features.shape[1]}"
            )
    check_n_clusters(n_clusters, len(train))
    check_neighbors(inputs.neighbors, len(train))
    check_known_labels(inputs.known_labels, len(train))
    return train
