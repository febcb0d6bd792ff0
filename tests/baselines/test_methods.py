"""What all methods have in common, and how they are run for every seed."""

from collections.abc import Mapping
from importlib import import_module

import numpy as np
import pytest
import torch

from tests.baselines.blobs import (
    REFUSALS,
    Cluster,
    assert_finds_three_blobs,
    assert_leaves_inputs_alone,
    assert_repeats_itself,
    run,
    three_blobs,
)
from unic.baselines.methods import Found, MethodInputs, method_predictions
from unic.experiments.stages import METHODS, method_module

# Shorter trainings of smaller heads: long enough to find blobs, and long enough to differ by seed.
SMALL: dict[str, dict[str, int]] = {
    "icon": {"BATCH_SIZE": 150},
    "scan": {"N_STEPS": 100},
    "temi": {"MIN_STEPS": 100, "MAX_STEPS": 100, "BATCH_SIZE": 64, "WIDTH": 32, "BOTTLENECK": 16},
    "turtle": {"N_STEPS": 500},
}
SHORT: dict[str, dict[str, int]] = {
    "icon": {"BATCH_SIZE": 150, "MIN_STEPS": 50, "MAX_STEPS": 50},
    "scan": SMALL["scan"],
    "temi": SMALL["temi"] | {"MAX_STEPS": 20},
    "turtle": {"N_STEPS": 50},
}
TRAINED = ("icon", "scan", "temi", "turtle")  # on features that are standardized first
EACH = [pytest.param(m, marks=[pytest.mark.slow] * (m == "umap_ward")) for m in METHODS]


def take(
    method: str, monkeypatch: pytest.MonkeyPatch, sizes: Mapping[str, Mapping[str, int]]
) -> Cluster:
    """The function of a method, whose trainings are as short as the sizes say."""
    module = import_module(method_module({}, method))
    for name, value in sizes.get(method, {}).items():
        monkeypatch.setattr(module, name, value)
    cluster: Cluster = module.cluster
    return cluster


@pytest.mark.parametrize("method", EACH)
def test_finds_three_blobs(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_finds_three_blobs(take(method, monkeypatch, SMALL))


@pytest.mark.parametrize("method", EACH)
def test_the_same_seed_gives_the_same_bytes(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_repeats_itself(take(method, monkeypatch, SHORT))


@pytest.mark.parametrize("method", EACH)
def test_leaves_its_inputs_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_leaves_inputs_alone(take(method, monkeypatch, SHORT))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("inputs", "n_clusters", "message"), REFUSALS)
def test_refuses(method: str, inputs: MethodInputs, n_clusters: int, message: str) -> None:
    cluster = import_module(method_module({}, method)).cluster
    with pytest.raises(ValueError, match=message):
        run(cluster, inputs, n_clusters)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_the_unit_of_the_features_does_not_matter(
    method: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = take(method, monkeypatch, SHORT)
    inputs, _ = three_blobs(std=4.0)
    scaled = {split: rows * np.float32(factor) for split, rows in inputs.features.items()}
    found, expected = run(cluster, inputs._replace(features=scaled)), run(cluster, inputs)
    assert found["test"][0].tolist() == expected["test"][0].tolist()


def test_a_method_runs_once_a_seed_and_its_time_is_measured() -> None:
    features = {"train": np.eye(6, dtype=np.float32), "test": np.eye(6, dtype=np.float32)[:2]}
    ids = {split: [f"{split}{row}" for row in range(len(rows))] for split, rows in features.items()}
    neighbors = np.stack([np.arange(6), (np.arange(6) + 1) % 6], axis=1)

    def cluster(
        inputs: MethodInputs, *, n_clusters: int, generator: torch.Generator, device: torch.device
    ) -> Found:
        assert (n_clusters, device.type) == (2, "cpu")
        return {
            split: (
                torch.randint(2, (len(rows),), generator=generator).numpy(),
                np.ones(len(rows), dtype=np.float32),
            )
            for split, rows in inputs.features.items()
        }

    predictions, times = method_predictions(
        cluster,
        MethodInputs(features, neighbors, np.full(6, -1)),
        ids,
        method="drawn",
        seeds=[3, 4],
        n_clusters=2,
        device=torch.device("cpu"),
    )
    assert predictions["image_id"].tolist() == 2 * (ids["train"] + ids["test"])
    for seed, group in predictions.groupby("seed"):
        generator = torch.Generator().manual_seed(int(seed))
        expected = [torch.randint(2, (n,), generator=generator) for n in (6, 2)]
        assert group["cluster"].tolist() == torch.cat(expected).tolist()
    assert times[["method", "seed"]].to_numpy().tolist() == [["drawn", 3], ["drawn", 4]]
    assert (times["processor_s"] >= 0).all()
