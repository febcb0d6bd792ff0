import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from unic.features.cached_views import extract_tokens, join_tokens
from unic.features.extraction import extract_features
from unic.features.joining import join_features
from unic.images.augmentations import choose_augmentation
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.neighbors.joining import join_neighbors
from unic.neighbors.mining import mine_neighbors
from unic.runtime.shards import WHOLE, Shard, read_shard
from unic.storage.row_files import BLOCK_ROWS
from unic.storage.stores import Store, open_store, write_derived, write_features

N_IMAGES = 2 * BLOCK_ROWS + 76
CPU = torch.device("cpu")
VIEW = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.2,) * 3)
COUNTS = (1, 2, 3, 7)


@pytest.fixture(scope="module")
def images() -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 8, 8, 3), dtype=np.uint8)
    return ArrayImages([f"{row:04}" for row in range(N_IMAGES)], pixels)


def content(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# Shards


@pytest.mark.parametrize("multiple", [1, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("n_rows", [0, 1, 63, 64, 1000])
def test_shards_cover_all_rows_once_and_begin_at_multiples(
    n_rows: int, count: int, multiple: int
) -> None:
    shards = [Shard(i, count).rows(n_rows, multiple=multiple) for i in range(count)]
    assert [row for shard in shards for row in shard] == list(range(n_rows))
    assert all(shard.start % multiple == 0 for shard in shards if len(shard))
    blocks = [-(-len(shard) // multiple) for shard in shards]
    assert max(blocks) - min(blocks) <= 1


def test_a_job_finds_its_shard_in_its_wildcards() -> None:
    assert read_shard(SimpleNamespace(experiment="x")) == WHOLE
    assert read_shard(SimpleNamespace(shard="2", n_shards="7")) == Shard(2, 7)


# The same bytes


@pytest.mark.parametrize("count", COUNTS)
def test_features_of_shards_are_those_of_one_job(
    count: int, images: ArrayImages, tmp_path: Path
) -> None:
    backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    ids = {"train": list(images.ids), "test": list(images.ids[:50])}
    splits = {"train": images, "test": ArrayImages(images.ids[:50], images.pixels[:50])}

    def write(name: str, shard: Shard) -> Path:
        rows = {split: shard.rows(len(ids[split]), multiple=64) for split in ids}
        found = {
            split: extract_features(
                splits[split], backbone, VIEW, batch_size=64, device=CPU, rows=rows[split]
            )
            for split in ids
        }
        held = {split: ids[split][rows[split].start : rows[split].stop] for split in ids}
        write_features(tmp_path / name / "zarr.json", found, held, backbone="test_resnet")
        return tmp_path / name

    whole = write("whole.zarr", WHOLE)
    parts = [write(f"{index}.zarr", Shard(index, count)) for index in range(count)]
    join_features(tmp_path / "joined.zarr/zarr.json", parts, ids)
    assert content(tmp_path / "joined.zarr") == content(whole)


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


def write_views(
    header: Path,
    images: ArrayImages,
    backbone: Backbone,
    *,
    rows: range | None = None,
    augmentation: str = "scan",
    **changes: Any,
) -> Path:
    arguments = {"dtype": "float16", "seed": 0, "precision": torch.float32} | changes
    extract_tokens(
        header,
        ViewLoader(images, VIEW, augmentation=choose_augmentation(augmentation)),
        backbone,
        n_views=2,
        batch_size=32,
        device=CPU,
        parameters={"augmentation": augmentation, "view": {"image_size": 32}},
        rows=rows,
        **arguments,
    )
    return header


@pytest.mark.parametrize("augmentation", ["scan", "warp"])
@pytest.mark.parametrize("count", COUNTS)
def test_views_of_shards_are_those_of_one_job(
    count: int, augmentation: str, images: ArrayImages, tmp_path: Path
) -> None:
    backbone = load_backbone(
        "test_resnet", weights="random", options={}, image_size=32, is_frozen=True
    )

    def write(name: str, shard: Shard) -> Path:
        rows = shard.rows(N_IMAGES, multiple=BLOCK_ROWS)
        return write_views(tmp_path / name, images, backbone, rows=rows, augmentation=augmentation)

    whole = write("whole.json", WHOLE)
    parts = [write(f"{index}.json", Shard(index, count)) for index in range(count)]
    joined = tmp_path / "joined.json"
    join_tokens(joined, parts, list(images.ids))
    assert joined.read_bytes() == whole.read_bytes()
    assert joined.with_suffix(".bin").read_bytes() == whole.with_suffix(".bin").read_bytes()


# Refusals


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
    ids = store.read_image_ids()
    with pytest.raises(ValueError, match="must hold the 60 train images in order, they hold 120"):
        join_features(tmp_path / "j.zarr/zarr.json", [store.path] * 2, {"train": ids})


def test_refuses_parts_of_views_of_other_images(images: ArrayImages, tmp_path: Path) -> None:
    backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    few = ArrayImages(images.ids[:20], images.pixels[:20])
    write_views(tmp_path / "0.json", few, backbone)
    with pytest.raises(ValueError, match="must hold views of the 21 images in order"):
        join_tokens(tmp_path / "joined.json", [tmp_path / "0.json"], images.ids[:21])
    rows = (tmp_path / "0.bin").read_bytes()
    (tmp_path / "0.bin").write_bytes(rows[:100] + b"x" + rows[101:])
    with pytest.raises(ValueError, match=r"0\.bin is damaged: its checksum differs"):
        join_tokens(tmp_path / "joined.json", [tmp_path / "0.json"], images.ids[:20])
    assert json.loads((tmp_path / "0.json").read_text())["layout"]["n_images"] == 20


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": torch.bfloat16}, "parameters.precision is 'torch.float32' in {0} and "),
        ({"seed": 1}, "parameters.seed is 0 in {0} and 1 in {1}; delete them"),
        ({"augmentation": "gcd"}, "parameters.augmentation is 'scan' in {0} and 'gcd' in {1};"),
        ({"dtype": "int8"}, "layout.dtype is 'float16' in {0} and 'int8' in {1}; delete them"),
    ],
)
def test_refuses_parts_of_views_of_other_settings(
    changes: dict[str, Any], message: str, images: ArrayImages, tmp_path: Path
) -> None:
    backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    few = ArrayImages(images.ids[:20], images.pixels[:20])
    parts = [tmp_path / "0.json", tmp_path / "1.json"]
    write_views(parts[0], few, backbone)
    write_views(parts[1], few, backbone, **changes)
    with pytest.raises(ValueError, match=re.escape(message.format(*parts))):
        join_tokens(tmp_path / "joined.json", parts, [*few.ids, *few.ids])
    assert not (tmp_path / "joined.json").exists()


def test_refuses_features_of_other_backbones(tmp_path: Path) -> None:
    parts = [tmp_path / "x.zarr", tmp_path / "y.zarr"]
    for part in parts:
        features = np.ones((1, 3), dtype=np.float32)
        write_features(
            part / "zarr.json", {"train": features}, {"train": [part.stem]}, backbone=part.stem
        )
    message = f"backbone is 'x' in {parts[0]} and 'y' in {parts[1]}; delete them"
    with pytest.raises(ValueError, match=re.escape(message)):
        join_features(tmp_path / "joined.zarr/zarr.json", parts, {"train": ["x", "y"]})


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
