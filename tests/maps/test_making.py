"""The store of a map: what it holds, and that the same stores give the same bytes."""

from pathlib import Path

import numpy as np
import pytest

from tests.maps.made import blobs
from tests.shards import content
from unic.maps.layout import map_images
from unic.maps.making import make_map
from unic.maps.trustworthiness import score_map
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.storage.stores import Store, open_store, write_derived, write_features


def make_stores(folder: Path, metric: str = "cosine", name: str = "image") -> tuple[Store, Store]:
    features = blobs(90) * np.random.default_rng(0).uniform(1, 9, (90, 1)).astype(np.float32)
    ids = {"train": [f"{name}{row}" for row in range(90)], "test": ["x"]}
    path = folder / "features.zarr/zarr.json"
    write_features(path, {"train": features, "test": features[:1]}, ids, backbone="x")
    store = open_store(path, kind="features")
    mined = mine_neighbors(to_euclidean(features, metric), n_neighbors=8, far_rank=30)
    path = folder / "neighbors.zarr/zarr.json"
    parameters = {"metric": metric, "n_neighbors": 8}
    write_derived(path, "neighbors", mined.arrays(), of=store, parameters=parameters)
    return store, open_store(path, kind="neighbors")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_map_is_of_the_features_that_were_mined(metric: str, tmp_path: Path) -> None:
    features, neighbors = make_stores(tmp_path, metric)
    found = make_map(features, neighbors, tmp_path / "map.zarr")
    points, indices = to_euclidean(features.read("features"), metric), neighbors.read("indices")
    positions = map_images(indices, points, seed=0, n_neighbors=7)
    np.testing.assert_array_equal(found.read("positions"), positions)
    scores = score_map(positions, indices, points)._asdict()
    assert found.parameters("map") == {"seed": 0, "n_neighbors": 7, "scores": scores}
    assert found.parameters("neighbors")["metric"] == metric
    assert found.splits == ["train"]
    assert found.attributes["images"]["train"] == features.attributes["images"]["train"]


def test_the_same_stores_give_the_same_bytes(tmp_path: Path) -> None:
    stores = make_stores(tmp_path)
    make_map(*stores, tmp_path / "one.zarr")
    make_map(*stores, tmp_path / "other.zarr/zarr.json")
    assert content(tmp_path / "one.zarr") == content(tmp_path / "other.zarr")


def test_refuses_stores_of_different_images(tmp_path: Path) -> None:
    features, _ = make_stores(tmp_path / "one")
    _, neighbors = make_stores(tmp_path / "other", name="photo")
    with pytest.raises(ValueError, match="digests of the train images differ"):
        make_map(features, neighbors, tmp_path / "map.zarr")
