"""Inputs that every method must cluster alike, and those that every method must refuse."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from tests.experiment import rank_images
from unic.baselines.methods import Found, MethodInputs

N_TRAIN, N_TEST, N_DIMS, N_NEIGHBORS = 240, 60, 12, 11

Cluster = Callable[..., Found]


def rank(train: NDArray[np.float32], n_neighbors: int = N_NEIGHBORS) -> NDArray[np.int64]:
    return rank_images(train)[0][:, :n_neighbors]


def with_features(train: NDArray[np.float32], test: NDArray[np.float32]) -> MethodInputs:
    unknown = np.full(len(train), -1, dtype=np.int64)
    return MethodInputs({"train": train, "test": test}, rank(train), unknown)


def three_blobs(std: float = 0.5) -> tuple[MethodInputs, dict[str, NDArray[np.int64]]]:
    """Gaussians around three axes at a distance of 10 from 0, and which of them an image is of."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.arange(N_TRAIN + N_TEST) % 3)
    noise = rng.normal(scale=std, size=(N_TRAIN + N_TEST, N_DIMS))
    points = (10.0 * np.eye(3, N_DIMS)[truth] + noise).astype(np.float32)
    inputs = with_features(points[:N_TRAIN], points[N_TRAIN:])
    return inputs, {"train": truth[:N_TRAIN], "test": truth[N_TRAIN:]}


def permute(inputs: MethodInputs, order: NDArray[np.int64]) -> MethodInputs:
    """The same images, the training ones in another order."""
    train = inputs.features["train"][order]
    ranks = np.argsort(order)[inputs.neighbors[order]]
    features = {**inputs.features, "train": train}
    return MethodInputs(features, ranks, inputs.known_labels[order])


def run(cluster: Cluster, inputs: MethodInputs, n_clusters: int = 3, seed: int = 0) -> Found:
    generator = torch.Generator().manual_seed(seed)
    return cluster(inputs, n_clusters=n_clusters, generator=generator, device="cpu")


def is_same_partition(left: NDArray[np.int64], right: NDArray[np.int64]) -> bool:
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    return len(pairs) == len(set(left.tolist())) == len(set(right.tolist()))


def assert_finds_three_blobs(cluster: Cluster) -> None:
    """All splits fall apart as they were made, in one numbering, with types as promised."""
    inputs, truth = three_blobs()
    found = run(cluster, inputs)
    assert found.keys() == inputs.features.keys()
    for split, (clusters, confidence) in found.items():
        assert clusters.shape == confidence.shape == (len(inputs.features[split]),)
        assert clusters.dtype == np.int64
        assert confidence.dtype == np.float32
        assert clusters.min() >= 0
        assert clusters.max() < 3
        assert confidence.min() >= 0.0
        assert confidence.max() <= 1.0
    together = np.concatenate([found[split][0] for split in truth])
    assert is_same_partition(together, np.concatenate(list(truth.values())))


def assert_repeats_itself(cluster: Cluster) -> None:
    """The same seed gives the same bytes, whatever the state of the global generators."""
    inputs, _ = three_blobs(std=4.0)
    first = run(cluster, inputs)
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    second = run(cluster, inputs)
    for split in first:
        for left, right in zip(first[split], second[split], strict=True):
            assert left.tobytes() == right.tobytes()


def assert_leaves_inputs_alone(cluster: Cluster) -> None:
    inputs, _ = three_blobs()
    before = [array.tobytes() for array in (*inputs.features.values(), *inputs[1:])]
    run(cluster, inputs)
    assert before == [array.tobytes() for array in (*inputs.features.values(), *inputs[1:])]


def _not_finite() -> MethodInputs:
    inputs, _ = three_blobs()
    inputs.features["test"][5, 2] = np.nan
    return inputs


def _other_width() -> MethodInputs:
    inputs, _ = three_blobs()
    return inputs._replace(features={**inputs.features, "test": inputs.features["test"][:, :-1]})


def _other_images() -> MethodInputs:
    inputs, _ = three_blobs()
    return inputs._replace(neighbors=inputs.neighbors[:-1])


def _out_of_range() -> MethodInputs:
    inputs, _ = three_blobs()
    inputs.neighbors[3, 4] = N_TRAIN
    return inputs


def _without_self() -> MethodInputs:
    inputs, _ = three_blobs()
    return inputs._replace(neighbors=np.ascontiguousarray(inputs.neighbors[:, 1:]))


def _alone() -> MethodInputs:
    inputs, _ = three_blobs()
    return inputs._replace(neighbors=inputs.neighbors[:, :1])


def _other_labels() -> MethodInputs:
    inputs, _ = three_blobs()
    return inputs._replace(known_labels=inputs.known_labels[:-1])


def _no_training() -> MethodInputs:
    inputs, _ = three_blobs()
    return inputs._replace(features={"test": inputs.features["test"]})


# Inputs, K and the message.
REFUSALS = [
    (three_blobs()[0], 1, r"n_clusters must be at least 2 and at most n=240, got 1"),
    (three_blobs()[0], 241, r"n_clusters must be at least 2 and at most n=240, got 241"),
    (_not_finite(), 3, r"features must be finite, got 1 rows .* the first is row 5"),
    (_other_width(), 3, r"features of test must have the 12 dims of train, got 11"),
    (_no_training(), 3, r"features must have a split train, got \['test'\]"),
    (_other_images(), 3, r"neighbors must be .* shape \(n=240, k\), got int64 .* \(239, 11\)"),
    (_out_of_range(), 3, r"neighbors must be at least 0 and below n=240, got 0 to 240"),
    (_without_self(), 3, r"neighbors must have each image itself in column 0"),
    (_alone(), 3, r"neighbors must hold another image .* got shape \(240, 1\)"),
    (_other_labels(), 3, r"known_labels must be .* shape \(240,\), got int64 of shape \(239,\)"),
]
