"""Features and cached views of shards, against those of one job."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.shards import COUNTS, content
from unic.features.cached_views import extract_tokens, join_tokens
from unic.features.frozen import FrozenBackbone
from unic.features.joining import join_features
from unic.features.scratch import extract_splits
from unic.images.augmentations import choose_augmentation
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.engines import Engine
from unic.runtime.shards import WHOLE, Shard
from unic.storage.row_files import BLOCK_ROWS
from unic.storage.stores import write_features

N_IMAGES = 2 * BLOCK_ROWS + 76
ENGINE = Engine("torch", torch.float32, torch.device("cpu"))
VIEW = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture(scope="module")
def images() -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 8, 8, 3), dtype=np.uint8)
    return ArrayImages([f"{row:04}" for row in range(N_IMAGES)], pixels)


# The same bytes


@pytest.mark.parametrize("count", COUNTS)
def test_features_of_shards_are_those_of_one_job(
    count: int, images: ArrayImages, tmp_path: Path
) -> None:
    backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    frozen = FrozenBackbone(backbone, ENGINE, only_features=True)
    ids = {"train": list(images.ids), "test": list(images.ids[:50])}
    splits = {"train": images, "test": ArrayImages(images.ids[:50], images.pixels[:50])}

    def write(name: str, shard: Shard) -> Path:
        store = tmp_path / name
        with extract_splits(
            splits, frozen, VIEW, shard=shard, batch_size=60, store=store, parameters={}
        ) as (found, held):
            write_features(store / "zarr.json", found, held, backbone="test_resnet")
        return store

    whole = write("whole.zarr", WHOLE)
    parts = [write(f"{index}.zarr", Shard(index, count)) for index in range(count)]
    join_features(tmp_path / "joined.zarr/zarr.json", parts, ids)
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
    engine = ENGINE._replace(precision=arguments.pop("precision"))
    extract_tokens(
        header,
        ViewLoader(images, VIEW, augmentation=choose_augmentation(augmentation)),
        FrozenBackbone(backbone, engine),
        n_views=2,
        batch_size=32,
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
        ({"precision": torch.bfloat16}, "float32' in {0} and 'torch "),
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


def test_refuses_features_that_are_not_those_of_the_images_in_order(tmp_path: Path) -> None:
    parts = [tmp_path / "0.zarr", tmp_path / "1.zarr"]
    for part in parts:
        features, ids = np.ones((2, 3), dtype=np.float32), [f"{part.stem}a", f"{part.stem}b"]
        write_features(part / "zarr.json", {"train": features}, {"train": ids}, backbone="x")
    ids = ["0a", "0b", "1a", "1b"]
    for wrong, n_held in ((parts[:1], 2), ([*parts, parts[1]], 6), (parts[::-1], 4)):
        with pytest.raises(
            ValueError, match=f"must hold the 4 train images in order, they hold {n_held};"
        ):
            join_features(tmp_path / "joined.zarr/zarr.json", wrong, {"train": ids})
    assert not (tmp_path / "joined.zarr").exists()


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
