"""The neighbors of shards, against those of one job."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shards import COUNTS, content
from unic.neighbors.joining import join_neighbors
from unic.neighbors.mining import mine_neighbors
from unic.runtime.shards import WHOLE, Shard
from unic.storage.stores import Store, open_store, write_derived, write_features


def make_store(folder: Path, n_images: int = 700, n_dims: int = 24) -> Store:
    generator = np.random.default_rng(1)
    features = generator.normal(size=(9, n_dims))[generator.integers(9, size=n_images)]
    features = (features + 0.2 * generator.normal(size=features.shape)).astype(np.float32)
    ids = [str(row) for row in range(n_images)]
    write_features(
        folder / "features.zarr/zarr.json", {"train": features}, {"train": ids}, backbone="x"
    )
    return open_store(folder / "features.zarr", kind="features")


@pytest.mark.parametrize("far_radius", ["exact", "bound"])
@pytest.mark.parametrize("count", COUNTS)
def test_neighbors_of_shards_are_those_of_one_job(
    count: int, far_radius: str, tmp_path: Path
) -> None:
    store = make_store(tmp_path)
    features = store.read("features")

    def write(name: str, shard: Shard) -> Path:
        rows = shard.rows(len(features))
        found = mine_neighbors(
            features, n_neighbors=10, far_rank=90, far_bound=far_radius == "bound", rows=rows
        )
        parameters = {"n_neighbors": 10, "mining": found.stats.record()}
        if shard != WHOLE:
            parameters["rows"] = [rows.start, rows.stop]
        manifest = tmp_path / name / "zarr.json"
        write_derived(manifest, "neighbors", found.arrays(), of=store, parameters=parameters)
        return tmp_path / name

    whole = write("whole.zarr", WHOLE)
    if count == 1:
        return
    parts = [write(f"{index}.zarr", Shard(index, count)) for index in range(count)]
    join_neighbors(tmp_path / "joined.zarr/zarr.json", parts, of=store)
    assert content(tmp_path / "joined.zarr") == content(whole)


def test_refuses_parts_that_do_not_make_up_the_whole(tmp_path: Path) -> None:
    store = make_store(tmp_path, n_images=60)
    features, parts = store.read("features"), []
    for index in range(3):
        rows = Shard(index, 3).rows(60)
        found = mine_neighbors(features, n_neighbors=3, far_rank=20, rows=rows)
        parameters = {"mining": found.stats.record(), "rows": [rows.start, rows.stop]}
        manifest = tmp_path / f"{index}.zarr/zarr.json"
        write_derived(manifest, "neighbors", found.arrays(), of=store, parameters=parameters)
        parts.append(manifest.parent)
    for wrong in (parts[:2], [*parts, parts[2]], parts[::-1]):
        with pytest.raises(ValueError, match="must cover rows 0 to 59 once"):
            join_neighbors(tmp_path / "joined.zarr/zarr.json", wrong, of=store)
    assert not (tmp_path / "joined.zarr").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"far_radius": "bound"}, "far_radius is 'exact' in {0} and 'bound' in {1}; delete them"),
        ({"mining": {"engine": "faiss_ivf"}}, "engine is 'exact' in {0} and 'faiss_ivf' in {1};"),
    ],
)
def test_refuses_neighbors_of_other_settings(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    store = make_store(tmp_path, n_images=60)
    parts = [tmp_path / f"{index}.zarr" for index in range(2)]
    for index, part in enumerate(parts):
        rows = Shard(index, 2).rows(60)
        found = mine_neighbors(store.read("features"), n_neighbors=3, far_rank=20, rows=rows)
        parameters = {"far_radius": "exact", "rows": [rows.start, rows.stop]}
        parameters["mining"] = found.stats.record()
        if index:
            parameters |= {
                key: parameters[key] | value if isinstance(value, dict) else value
                for key, value in changes.items()
            }
        manifest = part / "zarr.json"
        write_derived(manifest, "neighbors", found.arrays(), of=store, parameters=parameters)
    with pytest.raises(ValueError, match=re.escape(message.format(*parts))):
        join_neighbors(tmp_path / "joined.zarr/zarr.json", parts, of=store)
