import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import unic.features.cached_views
import unic.storage.row_files
from tests.features.backbones import make_backbone
from unic.features.cached_views import CachedViews, extract_tokens
from unic.features.frozen import FrozenBackbone
from unic.features.token_layout import TokenLayout
from unic.images.augmentations import choose_augmentation
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone
from unic.models.engines import Engine
from unic.models.trunk_output import TrunkOutput
from unic.storage.digests import image_digest

N_IMAGES = 11
CPU = torch.device("cpu")
IDS = [str(row) for row in range(N_IMAGES)]


class StoppedError(Exception):
    pass


class StoppingLoader(ViewLoader):
    """Views up to a batch, at which the extraction is stopped."""

    left = 0

    def batches(self, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        for pixels in super().batches(*args, **kwargs):
            if self.left == 0:
                raise StoppedError
            self.left -= 1
            yield pixels


def make_loader(
    augmentation: str | None = "warp", kind: type[ViewLoader] = ViewLoader
) -> ViewLoader:
    pixels = np.random.default_rng(0).integers(0, 255, (N_IMAGES, 32, 32, 3), dtype=np.uint8)
    view = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.2,) * 3)
    return kind(ArrayImages(IDS, pixels), view, augmentation=choose_augmentation(augmentation))


def extract(header: Path, backbone: Backbone, **changes: Any) -> TokenLayout:
    arguments: dict[str, Any] = {
        "loader": make_loader(),
        "n_views": 3,
        "dtype": "float16",
        "batch_size": 4,
        "seed": 5,
        "precision": torch.float32,
        "parameters": {"augmentation": "warp"},
    }
    arguments |= changes
    engine = Engine("torch", arguments.pop("precision"), CPU)
    frozen = FrozenBackbone(backbone, engine)
    return extract_tokens(header, arguments.pop("loader"), frozen, **arguments)


class Extracted(NamedTuple):
    backbone: Backbone
    header: Path
    layout: TokenLayout


@pytest.fixture(params=["test_vit", "test_resnet"], scope="module")
def extracted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Extracted:
    header = tmp_path_factory.mktemp("tokens") / "tokens.json"
    backbone = make_backbone(request.param)
    return Extracted(backbone, header, extract(header, backbone))


@torch.no_grad()
def reference(backbone: Backbone, n_views: int = 3, block: int = N_IMAGES) -> list[TrunkOutput]:
    """The output of the trunk for each view of each image, one after the other."""
    found = []
    for number, first in enumerate(range(0, N_IMAGES, block)):
        rows = np.arange(first, min(first + block, N_IMAGES))
        groups = [np.repeat(g, n_views) for g in np.split(rows, range(4, len(rows), 4))]
        generator = np.random.default_rng([5, number])
        for pixels in make_loader().batches(groups, generator, is_whole=True):
            output = backbone.prepare(pixels)
            tokens = output.class_token
            found += [
                TrunkOutput(output.tokens[i], None if tokens is None else tokens[i])
                for i in range(len(pixels))
            ]
    return found


def read_all(cached: CachedViews) -> TrunkOutput:
    """All views of all images, in order."""
    return cached.layout.unpack(cached._records.view(torch.uint8))


def exact_tokens(output: TrunkOutput) -> Tensor:
    tokens = output.tokens.float()
    return tokens if output.scales is None else tokens * output.scales[..., None]


# Files, against the trunk itself


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("int8", 5e-3)])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_of_a_frozen_backbone_features_are_cached(
    name: str, dtype: str, tolerance: float, tmp_path: Path
) -> None:
    whole, frozen = make_backbone(name), make_backbone(name, is_frozen=True)
    header = tmp_path / "tokens.json"
    layout = extract(header, frozen, dtype=dtype)
    assert (layout.shape, layout.class_token) == ((1, whole.n_dims), 0)
    outputs = [whole.features_of(_batched(o)) for o in reference(whole)]
    expected = torch.cat(outputs).detach()  # (n V, d)
    rows = np.arange(N_IMAGES).reshape(1, -1).repeat(2, 0)
    cached = CachedViews(header, device=CPU)
    features = frozen.features_of(read_all(cached))
    limit = tolerance * expected.abs().amax(1, keepdim=True) + 1e-6
    assert ((features - expected).abs() <= limit).all()
    given = frozen.features_of(next(cached.batches([rows], np.random.default_rng(0))))
    assert given.shape == (2 * N_IMAGES, whole.n_dims)
    pixels = next(make_loader().batches([np.arange(4)], np.random.default_rng(0)))
    with torch.no_grad():
        torch.testing.assert_close(frozen.features_of(frozen.prepare(pixels)), whole(pixels))


def _batched(output: TrunkOutput) -> TrunkOutput:
    token = output.class_token
    return TrunkOutput(output.tokens[None], None if token is None else token[None])


def test_a_frozen_backbone_trains_nothing() -> None:
    backbone = make_backbone(is_frozen=True)
    backbone.set_trainable(None)
    with pytest.raises(ValueError, match="trainable must be null for a frozen backbone"):
        backbone.set_trainable("last_block")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("int8", 0.5 / 127 * 1.001)])
