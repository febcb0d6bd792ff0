"""Clustering methods beside UNIC: what each is given and finds, run and timed for every seed."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.storage.prediction_tables import tabulate


class MethodInputs(NamedTuple):
    """What a method may see of the images: features of all splits, neighbors in training."""

    features: Mapping[str, NDArray[np.float32]]  # split to (n, d); "train" is among them
    neighbors: NDArray[np.int64]  # (n, k) of "train", nearest first, column 0 the image itself
    known_labels: NDArray[np.int64]  # (n,) of "train", -1 = unknown


# Split to clusters (n,) and confidence (n,) in [0, 1].
Found = dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]


def method_predictions(
    cluster: Callable[..., Found],
    inputs: MethodInputs,
    ids: Mapping[str, Sequence[str]],
    *,
    method: str,
    seeds: Sequence[int],
    n_clusters: int,
    device: torch.device,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cluster by a method for every seed, and measure the time that it takes.

    Args:
        cluster: Function of the method, from :class:`MethodInputs` to ``Found``.
        inputs: What it may see.
        ids: Image ids by split.
        method: Its name.
        seeds: One fit each.
        n_clusters: K.
        device: Where it computes.

    Returns:
        A table of predictions; and one of the columns ``method``, ``seed`` and ``processor_s``,
        seconds of processor of all threads.
    """
    tables, times = [], []
    for seed in seeds:
        start = time.process_time()
        found = cluster(
            inputs,
            n_clusters=n_clusters,
            generator=torch.Generator().manual_seed(seed),
            device=device,
        )
        seconds = time.process_time() - start
        tables.append(tabulate(method, seed, ids, found))
        times.append({"method": method, "seed": seed, "processor_s": round(seconds, 2)})
    return pd.concat(tables, ignore_index=True), pd.DataFrame(times)
