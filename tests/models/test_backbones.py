import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unic.models.backbones import Backbone, load_backbone, save_backbone

TINY_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 4, "depth": 3}
SWIN: dict[str, Any] = {"img_size": 32, "window_size": 1, "embed_dim": 24, "depths": (1, 1, 1, 1)}
ROTARY: dict[str, Any] = {"img_size": 28, "depth": 2}
FAMILIES: dict[str, tuple[dict[str, Any], int, str]] = {  # options, image size, last block
    "test_vit": ({"img_size": 32}, 32, "blocks.5"),
    "vit_tiny_patch16_224": (TINY_VIT, 32, "blocks.2"),
    "eva02_tiny_patch14_224": (ROTARY, 28, "blocks.1"),  # rotary positions go to each block
    "test_resnet": ({}, 32, "layer4"),
    "resnet18": ({}, 32, "layer4"),
    "test_byobnet": ({}, 32, "stages.3"),
    "convnext_atto": ({}, 64, "stages.3"),
    "test_efficientnet": ({}, 32, "blocks.4"),
    "mobilenetv2_100": ({}, 32, "blocks.6"),
    "mobilenetv2_050": ({"pad_type": "same"}, 64, "blocks.6"),
    "mobilenetv3_small_050": ({}, 32, "blocks.5"),  # its features are wider than its map
    "swin_tiny_patch4_window7_224": (SWIN, 32, "layers.3"),
    "vit_small_patch16_224.dino": ({"img_size": 32, "depth": 3}, 32, "blocks.2"),
    "vit_small_patch14_dinov2.lvd142m": ({"img_size": 42, "depth": 3}, 42, "blocks.2"),
    "vit_small_patch14_reg4_dinov2.lvd142m": ({"img_size": 42, "depth": 2}, 42, "blocks.1"),
    "vit_small_patch16_dinov3.lvd1689m": ({"depth": 2, "global_pool": "token"}, 48, "blocks.1"),
    "resnet50": ({}, 32, "layer4"),
}
NORMS = {  # what is trained where the final norm is
    "vit_tiny_patch16_224": ["norm.weight", "norm.bias"],
    "vit_small_patch14_reg4_dinov2.lvd142m": ["norm.weight", "norm.bias"],
    "vit_small_patch16_dinov3.lvd1689m": ["norm.weight", "norm.bias"],
    "eva02_tiny_patch14_224": ["fc_norm.weight", "fc_norm.bias"],
    "convnext_atto": ["head.norm.weight", "head.norm.bias"],
    "swin_tiny_patch4_window7_224": ["norm.weight", "norm.bias"],
    "mobilenetv2_100": ["bn2.weight", "bn2.bias"],
}


def make(name: str = "test_resnet", *, weights: str = "random", seed: int = 0) -> Backbone:
    options, image_size, _ = FAMILIES[name]
    return load_backbone(name, weights=weights, options=options, image_size=image_size, seed=seed)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Backbone, str, str]:
    return make(request.param), request.param, FAMILIES[request.param][2]


def images_for(name: str, n_images: int = 5, seed: int = 3) -> Tensor:
    size = FAMILIES[name][1]
    return torch.randn(n_images, 3, size, size, generator=torch.Generator().manual_seed(seed))


def assert_same_weights(backbone: Backbone, state: dict[str, Tensor]) -> None:
    for key, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, state[key]), key


# The cut, against the whole model


@torch.no_grad()
def test_the_halves_compute_what_the_whole_model_does(family: tuple[Backbone, str, str]) -> None:
    backbone, name, _ = family
    options, _, _ = FAMILIES[name]
    whole = timm.create_model(name, num_classes=0, **options).eval()
    whole.load_state_dict(backbone.model.state_dict())
    whole.to(memory_format=torch.channels_last)  # the same order of sums as the backbone
    for n_images in (5, 1):  # not the size of the batch that the cut was checked with
        images = images_for(name, n_images).contiguous(memory_format=torch.channels_last)
        features = backbone.last_block(backbone.trunk(images))
        assert features.shape == (n_images, backbone.n_dims)
        torch.testing.assert_close(features, whole(images), rtol=1e-4, atol=1e-6)
        assert torch.equal(features, backbone(images))


def test_the_last_block_is_the_last_of_its_stack(family: tuple[Backbone, str, str]) -> None:
    backbone, _, block = family
    assert backbone.block is backbone.model.get_submodule(block)