def test_cached_outputs_are_those_of_the_trunk(
    dtype: str, tolerance: float, extracted: Extracted, tmp_path: Path
) -> None:
    header = tmp_path / "tokens.json"
    layout = extract(header, extracted.backbone, dtype=dtype)
    found, expected = read_all(CachedViews(header, device=CPU)), reference(extracted.backbone)
    tokens = exact_tokens(found)
    assert found.scales is None or found.tokens.dtype == torch.int8
    assert len(tokens) == len(expected) == N_IMAGES * 3
    for place, output in enumerate(expected):
        rows = output.tokens.flatten(1)  # (t, d)
        limits = tolerance * rows.abs().amax(1, keepdim=True) + 1e-6
        assert ((tokens[place].flatten(1) - rows).abs() <= limits).all()
        assert (found.class_token is None) is (output.class_token is None)
        if found.class_token is not None:
            torch.testing.assert_close(found.class_token[place], output.class_token)
    n_values = int(np.prod(layout.shape))
    assert layout.record_bytes >= n_values * (2 if dtype == "float16" else 1)
    assert header.with_suffix(".bin").stat().st_size == layout.n_bytes
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokens.bin", "tokens.json"]


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 2e-3), ("int8", 5e-2)])
def test_whole_tokens_are_kept_for_heads_that_read_them(
    dtype: str, tolerance: float, tmp_path: Path
) -> None:
    backbone = make_backbone(all_tokens=True)
    layout = extract(tmp_path / "tokens.json", backbone, dtype=dtype)
    assert layout.class_token == 0
    cached = read_all(CachedViews(tmp_path / "tokens.json", device=CPU))
    plain = torch.stack([output.tokens for output in reference(backbone)])
    torch.testing.assert_close(cached.tokens, plain, rtol=0, atol=tolerance)
    found = backbone.features_and_tokens(cached)[1]
    expected = backbone.features_and_tokens(TrunkOutput(plain))[1]
    assert (found - expected).norm() < tolerance * expected.norm()
    assert found.shape[1:] == layout.shape


@pytest.mark.parametrize(("dtype", "limit"), [("float16", 1e-3), ("int8", 2e-2)])
def test_gradients_from_cached_tokens_are_near(dtype: str, limit: float, tmp_path: Path) -> None:
    backbone = make_backbone()
    backbone.set_trainable("last_block")
    extract(tmp_path / "tokens.json", backbone, dtype=dtype)
    weight = torch.randn(N_IMAGES * 3, backbone.n_dims, generator=torch.Generator().manual_seed(0))
    outputs = reference(backbone)
    exact = TrunkOutput(
        torch.stack([o.tokens for o in outputs]), torch.stack([o.class_token for o in outputs])
    )
    gradients = []
    for output in (exact, read_all(CachedViews(tmp_path / "tokens.json", device=CPU))):
        backbone.zero_grad()
        (backbone.features_of(output) * weight).sum().backward()
        grads = [p.grad.flatten() for p in backbone.block.parameters() if p.grad is not None]
        gradients.append(torch.cat(grads))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < limit


def test_the_header_says_what_the_file_holds(extracted: Extracted) -> None:
    content = json.loads(extracted.header.read_text())
    assert content["images"] == image_digest(IDS)
    assert content["layout"]["n_views"] == 3
    assert content["parameters"] == {
        "augmentation": "warp",
        "seed": 5,
        "engine": f"torch {torch.__version__.partition('+')[0]}, float32",
    }


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("augmentation", [None, "gcd", "scan", "warp"])
def test_the_batch_size_changes_no_view(
    augmentation: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch, n_rows=8)
    backbone = make_backbone(name)
    found = []
    for batch_size in (3, 8):
        header = tmp_path / f"{batch_size}.json"
        extract(header, backbone, loader=make_loader(augmentation), batch_size=batch_size)
        found.append(read_all(CachedViews(header, device=CPU)))
    torch.testing.assert_close(found[0].tokens, found[1].tokens, rtol=2e-3, atol=1e-4)  # float16
    torch.testing.assert_close(found[0].class_token, found[1].class_token, rtol=1e-5, atol=1e-5)


# Batches


def places_of(cached: CachedViews, rows: np.ndarray, seed: int, **options: Any) -> list[int]:
    """Which record each output of a batch is, found by its content."""
    records = read_all(cached).tokens.flatten(1)
    output = next(cached.batches([rows], np.random.default_rng(seed), **options))
    found = (output.tokens.flatten(1)[:, None] == records).all(2)
    assert (found.sum(1) == 1).all()
    return found.int().argmax(1).tolist()


