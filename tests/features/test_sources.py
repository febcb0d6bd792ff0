"""What the trunk gives for views, against one view after the other."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.features.backbones import make_backbone
from tests.training.colors import N_IMAGES, make_loader
from unic.features.extraction import extract_features
from unic.features.sources import FreshViews, FrozenFeatures, TrunkSource
from unic.models.backbones import Backbone

CPU = torch.device("cpu")
ROWS = [np.array([[3, 0, 7], [3, 5, 1]]), np.array([[60, 2], [9, 9]])]


def fresh(
    backbone: Backbone, augmentation: str | None = None, *, has_gradient: bool = False
) -> FreshViews:
    loader = make_loader(augmentation)
    return FreshViews(loader, backbone, precision="float32", device=CPU, has_gradient=has_gradient)


def random_features() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(N_IMAGES, 5)).astype(np.float32)


def tokens_of(
    source: TrunkSource, seed: int = 0, positions: NDArray[np.int64] | None = None
) -> list[torch.Tensor]:
    outputs = source.batches(ROWS, np.random.default_rng(seed), positions=positions)
    return [output.tokens.detach() for output in outputs]


# Against one view after the other


@torch.no_grad()
def test_fresh_views_are_those_of_single_images() -> None:
    backbone = make_backbone()
    found = list(fresh(backbone).batches(ROWS, np.random.default_rng(0)))
    assert len(found) == len(ROWS)
    for output, rows in zip(found, ROWS, strict=True):
        for place, row in enumerate(rows.ravel()):
            pixels = next(make_loader().batches([np.array([row])], np.random.default_rng(0)))
            expected = backbone.prepare(pixels)
            torch.testing.assert_close(output.tokens[place], expected.tokens[0])
            torch.testing.assert_close(output.class_token[place], expected.class_token[0])


def test_frozen_features_are_the_rows_asked_for() -> None:
    features = random_features()
    found = tokens_of(FrozenFeatures(features, device=CPU))
    for tokens, rows in zip(found, ROWS, strict=True):
        assert tokens.shape == (rows.size, 1, 5)
        for place, row in enumerate(rows.ravel()):
            np.testing.assert_array_equal(tokens[place, 0], features[row])


def test_frozen_features_are_what_fresh_views_would_give() -> None:
    backbone, loader = make_backbone(is_frozen=True), make_loader()
    features = extract_features(
        loader.images, make_backbone(), loader.view, batch_size=64, device=CPU
    )
    frozen = tokens_of(FrozenFeatures(features, device=CPU))
    for ours, theirs in zip(frozen, tokens_of(fresh(backbone)), strict=True):
        torch.testing.assert_close(ours, theirs)


# Laws


@pytest.mark.parametrize("augmentation", ["scan", "warp"])
def test_the_generator_decides_fresh_views(augmentation: str) -> None:
    source = fresh(make_backbone(), augmentation)
    first, same, other = (tokens_of(source, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][3])  # two views of an image


def test_frozen_features_draw_nothing() -> None:
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    list(FrozenFeatures(random_features(), device=CPU).batches(ROWS, generator))
    assert generator.bit_generator.state == before


@pytest.mark.parametrize("name", ["fresh", "frozen"])
def test_a_share_of_a_batch_is_part_of_the_whole(name: str) -> None:
    source: TrunkSource = FrozenFeatures(random_features(), device=CPU)
    if name == "fresh":
        source = fresh(make_backbone(), "scan")
    positions = np.array([0, 3])
    whole, share = tokens_of(source), tokens_of(source, positions=positions)
    for part, every in zip(share, whole, strict=True):
        torch.testing.assert_close(part, every[positions])


@pytest.mark.parametrize("has_gradient", [True, False])
def test_the_trunk_is_trained_where_asked_for(has_gradient: bool) -> None:
    backbone = make_backbone()
    backbone.set_trainable("all")
    source = fresh(backbone, has_gradient=has_gradient)
    output = next(source.batches(ROWS, np.random.default_rng(0)))
    assert output.tokens.requires_grad is has_gradient


def test_only_images_that_are_read_are_named() -> None:
    source = fresh(make_backbone())
    assert [images.ids for images in source.images] == [make_loader().images.ids]
    assert list(FrozenFeatures(random_features(), device=CPU).images) == []


# Refusals


def test_refuses_an_unknown_precision() -> None:
    with pytest.raises(ValueError, match="got half"):
        FreshViews(make_loader(), make_backbone(), precision="half", device=CPU)


def test_refuses_rows_that_are_not_there() -> None:
    source = FrozenFeatures(random_features(), device=CPU)
    with pytest.raises(IndexError, match=f"index {N_IMAGES} is out of bounds"):
        next(source.batches([np.array([[0, N_IMAGES]])], np.random.default_rng(0)))
