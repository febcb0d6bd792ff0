"""Inputs of a training, opened from stores."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.rank_reference import random_features, ranks, redraw, unlabeled
from tests.training.runs import make_run, write_files
from unic.images.index import read_index, write_index
from unic.neighbors.far_pairs import FarPairs
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.neighbors.negatives import PoolSettings
from unic.runtime.processes import ALONE
from unic.storage.stores import Store, open_store, write_derived, write_features, write_known_labels
from unic.training.inputs import PairInputs
from unic.training.pairs import NegativeSampler
from unic.training.run import train


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


# Cached views


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


def test_refuses_tokens_that_were_kept_for_another_head(files: Path, tmp_path: Path) -> None:
    run = make_run(files, tmp_path, "negatives", "tokens")
    run = replace(run, model=replace(run.model, head="self_attention"))
    with pytest.raises(ValueError, match="must hold views of the 40 training images by this"):
        train(run, ALONE)


def test_refuses_tokens_of_other_images(files: Path, tmp_path: Path) -> None:
    index = tmp_path / "images.parquet"
    ids = read_index(files / "images.parquet")
    write_index(index, {"train": ids["train"][::-1]}, name="folder", root=str(files))
    run = make_run(files, tmp_path, "negatives", "tokens")
    run = replace(run, views=replace(run.views, images=str(index)))
    with pytest.raises(ValueError, match="must hold views of the 40 training images"):
        train(run, ALONE)