def test_batches_hold_random_views_of_the_images_asked_for(extracted: Extracted) -> None:
    cached = CachedViews(extracted.header, device=CPU)
    rows = np.array([[3, 0, 7], [3, 5, 1]])
    seen = set()
    for seed in range(40):
        places = places_of(cached, rows, seed)
        assert [place // 3 for place in places] == rows.ravel().tolist()
        assert places[0] != places[3]  # another view of the same image
        seen |= {(i, place % 3) for i, place in enumerate(places)}
    assert len(seen) == 6 * 3


def test_a_share_of_a_batch_is_part_of_the_whole(extracted: Extracted) -> None:
    cached, positions = CachedViews(extracted.header, device=CPU), np.array([1, 2, 4])
    rows = np.array([[3, 0, 7], [3, 5, 1]])
    whole = places_of(cached, rows, 0)
    assert places_of(cached, rows, 0, positions=positions) == [whole[i] for i in positions]


def test_one_view_is_enough(tmp_path: Path) -> None:
    backbone = make_backbone()
    extract(tmp_path / "tokens.json", backbone, n_views=1)
    cached = CachedViews(tmp_path / "tokens.json", device=CPU)
    assert places_of(cached, np.array([[2, 4], [2, 9]]), 0) == [2, 4, 2, 9]


# Interruptions


def shrink_blocks(monkeypatch: pytest.MonkeyPatch, n_rows: int = 3) -> None:
    for module in (unic.storage.row_files, unic.features.cached_views):
        monkeypatch.setattr(module, "BLOCK_ROWS", n_rows)


@pytest.mark.parametrize("augmentation", ["warp", "scan"])
def test_a_stopped_extraction_goes_on_to_the_same_file(
    augmentation: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shrink_blocks(monkeypatch)
    backbone, whole, header = make_backbone(), tmp_path / "whole.json", tmp_path / "tokens.json"
    extract(whole, backbone, loader=make_loader(augmentation), batch_size=2)
    for n_batches in (1, 3, 2):  # two a block: none, one, and one more is finished
        loader = make_loader(augmentation, StoppingLoader)
        assert isinstance(loader, StoppingLoader)
        loader.left = n_batches
        with pytest.raises(StoppedError):
            extract(header, backbone, loader=loader, batch_size=2)
        assert not header.exists()
        assert not header.with_suffix(".bin").exists()
    with caplog.at_level(logging.INFO, "unic"):
        extract(header, backbone, loader=make_loader(augmentation), batch_size=2)
    assert "2 of 4 blocks are there already" in caplog.text
    assert header.read_bytes() == whole.read_bytes()
    assert header.with_suffix(".bin").read_bytes() == whole.with_suffix(".bin").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_an_extraction_with_other_settings_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch)
    backbone, whole, header = make_backbone(), tmp_path / "whole.json", tmp_path / "tokens.json"
    loader = make_loader(kind=StoppingLoader)
    assert isinstance(loader, StoppingLoader)
    loader.left = 2
    with pytest.raises(StoppedError):
        extract(header, backbone, loader=loader, seed=6)
    for path in (header, whole):
        extract(path, backbone)
    assert header.with_suffix(".bin").read_bytes() == whole.with_suffix(".bin").read_bytes()


# Refusals


def test_refuses_a_file_that_does_not_fit_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"0\.0 GB must be free .*got 0\.0: 3 views of 11 images"):
        extract(tmp_path / "tokens.json", make_backbone())
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_damaged_file(extracted: Extracted, tmp_path: Path) -> None:
    header = tmp_path / "tokens.json"
    shutil.copy(extracted.header, header)
    content = bytearray(extracted.header.with_suffix(".bin").read_bytes())
    content[len(content) // 2] ^= 1
    header.with_suffix(".bin").write_bytes(content)
    with pytest.raises(ValueError, match="its checksum differs at images 0 to 10; delete it"):
        places_of(CachedViews(header, device=CPU), np.array([[3], [7]]), 0)
    header.with_suffix(".bin").write_bytes(content[:-8])
    with pytest.raises(ValueError, match=f"must have {len(content)} bytes, got {len(content) - 8}"):
        CachedViews(header, device=CPU)


def test_no_view_of_a_damaged_block_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_blocks(monkeypatch)
    header = tmp_path / "tokens.json"
    layout = extract(header, make_backbone(is_frozen=True))
    content = bytearray(header.with_suffix(".bin").read_bytes())
    content[4 * 3 * layout.record_bytes] ^= 1  # image 4, of images 3 to 5
    header.with_suffix(".bin").write_bytes(content)
    cached = CachedViews(header, device=CPU)
    rows = np.array([[0, 9, 3], [2, 6, 8]])
    whole = list(cached.batches([rows[:, :2]], np.random.default_rng(0)))
    share = cached.batches([rows], np.random.default_rng(0), positions=np.array([0, 1, 5]))
    assert len(next(share).tokens) == 3
    for chosen, positions in ((rows, None), (rows, np.array([2])), (rows[:, 2:], None)):
        with pytest.raises(ValueError, match="its checksum differs at images 3 to 5; delete it"):
            next(cached.batches([chosen], np.random.default_rng(0), positions=positions))
    assert len(whole[0].tokens) == 4
    monkeypatch.setattr(
        "unic.features.cached_views._fits", lambda *_: True
    )  # copied whole, as to a GPU
    with pytest.raises(ValueError, match="its checksum differs at images 3 to 5; delete it"):
        CachedViews(header, device=CPU)


def test_refuses_a_header_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CachedViews(tmp_path / "tokens.json", device=CPU)
