import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare

from tests.rank_reference import random_features, ranks, redraw, unlabeled
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.neighbors.negatives import LabeledPool, PoolSettings, RandomPool, index_negatives
from unic.storage.stores import Store, open_store, write_derived, write_features, write_known_labels
from unic.training.inputs import PairInputs
from unic.training.pairs import FreshNegatives, NegativeSampler, StoredNegatives

HALF_LABELED = np.array([0, 0, 0, 1, 2, 2, -1, -1, -1, -1], dtype=np.int64)


def open_negatives(
    paths: Mapping[str, Path | str], known: Store, pool: PoolSettings, *, device: str
) -> NegativeSampler | FarPairs:
    files = {name: str(path) for name, path in paths.items() if name != "known_labels"}
    inputs = PairInputs("", "", draw="each_epoch", pool=pool, **files)
    return inputs.open_negatives(known, torch.device(device))


def settings(
    is_excluded: bool = True, *, pool: str = "far", labeled_share: float = 0.0
) -> PoolSettings:
    return PoolSettings(pool, labeled_share, is_excluded)


def test_stored_negatives_are_drawn_uniformly() -> None:
    rows = np.arange(40)[:, None] * 10 + np.arange(8)  # (n, m)
    drawn = redraw(StoredNegatives(rows), 40, 2000)
    assert (drawn // 10 == np.arange(40)[:, None]).all()
    assert chisquare(np.bincount((drawn % 10).ravel())).pvalue > 1e-4


# Random negatives: of all images, listed one by one


@pytest.mark.parametrize("is_excluded", [True, False])
def test_random_negatives_are_uniform_over_all_that_may_be_drawn(is_excluded: bool) -> None:
    sampler = RandomPool(HALF_LABELED, exclude_known_same_label=is_excluded)
    drawn = sampler.draw(np.arange(10), 6000, np.random.default_rng(0))
    for anchor, label in enumerate(HALF_LABELED):
        allowed = [
            image
            for image in range(10)
            if image != anchor and not (is_excluded and label >= 0 and HALF_LABELED[image] == label)
        ]
        counts = np.bincount(drawn[anchor], minlength=10)
        assert np.flatnonzero(counts).tolist() == allowed
        assert chisquare(counts[allowed]).pvalue > 1e-4


def test_random_negatives_of_one_epoch_are_those_of_a_single_draw() -> None:
    sampler = RandomPool(HALF_LABELED)
    anchors = np.array([9, 0, 4])
    drawn = FreshNegatives(sampler).sample(anchors, np.random.default_rng(3))
    np.testing.assert_array_equal(drawn, sampler.draw(anchors, 1, np.random.default_rng(3))[:, 0])


@pytest.mark.parametrize(
    ("known_labels", "message"),
    [([3, 3, 3], "all are known to be of class 3"), ([-1], "at least 2 images, got 1")],
)
def test_refuses_images_without_a_random_negative(
    known_labels: Sequence[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RandomPool(np.array(known_labels, dtype=np.int64))


# Labeled negatives


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_labeled_anchors_get_their_share_of_labeled_negatives(share: float) -> None:
    """Draws from unlabeled images otherwise, so that the two kinds can be told apart."""
    sampler = LabeledPool(OnlyUnlabeled(10), HALF_LABELED, share=share)
    drawn = sampler.draw(np.arange(10), 4000, np.random.default_rng(1))
    for anchor, label in enumerate(HALF_LABELED):
        is_labeled = HALF_LABELED[drawn[anchor]] >= 0
        if label < 0:
            assert not is_labeled.any()
            continue
        others = np.flatnonzero((HALF_LABELED >= 0) & (label != HALF_LABELED))
        assert abs(is_labeled.mean() - share) < 5 * np.sqrt(share * (1 - share) / 4000) + 1e-12
        if share:
            counts = np.bincount(drawn[anchor][is_labeled], minlength=10)
            assert np.flatnonzero(counts).tolist() == others.tolist()
            assert chisquare(counts[others]).pvalue > 1e-4


class OnlyUnlabeled:
    """A pool of the last four images, none of them labeled."""

    def __init__(self, n_images: int) -> None:
        self.n_images = n_images

    def __len__(self) -> int:
        return self.n_images

    def sample(
        self, anchors: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        return self.draw(anchors, 1, generator)[:, 0]

    def draw(
        self, anchors: NDArray[np.int64], n_negatives: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        return generator.integers(6, 10, size=(len(anchors), n_negatives))


@pytest.mark.parametrize(
    ("known_labels", "share", "message"),
    [
        ([0, 0, -1], 0.5, "at least 2 labeled classes, got 1"),
        ([-1, -1, -1], 0.5, "at least 2 labeled classes, got 0"),
        ([0, 1, -1], 1.5, "labeled_share must be from 0 to 1, got 1.5"),
        ([0, 1], 0.5, "shape (3,), got int64 of shape (2,)"),
    ],
)
def test_refuses_labeled_negatives_that_cannot_be(
    known_labels: Sequence[int], share: float, message: str
) -> None:
    labels = np.array(known_labels, dtype=np.int64)
    with pytest.raises(ValueError, match=re.escape(message)):
        LabeledPool(OnlyUnlabeled(3), labels, share=share)


def test_indexed_negatives_are_those_of_the_pool() -> None:
    pool = RandomPool(unlabeled(50))
    indexed = index_negatives(pool, n_negatives=5, generator=np.random.default_rng(2))
    expected = pool.draw(np.arange(50), 5, np.random.default_rng(2))
    np.testing.assert_array_equal(indexed, expected)


@pytest.mark.parametrize(
    ("n_negatives", "block_size", "message"),
    [(0, None, "n_negatives must be at least 1, got 0"), (1, 0, "block_size must be at least 1")],
)
def test_refuses_to_index_nothing(n_negatives: int, block_size: int | None, message: str) -> None:
    pool = RandomPool(unlabeled(5))
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        index_negatives(pool, n_negatives=n_negatives, generator=generator, block_size=block_size)


# From stores


IDS = {"train": [str(row) for row in range(60)]}


def write_stores(
    folder: Path, known_labels: NDArray[np.int64], *, metric: str = "euclidean"
) -> tuple[dict[str, str], Store]:
    """Paths of features, neighbors and negatives of 60 images, and the known labels."""
    paths = {name: str(folder / f"{name}.zarr" / "zarr.json") for name in ("features", "neighbors")}
    features = random_features(60, 5)
    write_features(paths["features"], {"train": features}, IDS, backbone=None)
    mined = mine_neighbors(to_euclidean(features, metric), n_neighbors=3, far_rank=20)
    write_derived(
        paths["neighbors"],
        "neighbors",
        mined.arrays(),
        of=open_store(paths["features"], kind="features"),
        parameters={"far_rank": 20, "far_radius": "exact", "metric": metric},
    )
    known = folder / "known.zarr" / "zarr.json"
    write_known_labels(known, known_labels, IDS["train"])
    return paths, open_store(known, kind="known_labels")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("is_excluded", [True, False])
def test_far_sets_of_stores_are_those_of_the_features(
    tmp_path: Path, metric: str, is_excluded: bool
) -> None:
    known_labels = np.arange(60, dtype=np.int64) % 2 - 1
    paths, known = write_stores(tmp_path, known_labels, metric=metric)
    sampler = open_negatives(paths, known, settings(is_excluded), device="cpu")
    is_far = ranks(to_euclidean(random_features(60, 5), metric)) >= 20
    if is_excluded:
        is_far &= (known_labels[:, None] < 0) | (known_labels[:, None] != known_labels)
    drawn = redraw(sampler, 60, 1500)
    for i, row in enumerate(is_far):
        assert set(drawn[i].tolist()) == set(np.flatnonzero(row).tolist())


def test_a_stored_set_is_taken_where_there_is_one(tmp_path: Path) -> None:
    paths, known = write_stores(tmp_path, unlabeled(60))
    path = str(tmp_path / "negatives.zarr" / "zarr.json")
    arrays = {"indices": np.full((60, 4), 7, dtype=np.int64)}
    neighbors = open_store(paths["neighbors"], kind="neighbors")
    write_derived(path, "negatives", arrays, of=neighbors, parameters={})
    sampler = open_negatives({"negatives": path}, known, settings(), device="cpu")
    assert (redraw(sampler, 60, 3) == 7).all()


def test_refuses_stores_of_another_data_set(tmp_path: Path) -> None:
    paths, _ = write_stores(tmp_path, unlabeled(60))
    other = tmp_path / "other.zarr" / "zarr.json"
    write_known_labels(other, unlabeled(60), [f"other{row}" for row in range(60)])
    known = open_store(other, kind="known_labels")
    with pytest.raises(ValueError, match=r"same image in .*features\.zarr and .*other\.zarr"):
        open_negatives(paths, known, settings(), device="cpu")


def test_refuses_neighbors_of_other_features(tmp_path: Path) -> None:
    paths, known = write_stores(tmp_path, unlabeled(60))
    write_features(paths["features"], {"train": 2 * random_features(60, 5)}, IDS, backbone=None)
    with pytest.raises(ValueError, match="must be the distance at far_rank=20 in these features"):
        open_negatives(paths, known, settings(), device="cpu")


def test_pools_of_stores_are_those_of_the_settings(tmp_path: Path) -> None:
    known_labels = np.arange(60, dtype=np.int64) % 3 - 1  # -1, 0, 1
    paths, known = write_stores(tmp_path, known_labels)
    sampler = open_negatives(paths, known, settings(pool="all"), device="cpu")
    drawn = redraw(sampler, 60, 1500)
    assert set(drawn[0].tolist()) == set(range(1, 60))  # unlabeled
    sampler = open_negatives(paths, known, settings(labeled_share=1.0), device="cpu")
    drawn = redraw(sampler, 60, 500)
    assert set(drawn[1].tolist()) == set(range(2, 60, 3))  # of label 0: all of label 1
    is_far = ranks(random_features(60, 5)) >= 20
    assert set(drawn[0].tolist()) == set(np.flatnonzero(is_far[0]).tolist())
