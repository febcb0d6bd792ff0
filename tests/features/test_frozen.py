"""Frozen backbones, against the backbone itself."""

import logging

import pytest
import torch
from torch import Tensor

from tests.features.backbones import make_backbone
from unic.features.frozen import FrozenBackbone
from unic.models.backbones import Backbone
from unic.models.engines import Engine

CPU = torch.device("cpu")
NAMES = ["test_vit", "test_resnet"]  # with and without a path for the class token alone


def images() -> Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def freeze(backbone: Backbone, engine: str, *, only_features: bool = False) -> FrozenBackbone:
    return FrozenBackbone(backbone, Engine(engine, torch.float32, CPU), only_features=only_features)


@pytest.mark.parametrize("only_features", [True, False])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_features_are_those_of_the_backbone(name: str, engine: str, only_features: bool) -> None:
    backbone = make_backbone(name)
    found = freeze(backbone, engine, only_features=only_features).features(images())
    torch.testing.assert_close(found, backbone(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["last_block", "frozen", "all_tokens"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_outputs_are_those_of_the_trunk(name: str, engine: str, kind: str) -> None:
    backbone = make_backbone(name, all_tokens=kind == "all_tokens", is_frozen=kind == "frozen")
    found, expected = freeze(backbone, engine).prepare(images()), backbone.prepare(images())
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-4, atol=1e-5)
    assert (found.class_token is None) == (expected.class_token is None)


def test_the_last_block_may_be_trained_meanwhile() -> None:
    backbone = make_backbone("test_resnet")
    backbone.set_trainable("last_block")
    frozen = freeze(backbone, "openvino")
    before = frozen.features(images())
    backbone.features_of(frozen.prepare(images())).sum().backward()
    with torch.no_grad():
        for parameter in backbone.block.parameters():
            parameter.sub_(1e-2 * parameter.grad)
        torch.testing.assert_close(frozen.features(images()), backbone(images()))
    assert not torch.allclose(frozen.features(images()), before)


def test_auto_falls_back_to_torch_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    backbone = make_backbone("test_vit")
    trunk = type(backbone).trunk

    class Odd(type(backbone)):
        def trunk(self, images: Tensor) -> Tensor:
            return trunk(self, images) + torch.linalg.eigvals(images[:, 0]).real.sum() * 0

    backbone.__class__ = Odd
    with caplog.at_level(logging.INFO):
        frozen = FrozenBackbone.choose(
            backbone, "auto", n_images=10**9, precision=torch.float32, device=CPU
        )
    assert frozen.engine.name == "torch"
    assert "torch computes this network: machine.engine must be torch" in caplog.text
    with pytest.raises(ValueError, match="openvino cannot convert"):
        FrozenBackbone.choose(backbone, "openvino", n_images=1, precision=torch.float32, device=CPU)


def test_refuses_the_trunk_where_features_alone_were_asked_for() -> None:
    frozen = freeze(make_backbone("test_resnet"), "torch", only_features=True)
    with pytest.raises(ValueError, match="only_features must be false"):
        frozen.prepare(images())
