import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unic.backbones import (
    Backbone,
    ClusterHead,
    load_backbone,
    load_weights,
    read_weights,
    save_backbone,
)

TINY_VIT: dict[str, Any] = {"img_size": 32, "patch_size": 4, "depth": 3}
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


def with_classifier(name: str, n_classes: int = 7) -> dict[str, Tensor]:
    return timm.create_model(name, num_classes=n_classes, **FAMILIES[name][0]).state_dict()


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


# What is trained


@pytest.mark.parametrize("part", ["none", "last_block", "all"])
def test_gradients_reach_exactly_the_trainable_part(
    part: str, family: tuple[Backbone, str, str]
) -> None:
    backbone, name, block = family
    backbone.zero_grad()
    backbone.set_trainable(part)
    features = backbone(images_for(name))
    assert features.requires_grad is (part != "none")
    if part != "none":
        weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        (features * weight).sum().backward()
    names = {key for key, p in backbone.model.named_parameters() if p.grad is not None}
    trainable = {key for key, p in backbone.model.named_parameters() if p.requires_grad}
    every = {key for key, _ in backbone.model.named_parameters()}
    expected = {
        "none": set(),
        "last_block": {key for key in every if key.startswith(f"{block}.")},
        "all": every,
    }[part]
    assert names == trainable == expected
    assert len(list(backbone.parameters())) == len(every)  # none is counted twice


def test_the_frozen_trunk_keeps_no_graph() -> None:
    backbone = make()
    backbone.set_trainable("last_block")
    assert not backbone.trunk(images_for("test_resnet")).requires_grad


@pytest.mark.parametrize("part", ["none", "last_block", "all"])
def test_running_statistics_stay_frozen_in_training(part: str) -> None:
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


@pytest.mark.parametrize("kind", ["safetensors", "pth", "bin"])
@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "convnext_atto", "test_byobnet"])
def test_reads_weights_and_drops_the_classifier(name: str, kind: str, tmp_path: Path) -> None:
    path, state = tmp_path / f"weights.{kind}", with_classifier(name)
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    assert_same_weights(make(name, weights=str(path)), state)


def test_reads_weights_without_a_classifier(tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in make(seed=4).model.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert_same_weights(make(weights=str(tmp_path / "weights.safetensors")), state)


def test_a_mismatch_lists_keys_and_shapes() -> None:
    state = with_classifier("test_resnet")
    del state["conv1.0.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(3)
    with pytest.raises(
        ValueError, match=r"weights in a\.pth must fit ResNet, but 3 entries"
    ) as raised:
        load_weights(make().model, state, source="a.pth")
    assert "missing conv1.0.weight; unexpected layer9.weight; " in str(raised.value)
    assert re.search(r"bn1\.weight of shape \(3,\) where \(\d+,\) is needed", str(raised.value))


def test_a_mismatch_lists_no_more_than_four_keys() -> None:
    with pytest.raises(ValueError, match="must fit ResNet") as raised:
        load_weights(make().model, {}, source="a.pth")
    assert str(raised.value).count("missing") == 4


def test_a_mismatch_changes_no_weight() -> None:
    backbone, state = make(), make(seed=1).model.state_dict()
    before = {key: tensor.clone() for key, tensor in backbone.model.state_dict().items()}
    del state["layer4.0.conv1.weight"]
    with pytest.raises(ValueError, match="missing layer4"):
        load_weights(backbone.model, state, source="a.pth")
    assert_same_weights(backbone, before)


class Bomb:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_refuses_checkpoints_that_run_code(tmp_path: Path) -> None:
    made = tmp_path / "made by the checkpoint"
    torch.save({"weight": Bomb(str(made))}, tmp_path / "bomb.pth")
    with pytest.raises(
        ValueError, match=r"bomb\.pth must be a torch checkpoint that holds tensors"
    ):
        read_weights(str(tmp_path / "bomb.pth"))
    assert not made.exists()


def test_refuses_checkpoints_of_whole_modules(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"module\.pth must be a torch checkpoint that holds"):
        read_weights(str(tmp_path / "module.pth"))


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("kept", [0, 5, 60, 0.5, 0.99])
def test_refuses_truncated_files(kind: str, kept: float, tmp_path: Path) -> None:
    whole, broken = tmp_path / f"whole.{kind}", tmp_path / f"broken.{kind}"
    state = {"weight": torch.randn(500)}
    save_file(state, whole) if kind == "safetensors" else torch.save(state, whole)
    content = whole.read_bytes()
    broken.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        read_weights(str(broken))


@pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
def test_refuses_files_of_another_kind(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("hello world\n")
    with pytest.raises(ValueError, match=name):
        read_weights(str(tmp_path / name))


@pytest.mark.parametrize(
    ("held", "got"),
    [
        ({"epoch": 3, "state_dict": {"weight": torch.zeros(1)}}, "got epoch, state_dict"),
        ([torch.zeros(1)], "got list"),
    ],
)
def test_refuses_checkpoints_that_are_no_state_dict(held: Any, got: str, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=f"must hold one dictionary of tensors, {got}"):
        read_weights(str(tmp_path / "other.pth"))


@pytest.mark.parametrize("weights", ["absent.pth", "absent.safetensors", "bundled:absent"])
def test_refuses_missing_files(weights: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"backbone\.weights must be a file.*absent"):
        make(weights=weights)


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


# The head


def test_the_head_is_the_papers() -> None:
    head = ClusterHead(64, 10, width=2048, generator=torch.Generator().manual_seed(0))
    assert [type(layer) for layer in head] == [nn.Linear, nn.GELU, nn.Linear]
    assert [tuple(p.shape) for p in head.parameters()] == [(2048, 64), (2048,), (10, 2048), (10,)]
    for layer in (head[0], head[2]):
        assert not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert head(torch.randn(3, 64)).shape == (3, 10)


def test_the_generator_decides_the_head() -> None:
    first, again, other = (
        ClusterHead(8, 3, width=16, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first[0].weight, again[0].weight)
    assert torch.equal(first[2].weight, again[2].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


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
