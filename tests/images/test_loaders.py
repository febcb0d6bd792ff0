import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unic.images.augmentations import choose_augmentation
from unic.images.images import ArrayImages, FileImages, Images
from unic.images.loaders import ViewLoader, split_rows
from unic.images.views import View, prepare_image

VIEW = View(16, 0.875, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
AUGMENTATIONS = [None, "gcd", "scan", "warp"]


class Counted:
    """Images that count how often they are read, with an id for each row."""

    def __init__(self, images: Images):
        self.images, self.ids, self.reads = images, images.ids, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        self.reads += 1
        return self.images[row]


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unic.images.loaders.MEMORY_LIMIT", 0)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def noise(n_images: int) -> ArrayImages:
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(n_images, 20, 24, 3), dtype=np.uint8)
    return ArrayImages([str(row) for row in range(n_images)], pixels)


def load(
    images: Images,
    augmentation: str | None,
    rows: list[NDArray[np.int64]],
    *,
    n_workers: int = 1,
    seed: int = 0,
) -> list[Tensor]:
    loader = ViewLoader(
        images, VIEW, augmentation=choose_augmentation(augmentation), n_workers=n_workers
    )
    return list(loader.batches(rows, np.random.default_rng(seed)))


def batches_of(*rows: list[int]) -> list[NDArray[np.int64]]:
    return [np.array(batch, dtype=np.int64) for batch in rows]


def assert_equal(first: list[Tensor], second: list[Tensor]) -> None:
    assert [batch.shape for batch in first] == [batch.shape for batch in second]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# Against preparing one image after the other


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_gives_the_evaluation_views_in_the_order_of_the_rows(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.images.loaders.MEMORY_LIMIT", limit)
    images = noise(30)
    rows = batches_of([3, 1, 29], [0, 0], [7], [5, 4, 3, 2], [28, 27], [1])
    batches = load(images, None, rows, n_workers=3)
    assert len(batches) == len(rows)
    for batch, found in zip(rows, batches, strict=True):
        each = [prepare_image(images[row], VIEW) for row in batch]
        expected = VIEW.normalize(torch.stack(each))
        assert torch.equal(found, expected)
        assert found.dtype == torch.float32


# Laws


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.usefixtures("uncached")
def test_the_number_of_workers_changes_nothing(augmentation: str | None) -> None:
    images, rows = noise(40), split_rows(40, 7)
    expected = load(images, augmentation, rows, n_workers=1)
    assert_equal(load(images, augmentation, rows, n_workers=4), expected)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_keeping_images_in_memory_changes_nothing(
    augmentation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, rows = noise(40), split_rows(40, 7)
    expected = load(images, augmentation, rows)
    monkeypatch.setattr("unic.images.loaders.MEMORY_LIMIT", 0)
    assert_equal(load(images, augmentation, rows), expected)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_the_generator_decides_the_views(augmentation: str | None) -> None:
    images, rows = noise(12), batches_of([0, 1, 2], [3, 4])
    loader = ViewLoader(images, VIEW, augmentation=choose_augmentation(augmentation))
    first, again, other = (
        list(loader.batches(rows, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    assert_equal(first, again)
    is_random = augmentation is not None
    assert torch.equal(first[0], other[0]) is not is_random


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_parts_of_a_whole_are_the_same_however_it_is_cut(
    limit: int, augmentation: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.images.loaders.MEMORY_LIMIT", limit)
    loader = ViewLoader(
        noise(20), VIEW, augmentation=choose_augmentation(augmentation), n_workers=2
    )
    for size in (1, 3, 8, 20):
        generator = np.random.default_rng(0)
        found = torch.cat(list(loader.batches(split_rows(20, size), generator, is_whole=True)))
        expected = load(loader.images, augmentation, split_rows(20, 20))[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("augmentation", ["gcd", "scan", "warp"])
def test_two_views_of_an_image_differ(augmentation: str | None) -> None:
    first, second = load(noise(3), augmentation, batches_of([1, 1], [1]))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("augmentation", [None, "warp"])
def test_reads_images_that_fit_into_memory_once(augmentation: str | None) -> None:
    images = Counted(noise(10))
    loader = ViewLoader(images, VIEW, augmentation=choose_augmentation(augmentation))
    for _ in range(3):
        list(loader.batches(split_rows(10, 4), np.random.default_rng(0)))
    assert images.reads == 10


@pytest.mark.parametrize("augmentation", ["gcd", "scan"])
def test_reads_images_anew_for_each_random_crop(augmentation: str | None) -> None:
    images = Counted(noise(10))
    loader = ViewLoader(images, VIEW, augmentation=choose_augmentation(augmentation))
    for _ in range(3):
        list(loader.batches(split_rows(10, 4), np.random.default_rng(0)))
    assert images.reads == 30


def test_the_limit_counts_prepared_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    n_bytes = 10 * 3 * 16 * 16
    for limit, reads in ((n_bytes, 10), (n_bytes - 1, 20)):
        monkeypatch.setattr("unic.images.loaders.MEMORY_LIMIT", limit)
        images = Counted(noise(10))
        loader = ViewLoader(images, VIEW)
        for _ in range(2):
            list(loader.batches(split_rows(10, 4), np.random.default_rng(0)))
        assert images.reads == reads


def test_images_that_are_read_once_are_read_batch_by_batch() -> None:
    images = Counted(noise(100))
    loader = ViewLoader(images, VIEW, is_read_once=True)
    first = next(loader.batches(split_rows(100, 5), np.random.default_rng(0)))
    assert images.reads <= 3 * 5
    kept = next(ViewLoader(noise(100), VIEW).batches(split_rows(100, 5), np.random.default_rng(0)))
    assert torch.equal(first, kept)


@pytest.mark.usefixtures("uncached")
def test_reads_only_a_few_batches_ahead() -> None:
    images = Counted(noise(100))
    batches = ViewLoader(images, VIEW).batches(split_rows(100, 5), np.random.default_rng(0))
    next(batches)
    assert images.reads <= 3 * 5
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (8, 4, [4, 4]), (3, 5, [3]), (1, 1, [1])],
)
def test_split_rows_cuts_all_rows_in_order(n_rows: int, batch_size: int, sizes: list[int]) -> None:
    batches = split_rows(n_rows, batch_size)
    assert [len(batch) for batch in batches] == sizes
    assert np.concatenate(batches).tolist() == list(range(n_rows))


# Refusals


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("n_workers", [1, 4])
def test_names_an_image_that_cannot_be_decoded(
    augmentation: str | None, n_workers: int, tmp_path: Path
) -> None:
    ids = [f"{number}.png" for number in range(20)]
    for image_id in ids:
        Image.new("RGB", (20, 20)).save(tmp_path / image_id)
    (tmp_path / "13.png").write_bytes(b"no image")
    images = FileImages(ids, str(tmp_path))
    with pytest.raises(ValueError, match=f"cannot decode {tmp_path}/13.png"):
        load(images, augmentation, split_rows(20, 3), n_workers=n_workers)


@pytest.mark.usefixtures("uncached")
def test_batches_before_a_broken_image_are_given(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    loader = ViewLoader(FileImages(["0.png", "1.png"], str(tmp_path)), VIEW)
    batches = loader.batches(batches_of([0], [0], [1]), np.random.default_rng(0))
    assert torch.equal(next(batches), next(batches))
    with pytest.raises(ValueError, match=r"1\.png"):
        next(batches)
