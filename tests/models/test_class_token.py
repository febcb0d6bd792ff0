import copy
import logging
from typing import Any

import pytest
import timm
import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

import unic.models.class_token
from unic.models.backbones import Backbone, load_backbone
from unic.models.class_token import ClassTokenBlock, block_error, refusal
from unic.models.heads import ClusterHead
from unic.models.trunk_output import TrunkOutput
from unic.training.losses import entropy_loss, negative_loss, positive_loss

VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 3}
PLAIN: dict[str, dict[str, Any]] = {  # options of vit_tiny_patch16_224 that the short way serves
    "as it is": {},
    "layer scale": {"init_values": 0.1},
    "untrained layer scale": {"init_values": 1e-5},
    "no qkv bias": {"qkv_bias": False},
    "registers": {"reg_tokens": 4},
    "no final norm": {"final_norm": False},
    "other heads": {"num_heads": 6},
}
OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "average": ({"global_pool": "avg"}, r"not the class token \(global_pool='avg'\)"),
    "map": ({"global_pool": "map", "class_token": False}, "not the class token"),
    "no class token": ({"global_pool": "avg", "class_token": False}, "not the class token"),
    "norms of queries": ({"qk_norm": True}, r"normalizes \(q_norm\)"),
    "norm of the attended": ({"scale_attn_norm": True}, r"normalizes \(norm\)"),
}


