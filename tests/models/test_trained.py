import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unic.models.trained import (
    Model,
    ModelDescription,
    load_model,
    make_backbone,
    make_heads,
    make_model,
    save_model,
)

DESCRIPTIONS = [
    ModelDescription(
        name="vit_tiny_patch16_224",
        options={"img_size": 32, "patch_size": 8, "depth": 2},
        image_size=32,
        n_clusters=7,
        head="mlp",
        head_norm=None,
        head_width=16,
    ),
    ModelDescription(
        name="test_resnet",
        options={},
        image_size=32,
        n_clusters=3,
        head="mlp",
        head_norm=None,
        head_width=8,
    ),
]
HEADS = [
    replace(DESCRIPTIONS[0], head="linear"),
    replace(DESCRIPTIONS[0], head_norm="rms"),
    replace(DESCRIPTIONS[0], head_norm="center"),
    replace(DESCRIPTIONS[0], head_norm="standardize"),
    replace(DESCRIPTIONS[1], head="linear", head_norm="rms"),
    replace(DESCRIPTIONS[1], head="linear", head_norm="center"),
    replace(DESCRIPTIONS[1], head="linear", head_norm="standardize"),
    replace(DESCRIPTIONS[0], head="self_attention"),
    replace(DESCRIPTIONS[1], head="self_attention"),
    replace(DESCRIPTIONS[1], head="self_attention", name="mobilenetv3_small_050"),
]


def trained(description: ModelDescription) -> Model:
    """A model none of whose weights or running statistics are the first ones."""
    model = make_model(description, weights="random", seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in model:
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(
        tmp_path / "model.safetensors", trained(DESCRIPTIONS[1]), description=DESCRIPTIONS[1]
    )
    return tmp_path / "model.safetensors"


@torch.no_grad()
@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: d.name)
def test_a_model_comes_back_bit_for_bit(description: ModelDescription, tmp_path: Path) -> None:
    model = trained(description)
    save_model(tmp_path / "made" / "model.safetensors", model, description=description)
    loaded = load_model(tmp_path / "made" / "model.safetensors")
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = model.backbone(images)
    assert torch.equal(loaded.backbone(images), features)
    assert torch.equal(loaded.head(features), model.head(features))
    assert loaded.head(features).shape == (4, description.n_clusters)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["model.safetensors"]


@torch.no_grad()
@pytest.mark.parametrize("description", HEADS, ids=lambda d: f"{d.head}-{d.head_norm}-{d.name}")
def test_every_head_comes_back_bit_for_bit(description: ModelDescription, tmp_path: Path) -> None:
    model = trained(description)
    save_model(tmp_path / "model.safetensors", model, description=description)
    loaded = load_model(tmp_path / "model.safetensors")
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = []
    for backbone, head in (model, loaded):
        output = backbone.prepare(images)
        read = (
            backbone.features_and_tokens(output)[1]
            if head.reads_tokens
            else backbone.features_of(output)
        )
        logits.append(head(read))
    assert torch.equal(*logits)
    assert logits[0].shape == (4, description.n_clusters)


def test_refuses_a_head_of_another_kind(saved: Path) -> None:
    other = replace(DESCRIPTIONS[1], head="linear")
    save_model(saved, load_model(saved), description=other)
    with pytest.raises(ValueError, match=r"must fit LinearHead.*unexpected 2\.weight"):
        load_model(saved)


def test_refuses_a_head_whose_statistics_are_missing(saved: Path) -> None:
    save_model(saved, load_model(saved), description=replace(DESCRIPTIONS[1], head_norm="center"))
    with pytest.raises(ValueError, match=r"must fit ClusterHead.*missing 0\.mean"):
        load_model(saved)


def test_saving_twice_writes_the_same_bytes(saved: Path) -> None:
    first = saved.read_bytes()
    save_model(saved, load_model(saved), description=DESCRIPTIONS[1])
    assert saved.read_bytes() == first


def test_the_seed_decides_the_head_and_not_the_backbone() -> None:
    first, again, other = (
        make_model(DESCRIPTIONS[1], weights="random", seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.head[0].weight, again.head[0].weight)
    assert not torch.equal(first.head[0].weight, other.head[0].weight)
    for a, b in zip(first.backbone.parameters(), other.backbone.parameters(), strict=True):
        assert torch.equal(a, b)


def test_refuses_a_foreign_file(saved: Path) -> None:
    save_file(load_file(saved), saved.with_name("foreign.safetensors"))
    with pytest.raises(ValueError, match=r"foreign\.safetensors must be a model written by UNIC"):
        load_model(saved.with_name("foreign.safetensors"))


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_refuses_a_truncated_file(kept: int, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match=re.escape(f"{saved} must be a safetensors file")):
        load_model(saved)


def test_refuses_weights_that_do_not_fit_the_description(saved: Path) -> None:
    save_model(saved, load_model(saved), description=replace(DESCRIPTIONS[1], n_clusters=5))
    with pytest.raises(ValueError, match=r"2\.weight of shape \(3, 8\) where \(5, 8\) is needed"):
        load_model(saved)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        load_model(tmp_path / "absent.safetensors")


def test_the_first_head_is_the_same_for_any_number_of_heads() -> None:
    description = DESCRIPTIONS[1]
    backbone = make_backbone(description, weights="random")
    one, three = (make_heads(description, backbone, seed=5, n_heads=n) for n in (1, 3))
    assert (len(one), len(three)) == (1, 3)
    first, again, second = (head.state_dict()["0.weight"] for head in (*one, *three[:2]))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