@torch.no_grad()
def test_the_trunk_does_not_depend_on_the_last_block(family: tuple[Backbone, str, str]) -> None:
    backbone, name, _ = family
    images = images_for(name)
    before, features = backbone.trunk(images), backbone(images)
    changed = [p for p in backbone.block.parameters() if p.ndim > 1]
    for parameter in changed:
        parameter.mul_(3)
    assert torch.equal(backbone.trunk(images), before)
    assert not torch.allclose(backbone(images), features)
    for parameter in changed:
        parameter.div_(3)


@torch.no_grad()
def test_the_trunk_follows_the_weights_of_the_model(family: tuple[Backbone, str, str]) -> None:
    _, name, _ = family
    first, second = make(name, seed=0), make(name, seed=1)
    images = images_for(name)
    assert not torch.allclose(first(images), second(images))
    second.model.load_state_dict(first.model.state_dict())
    assert torch.equal(first(images), second(images))


@torch.no_grad()
def test_features_come_with_all_tokens(family: tuple[Backbone, str, str]) -> None:
    plain, name, _ = family
    options, size, _ = FAMILIES[name]
    backbone = load_backbone(
        name, weights="random", options=options, image_size=size, all_tokens=True
    )
    backbone.model.load_state_dict(plain.model.state_dict())
    assert not backbone.has_class_token_path
    images = images_for(name).contiguous(memory_format=torch.channels_last)
    features, tokens = backbone.features_and_tokens(backbone.prepare(images))
    assert torch.equal(features, backbone(images))
    assert tokens.shape[2] == backbone.n_token_dims
    whole = backbone.model.forward_features(images)
    if whole.ndim == 3 and backbone.model.cls_token is not None:
        torch.testing.assert_close(tokens, whole, rtol=1e-5, atol=1e-5)
        return
    channel = 3 if name.startswith("swin") else 1
    positions = whole.movedim(channel, -1).flatten(1, -2)
    torch.testing.assert_close(tokens[:, 1:], positions, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens[:, 0], positions.mean(1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_refuses_tokens_of_a_class_token_alone() -> None:
    backbone = make("vit_tiny_patch16_224")
    output = backbone.prepare(images_for("vit_tiny_patch16_224"))
    with pytest.raises(ValueError, match="must be made with all_tokens"):
        backbone.features_and_tokens(output)


@torch.no_grad()
def test_rotary_positions_follow_the_tokens_to_their_device() -> None:
    backbone = make("vit_small_patch16_dinov3.lvd1689m")
    tokens = backbone.trunk(images_for("vit_small_patch16_dinov3.lvd1689m"))
    backbone.to("meta")  # as cached tokens are on a GPU where the trunk has not run
    assert backbone.last_block(tokens.to("meta")).shape == (5, backbone.n_dims)


# What is trained


@pytest.mark.parametrize("name", NORMS)
def test_the_final_norm_is_trained_where_asked_for(name: str) -> None:
    backbone = make(name)
    names = {key for key, _ in backbone.model.named_parameters()}
    backbone.set_trainable("last_block", final_norm=True)
    features = backbone.features_of(backbone.prepare(images_for(name)))
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    (features * weight).sum().backward()
    trained = {key for key, p in backbone.model.named_parameters() if p.grad is not None}
    block = FAMILIES[name][2]
    assert trained == {key for key in names if key.startswith(f"{block}.")} | set(NORMS[name])
    backbone.set_trainable("last_block")
    frozen = {key for key, p in backbone.model.named_parameters() if not p.requires_grad}
    assert set(NORMS[name]) <= frozen


@pytest.mark.parametrize(
    ("name", "part"), [("test_resnet", "last_block"), ("vit_tiny_patch16_224", None)]
)
def test_refuses_a_final_norm_that_cannot_be_trained(name: str, part: str | None) -> None:
    with pytest.raises(ValueError, match=f"train_final_norm must be false .*trainable={part}"):
        make(name).set_trainable(part, final_norm=True)


@pytest.mark.parametrize("part", [None, "last_block", "all"])
def test_gradients_reach_exactly_the_trainable_part(
    part: str | None, family: tuple[Backbone, str, str]
) -> None:
    backbone, name, block = family
    backbone.zero_grad()
    backbone.set_trainable(part)
    features = backbone(images_for(name))
    assert features.requires_grad is (part is not None)
    if part is not None:
        weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        (features * weight).sum().backward()
    names = {key for key, p in backbone.model.named_parameters() if p.grad is not None}
    trainable = {key for key, p in backbone.model.named_parameters() if p.requires_grad}
    every = {key for key, _ in backbone.model.named_parameters()}
    expected = {
        None: set(),
        "last_block": {key for key in every if key.startswith(f"{block}.")},
        "all": every,
    }[part]
    assert names == trainable == expected
    assert len(list(backbone.parameters())) == len(every)  # none is counted twice


def test_the_frozen_trunk_keeps_no_graph() -> None:
    backbone = make()
    backbone.set_trainable("last_block")
    assert not backbone.trunk(images_for("test_resnet")).requires_grad


@pytest.mark.parametrize("part", [None, "last_block", "all"])
def test_running_statistics_stay_frozen_in_training(part: str | None) -> None:
    backbone = make()
    before = {key: buffer.clone() for key, buffer in backbone.named_buffers()}
    backbone.set_trainable(part)
    assert backbone.train() is backbone
    backbone(images_for("test_resnet"))
    assert before
    for key, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[key]), key
    assert not any(module.training for module in backbone.modules())


def test_a_step_on_the_last_block_changes_nothing_else() -> None:
    backbone = make("vit_tiny_patch16_224")
    before = {key: p.clone() for key, p in backbone.model.named_parameters()}
    backbone.set_trainable("last_block")
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone.train()(images_for("vit_tiny_patch16_224")).square().sum().backward()
    optimizer.step()
    changed = {k for k, p in backbone.model.named_parameters() if not torch.equal(p, before[k])}
    assert changed
    assert all(key.startswith("blocks.2.") for key in changed)


# Random weights


def test_the_seed_decides_the_random_weights() -> None:
    state = make(seed=1).model.state_dict()
    assert_same_weights(make(seed=1), state)
    other = make(seed=2).model.state_dict()
    assert not torch.equal(other["layer4.0.conv1.weight"], state["layer4.0.conv1.weight"])


def test_random_weights_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), before)