def make_vit(**options: Any) -> Backbone:
    backbone = load_backbone(
        "vit_tiny_patch16_224", weights="random", options=VIT | options, image_size=32
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # weights of normalizations and biases that are not 1 and 0
        for parameter in backbone.parameters():
            if parameter.ndim == 1:
                parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    backbone.set_trainable("last_block")
    return backbone


def make_images(n_images: int = 12, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_images, 3, 32, 32, generator=generator).to(dtype)


def gradients(backbone: Backbone, head: ClusterHead, features: Tensor) -> Tensor:
    """Gradient of the paper's loss with respect to the last block and the head."""
    backbone.zero_grad()
    head.zero_grad()
    log_probs = torch.log_softmax(head(features), dim=1).view(3, -1, head.n_clusters)
    anchors, positives, negatives = log_probs
    loss = positive_loss(anchors, positives) + negative_loss(anchors, negatives)
    (loss + 3 * entropy_loss(anchors)).backward()
    found = [p.grad for p in (*backbone.block.parameters(), *head.parameters())]
    assert all(gradient is not None for gradient in found)
    return torch.cat([gradient.flatten() for gradient in found]).clone()


def gradient_error(
    backbone: Backbone,
    dtype: torch.dtype = torch.float32,
    precision: torch.dtype = torch.float32,
) -> float:
    """Norm of the difference from the gradient of three plain passes, relative."""
    generator = torch.Generator().manual_seed(1)
    head = ClusterHead(backbone.n_dims, 5, width=32, generator=generator).to(dtype)
    with torch.no_grad():
        for layer in (head[0], head[2]):
            layer.weight.mul_(20)  # predictions that differ
    backbone = backbone.to(dtype)
    backbone.set_trainable("last_block")
    images = make_images(dtype=dtype)
    expected = gradients(backbone, head, torch.cat([backbone(part) for part in images.chunk(3)]))
    if dtype == torch.float64:
        block = ClassTokenBlock(backbone.block)
        features = backbone._finish(block(block.split(backbone.trunk(images)))[:, None])
    else:
        features = backbone.features_of(backbone.prepare(images, precision=precision))
    found = gradients(backbone, head, features)
    return float((found - expected).norm() / expected.norm())


# The class token alone, against the whole block


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_features_are_those_of_the_whole_block(options: dict[str, Any]) -> None:
    backbone = make_vit(**options)
    assert backbone.has_class_token_path
    with torch.no_grad():
        expected = backbone(make_images())
        found = backbone.features_of(backbone.prepare(make_images()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_gradients_are_those_of_the_plain_step(options: dict[str, Any]) -> None:
    assert gradient_error(make_vit(**options), torch.float64) < 1e-12
    assert gradient_error(make_vit(**options)) < 1e-5


def test_gradients_of_a_bfloat16_trunk_are_near() -> None:
    error = gradient_error(make_vit(), precision=torch.bfloat16)
    assert 1e-5 < error < 5e-2


def test_the_whole_block_takes_a_bfloat16_trunk_too() -> None:
    backbone = make_vit(global_pool="avg")
    assert not backbone.has_class_token_path
    assert 1e-5 < gradient_error(backbone, precision=torch.bfloat16) < 5e-2
    assert gradient_error(backbone) < 1e-6


def test_gradients_reach_the_trunk_where_all_is_trained() -> None:
    backbone = make_vit()
    backbone.set_trainable("all")
    assert backbone.prepare(make_images()).class_token is None
    weight = torch.randn(12, backbone.n_dims, generator=torch.Generator().manual_seed(2))
    found = []
    for features in (
        backbone(make_images()),
        backbone.features_of(backbone.prepare(make_images())),
    ):
        backbone.zero_grad()
        (features * weight).sum().backward()
        grads = [p.grad.clone() for p in backbone.parameters() if p.grad is not None]
        found.append(torch.cat([gradient.flatten() for gradient in grads]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


# Laws


def test_what_is_prepared_is_normalized_and_needs_no_gradient() -> None:
    backbone = make_vit()
    output = backbone.prepare(make_images())
    assert output.class_token is not None
    assert not output.tokens.requires_grad
    assert not output.class_token.requires_grad
    torch.testing.assert_close(output.tokens.mean(2), torch.zeros(12, 17), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.tokens.std(2), torch.ones(12, 17), rtol=1e-2, atol=0)


def test_the_order_of_the_other_tokens_does_not_matter() -> None:
    backbone = make_vit()
    output = backbone.prepare(make_images())
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = backbone.features_of(output._replace(tokens=output.tokens[:, order]))
        torch.testing.assert_close(found, backbone.features_of(output), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2 * 17 * 192, 2**30])
def test_attending_in_parts_changes_nothing(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_vit()
    output = backbone.prepare(make_images())
    found = []
    for limit in (5 * 17 * 192, size):
        monkeypatch.setitem(unic.models.class_token.PART_SIZES, "cpu", limit)
        backbone.zero_grad()
        features = backbone.features_of(output)
        features.square().sum().backward()
        found.append((features.detach(), backbone.block.attn.qkv.weight.grad.clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_scales_stand_for_tokens_that_are_multiplied_by_them() -> None:
    backbone = make_vit()
    output = backbone.prepare(make_images())
    scales = 1 + torch.rand(12, 17, generator=torch.Generator().manual_seed(0))
    scaled = TrunkOutput(output.tokens / scales[..., None], output.class_token, scales)
    with torch.no_grad():
        torch.testing.assert_close(backbone.features_of(scaled), backbone.features_of(output))


def test_it_follows_the_weights_of_the_block() -> None:
    backbone = make_vit()
    output = backbone.prepare(make_images())
    with torch.no_grad():
        before = backbone.features_of(output)
        backbone.block.attn.qkv.weight.mul_(2)
        after = backbone.features_of(output)
        torch.testing.assert_close(after, backbone(make_images()), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, after)


# What it does not serve


@pytest.mark.parametrize(("options", "reason"), OTHER.values(), ids=OTHER)
def test_other_blocks_are_computed_whole_and_the_log_says_why(
    options: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "unic"):
        backbone = make_vit(**options)
    assert not backbone.has_class_token_path
    assert backbone.prepare(make_images()).class_token is None
    torch.testing.assert_close(
        backbone.features_of(backbone.prepare(make_images())), backbone(make_images())
    )
    with pytest.raises(ValueError, match=reason):
        raise ValueError(refusal(backbone.model, backbone.block))
    assert "the last block is computed whole" in caplog.text


def test_the_log_says_that_the_class_token_is_computed_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "unic"):
        make_vit()
    assert "the last block computes its class token alone (error" in caplog.text


@pytest.mark.parametrize("name", ["test_resnet", "eva02_tiny_patch14_224"])
def test_other_networks_are_computed_whole(name: str) -> None:
    options = {"img_size": 28, "depth": 2} if name.startswith("eva") else {}
    size = 28 if options else 32
    backbone = load_backbone(name, weights="random", options=options, image_size=size)
    assert "no plain vision transformer" in (refusal(backbone.model, backbone.block) or "")
    assert not backbone.has_class_token_path


def test_refuses_parts_of_another_type() -> None:
    class OtherAttention(Attention):
        pass

    class OtherBlock(Block):
        pass

    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT)
    block = model.blocks[-1]
    assert refusal(model, block) is None
    assert refusal(model, OtherBlock(192, 3)) is not None
    block.attn = OtherAttention(192, 3)
    assert refusal(model, block) == "its attention is OtherAttention"
    block.attn = Attention(192, 3, gated=True)
    assert refusal(model, block) == "its attention is gated"
    block.attn, block.norm1 = Attention(192, 3), nn.Identity()
    assert refusal(model, block) == "its first normalization is Identity()"


def test_a_block_that_computes_something_else_is_found_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the parts are the known ones but one was changed, the numbers tell."""
    backbone = make_vit(init_values=1e-5)  # hides most of what the block does
    tokens = backbone.trunk(make_images())
    assert block_error(backbone.block, tokens) < 1e-13
    changed = copy.deepcopy(backbone.model)
    changed.blocks[-1].attn.proj_drop = nn.Tanh()
    assert refusal(changed, changed.blocks[-1]) is None
    assert block_error(changed.blocks[-1], tokens) > 1e-6
    with caplog.at_level(logging.INFO, "unic"):
        assert not Backbone(changed, image_size=32).has_class_token_path
    assert "computed whole: its features differ" in caplog.text
