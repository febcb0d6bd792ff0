"""Extraction that goes on where it was killed, against one that ran through."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unic.features.extraction import embed_images
from unic.features.frozen import FrozenBackbone
from unic.features.scratch import extract_splits
from unic.images.images import ArrayImages
from unic.images.views import View
from unic.models.backbones import load_backbone
from unic.models.engines import Engine
from unic.runtime.shards import WHOLE
from unic.storage.row_files import BLOCK_ROWS

N_IMAGES, N_MANY = 2 * BLOCK_ROWS + 30, 12 * BLOCK_ROWS + 30
VIEW = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.2,) * 3)
ENGINE = Engine("torch", torch.float32, torch.device("cpu"))


class StoppedError(Exception):
    """What a test stops an extraction with."""


class CountedImages(ArrayImages):
    """Images that know how many were asked for, and stop at one of these."""

    n_read = 0
    stop_at: int | None = None

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        self.n_read += 1
        if self.stop_at == row:
            raise StoppedError
        return super().__getitem__(row)

    def fingerprint(self) -> str:
        return "the same"


def make_images(n_images: int = N_IMAGES) -> CountedImages:
    pixels = np.random.default_rng(0).integers(0, 255, (n_images, 8, 8, 3), dtype=np.uint8)
    return CountedImages([f"{row:04}" for row in range(n_images)], pixels)


@pytest.fixture(scope="module")
def frozen() -> FrozenBackbone:
    backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
    return FrozenBackbone(backbone, ENGINE, only_features=True)


def extract(
    store: Path,
    images: CountedImages,
    frozen: FrozenBackbone,
    *,
    parameters: dict[str, int] | None = None,
) -> dict[str, NDArray[np.float32]]:
    splits = {"train": images, "test": make_images(20)}
    with extract_splits(
        splits,
        frozen,
        VIEW,
        shard=WHOLE,
        batch_size=60,
        store=store,
        parameters=parameters or {},
    ) as (features, held):
        assert held == {split: part.ids for split, part in splits.items()}
        return {split: np.array(rows) for split, rows in features.items()}


def test_features_are_those_of_one_pass(frozen: FrozenBackbone, tmp_path: Path) -> None:
    images = make_images()
    found = extract(tmp_path / "features.zarr", images, frozen)
    expected = embed_images(images, frozen, VIEW, batch_size=N_IMAGES)
    np.testing.assert_array_equal(found["train"], expected)
    assert found["test"].shape == (20, frozen.backbone.n_dims)


def test_nothing_is_left_behind(frozen: FrozenBackbone, tmp_path: Path) -> None:
    extract(tmp_path / "features.zarr", make_images(), frozen)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_blocks", [0, 1, 2])
def test_a_stopped_extraction_goes_on(
    n_blocks: int, frozen: FrozenBackbone, tmp_path: Path
) -> None:
    images, store = make_images(), tmp_path / "features.zarr"
    expected = extract(tmp_path / "whole.zarr", make_images(), frozen)
    images.stop_at = min((n_blocks + 1) * BLOCK_ROWS, N_IMAGES) - 1
    with pytest.raises(StoppedError):
        extract(store, images, frozen)
    images.stop_at, images.n_read = None, 0
    found = extract(store, images, frozen)
    assert images.n_read == N_IMAGES - n_blocks * BLOCK_ROWS
    np.testing.assert_array_equal(found["train"], expected["train"])


def test_a_finished_split_is_not_read_again(frozen: FrozenBackbone, tmp_path: Path) -> None:
    images, store = make_images(), tmp_path / "features.zarr"

    def fail(images: CountedImages) -> None:
        with extract_splits(
            {"train": images}, frozen, VIEW, shard=WHOLE, batch_size=60, store=store, parameters={}
        ):
            raise StoppedError  # such as a full disk where the store is written

    with pytest.raises(StoppedError):
        fail(images)
    images.n_read = 0
    extract(store, images, frozen)
    assert images.n_read == 0


def test_rows_of_other_settings_or_weights_are_not_taken_up(
    frozen: FrozenBackbone, tmp_path: Path
) -> None:
    store = tmp_path / "features.zarr"
    other = load_backbone("test_resnet", weights="random", options={}, image_size=32, seed=1)
    for changed, parameters in ((frozen, {"code": 1}), (FrozenBackbone(other, ENGINE), {})):
        images = make_images()
        images.stop_at = N_IMAGES - 1
        with pytest.raises(StoppedError):
            extract(store, images, frozen)
        images.stop_at, images.n_read = None, 0
        extract(store, images, changed, parameters=parameters)
        assert images.n_read == N_IMAGES


_PROGRAM = """
import sys
from pathlib import Path
import numpy as np, torch
from tests.features.test_scratch import ENGINE, N_MANY, extract, make_images
from unic.features.frozen import FrozenBackbone
from unic.models.backbones import load_backbone
torch.set_num_threads(1)
backbone = load_backbone("test_resnet", weights="random", options={}, image_size=32)
images = make_images(N_MANY)
found = extract(Path(sys.argv[1]), images, FrozenBackbone(backbone, ENGINE, only_features=True))
np.save(sys.argv[2], found["train"])
print(images.n_read, flush=True)
"""


def test_kills_change_no_byte(tmp_path: Path) -> None:
    """SIGKILL as soon as another block is there, and what is left is taken up by the next."""

    def start(name: str) -> subprocess.Popen[str]:
        arguments = [str(tmp_path / f"{name}.zarr"), str(tmp_path / f"{name}.npy")]
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments], stdout=subprocess.PIPE, text=True
        )

    def count_blocks() -> int:
        path = tmp_path / ".killed.zarr.rows" / ".train.part.json"
        return len(json.loads(path.read_text())["checksums"]) if path.is_file() else 0

    start("whole").communicate()
    for _ in range(3):
        n_before, killed = count_blocks(), start("killed")
        while killed.poll() is None and count_blocks() == n_before:
            time.sleep(0.001)
        assert killed.poll() is None
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
    n_blocks = count_blocks()
    assert n_blocks >= 3
    output = start("killed").communicate()[0].split()
    assert int(output[-1]) == N_MANY - n_blocks * BLOCK_ROWS
    assert (tmp_path / "killed.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