# Weights from files


def test_reads_weights_without_a_classifier(tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in make(seed=4).model.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert_same_weights(make(weights=str(tmp_path / "weights.safetensors")), state)


# Models that cannot be


def test_refuses_an_unknown_model() -> None:
    with pytest.raises(ValueError, match=r"backbone no_such_net with \{\}: Unknown model"):
        load_backbone("no_such_net", weights="random", options={}, image_size=32)


@pytest.mark.parametrize("options", [{"colour": 1}, {"num_classes": 5}])
def test_refuses_unknown_options(options: dict[str, Any]) -> None:
    message = re.escape(json.dumps(options)) + f".*{next(iter(options))}"
    with pytest.raises(ValueError, match=message):
        load_backbone("test_resnet", weights="random", options=options, image_size=32)


def test_refuses_images_of_another_size_than_the_models() -> None:
    with pytest.raises(ValueError, match=r"must take images of image_size=32 .*img_size"):
        load_backbone("vit_tiny_patch16_224", weights="random", options={"depth": 1}, image_size=32)


class Winding(nn.Module):
    """A model that does more after its last block than its parts say."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))

    def forward_features(self, images: Tensor) -> Tensor:
        return self.blocks(images.mean((2, 3))) + 1

    def forward_head(self, features: Tensor, *, pre_logits: bool) -> Tensor:
        assert pre_logits
        return features * 2


def test_refuses_models_without_a_last_block() -> None:
    model = Winding()
    model.features = model._modules.pop("blocks")
    with pytest.raises(ValueError, match=r"Winding must have one of the parts .*, got features$"):
        Backbone(model, image_size=8)


def test_refuses_a_cut_that_computes_something_else() -> None:
    with pytest.raises(ValueError, match="Winding cannot be cut before its last block"):
        Backbone(Winding(), image_size=8)


def test_refuses_the_hub_when_it_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="weights of test_resnet must come from the hub"):
        load_backbone("test_resnet", weights="hub", options={}, image_size=32)


# On a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_cut_moves_to_the_gpu(family: tuple[Backbone, str, str]) -> None:
    _, name, _ = family
    backbone, images = make(name), images_for(name)
    with torch.no_grad():
        expected = backbone(images)
        found = backbone.cuda()(images.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)


def test_a_saved_backbone_is_loaded_back(tmp_path: Path) -> None:
    backbone, path = make(), tmp_path / "new" / "backbone.safetensors"
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(1.5)
    save_backbone(path, backbone)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = make(weights=str(path))
    ours, theirs = backbone.model.state_dict(), loaded.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    images = images_for("test_resnet")
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), loaded(images))
