import numpy as np
import pytest
import torch
import umap
from numpy.typing import NDArray

from tests.baselines.blobs import (
    is_same_partition,
    permute,
    run,
    three_blobs,
    with_features,
)
from unic.baselines import umap_ward
from unic.baselines.umap_ward import cluster, make_reducer
from unic.baselines.ward import merge


class Reducer:
    """Stands for UMAP, which compiles for a minute: the first two coordinates, times the seed."""

    n_components = 2

    def __init__(self, seed: int):
        self.factor = np.float32(1 + seed % 7)

    def fit_transform(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.transform(features)

    def transform(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(features):
            raise ValueError("no samples")
        return features[:, :2] * self.factor


@pytest.fixture
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap_ward, "make_reducer", lambda n_images, seed: Reducer(seed))  # noqa: ARG005


@pytest.mark.parametrize(
    ("n_images", "n_components", "n_neighbors"), [(1000, 50, 30), (40, 38, 30), (20, 18, 19)]
)
def test_settings_are_those_of_the_paper_as_far_as_images_allow(
    n_images: int, n_components: int, n_neighbors: int
) -> None:
    reducer = make_reducer(n_images, seed=5)
    assert isinstance(reducer, umap.UMAP)
    assert reducer.n_components == n_components
    assert reducer.n_neighbors == n_neighbors
    assert reducer.min_dist == 0.0
    assert reducer.metric == "euclidean"
    assert reducer.random_state == 5


@pytest.mark.usefixtures("without_umap")
def test_merges_what_the_reducer_gives() -> None:
    inputs, _ = three_blobs(std=4.0)
    found = run(cluster, inputs, 6)
    expected = merge(inputs.features["train"][:, :2], 6)
    assert is_same_partition(found["train"][0], expected)


@pytest.mark.usefixtures("without_umap")
def test_new_images_go_to_the_nearest_mean_of_the_reduced_space() -> None:
    inputs, _ = three_blobs(std=4.0)
    found = run(cluster, inputs, 6)
    points = inputs.features["train"][:, :2].astype(np.float64)
    means = np.stack([points[found["train"][0] == c].mean(axis=0) for c in range(6)])
    for image, label in zip(inputs.features["test"][:, :2], found["test"][0], strict=True):
        assert label == min(range(6), key=lambda c: float(np.square(image - means[c]).sum()))


@pytest.mark.usefixtures("without_umap")
def test_the_seed_comes_from_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    make = umap_ward.make_reducer

    def keep_seed(n_images: int, seed: int) -> Reducer:
        seeds.append(seed)
        return make(n_images, seed)

    monkeypatch.setattr(umap_ward, "make_reducer", keep_seed)
    for seed in (0, 0, 1):
        run(cluster, three_blobs()[0], seed=seed)
    assert seeds[0] == seeds[1] != seeds[2]


@pytest.mark.usefixtures("without_umap")
def test_permuting_images_permutes_the_result() -> None:
    inputs, _ = three_blobs(std=4.0)
    order = np.random.default_rng(1).permutation(240)
    found, permuted = run(cluster, inputs, 6), run(cluster, permute(inputs, order), 6)
    assert is_same_partition(found["train"][0][order], permuted["train"][0])


@pytest.mark.usefixtures("without_umap")
def test_splits_keep_their_order_and_may_be_empty() -> None:
    inputs, _ = three_blobs()
    none = inputs.features["test"][:0]
    splits = {"test": none, "train": inputs.features["train"]}
    found = run(cluster, inputs._replace(features=splits))
    assert list(found) == ["test", "train"]
    assert len(found["test"][0]) == 0


def test_refuses_fewer_than_four_images() -> None:
    train = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="n must be at least 4 training images for UMAP, got 3"):
        cluster(
            with_features(train, train),
            n_clusters=2,
            generator=torch.Generator().manual_seed(0),
            device="cpu",
        )
