import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unic.models.heads import (
    FITTED_NORMS,
    NORMS,
    ClusterHead,
    Head,
    SelfAttentionHead,
    apply_heads,
    fit_norms,
    make_head,
    reads_tokens,
)

KINDS = ("mlp", "linear", "self_attention")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tokens(n_dims: int = 128, n_tokens: int = 7) -> Tensor:
    return torch.randn(5, n_tokens, n_dims, generator=seeded(1))


def after_a_relu(n_images: int = 300, n_dims: int = 24) -> NDArray[np.float32]:
    """Features that are not negative, of dims that differ in size; the last is always 0."""
    generator = np.random.default_rng(0)
    features = generator.normal(0.5, 1, (n_images, n_dims)) * np.geomspace(0.1, 10, n_dims)
    features[:, -1] = -1
    return np.maximum(features, 0).astype(np.float32)


def fitted(
    kind: str, norm: str | None, features: NDArray[np.float32], *, n_heads: int = 1
) -> list[Head]:
    generator, n_dims = seeded(), features.shape[1]
    heads = [
        make_head(kind, n_dims, 5, width=16, generator=generator, norm=norm) for _ in range(n_heads)
    ]
    fit_norms(heads, features)
    return heads


# Against plain references


def test_the_head_is_the_papers() -> None:
    head = make_head("mlp", 64, 10, width=2048, generator=seeded())
    assert isinstance(head, ClusterHead)
    assert [type(layer) for layer in head] == [nn.Linear, nn.GELU, nn.Linear]
    assert [tuple(p.shape) for p in head.parameters()] == [(2048, 64), (2048,), (10, 2048), (10,)]
    assert head(torch.randn(3, 64)).shape == (3, 10)


def test_a_linear_head_is_one_product() -> None:
    head = make_head("linear", 64, 10, width=2048, generator=seeded())
    weight, bias = head.parameters()
    features = torch.randn(3, 64)
    torch.testing.assert_close(head(features), features @ weight.T + bias)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_heads_together_are_each_alone(n_heads: int, kind: str, norm: str | None) -> None:
    generator = seeded()
    heads = [head.double() for head in fitted(kind, norm, after_a_relu(), n_heads=n_heads)]
    parameters = [parameter for head in heads for parameter in head.parameters()]
    for parameter in parameters:
        parameter.data.normal_(generator=generator)
    features = torch.randn(7, 24, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, n_heads, 5, generator=generator, dtype=torch.float64)
    alone = torch.stack([head(features) for head in heads], dim=1)  # (b, h, c)
    together = apply_heads(heads, features)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    inputs = [features, *parameters]
    gradients = (torch.autograd.grad((x * weights).sum(), inputs) for x in (together, alone))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [255, 256])
def test_heads_whose_products_are_taken_alone_give_the_same(width: int) -> None:
    generator = seeded()
    heads = [make_head("mlp", 24, 5, width=width, generator=generator) for _ in range(3)]
    features = torch.randn(7, 24, generator=generator)
    alone = torch.stack([head(features) for head in heads], dim=1)
    torch.testing.assert_close(apply_heads(heads, features), alone)


def test_several_self_attention_heads_read_the_same_tokens() -> None:
    generator = seeded()
    heads = [make_head("self_attention", 64, 5, width=8, generator=generator) for _ in range(2)]
    tokens = random_tokens(64)
    logits = apply_heads(heads, tokens)
    assert logits.shape == (5, 2, 5)
    torch.testing.assert_close(logits[:, 1], heads[1](tokens))


@torch.no_grad()
@pytest.mark.parametrize(("n_dims", "n_heads"), [(128, 2), (192, 3), (48, 1), (160, 2), (67, 1)])
def test_self_attention_is_an_encoder_layer_and_a_linear_one(n_dims: int, n_heads: int) -> None:
    head = SelfAttentionHead(n_dims, 6, width=96, generator=seeded())
    for parameter in head.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    plain = nn.TransformerEncoderLayer(
        n_dims, n_heads, 96, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    own = dict(head.named_parameters())
    plain.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([own["query.weight"], own["key_value.weight"]]),
            "self_attn.in_proj_bias": torch.cat([own["query.bias"], own["key_value.bias"]]),
            "self_attn.out_proj.weight": own["projection.weight"],
            "self_attn.out_proj.bias": own["projection.bias"],
            "linear1.weight": own["mlp.0.weight"],
            "linear1.bias": own["mlp.0.bias"],
            "linear2.weight": own["mlp.2.weight"],
            "linear2.bias": own["mlp.2.bias"],
            **{k: v for k, v in own.items() if k.startswith("norm")},
        }
    )
    tokens = random_tokens(n_dims)
    expected = plain.double()(tokens.double())[:, 0] @ own["output.weight"].T.double()
    expected += own["output.bias"].double()
    torch.testing.assert_close(head.double()(tokens.double()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_norm_scales_features_to_one_length_first(kind: str) -> None:
    scaled = make_head(kind, 64, 10, width=32, generator=seeded(), norm="rms")
    plain = make_head(kind, 64, 10, width=32, generator=seeded())
    features = torch.randn(5, 64, generator=seeded(2)) * torch.tensor([[1e-2], [1], [3], [50], [9]])
    lengths = features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(scaled(features), plain(8 * features / lengths))
    torch.testing.assert_close(scaled(7 * features), scaled(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("norm", FITTED_NORMS)
def test_a_fitted_norm_is_that_of_float64(norm: str, kind: str) -> None:
    features = after_a_relu(n_images=9000)  # more than are float64 at a time
    wide = features.astype(np.float64)
    expected = wide - wide.mean(0)
    if norm == "standardize":
        expected /= np.sqrt(np.mean([np.var(column) for column in wide.T]))
    (head,) = fitted(kind, norm, features)
    centered = head[0](torch.from_numpy(features)).numpy()
    assert centered.dtype == np.float32
    np.testing.assert_allclose(centered, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(centered.mean(0, dtype=np.float64), 0, atol=1e-6)
    if norm == "standardize":
        assert np.square(centered).mean(dtype=np.float64) == pytest.approx(1, rel=1e-6)
    plain = make_head(kind, features.shape[1], 5, width=16, generator=seeded())
    given = torch.from_numpy(expected[:50].astype(np.float32))
    logits = head(torch.from_numpy(features[:50]))
    torch.testing.assert_close(logits, plain(given), rtol=1e-4, atol=1e-5)


# Laws


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("norm", FITTED_NORMS)
def test_a_shift_of_all_features_changes_no_logit(norm: str, kind: str) -> None:
    features = after_a_relu()
    shifted = features + np.linspace(-3, 30, features.shape[1], dtype=np.float32)
    (ours,), (theirs,) = fitted(kind, norm, features), fitted(kind, norm, shifted)
    logits, others = ours(torch.from_numpy(features)), theirs(torch.from_numpy(shifted))
    torch.testing.assert_close(logits, others, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_a_scale_of_all_features_changes_no_logit_once_standardized(
    factor: float, kind: str
) -> None:
    features = after_a_relu()
    scaled = features * np.float32(factor)
    alike = {}
    for norm in FITTED_NORMS:
        (ours,), (theirs,) = fitted(kind, norm, features), fitted(kind, norm, scaled)
        logits, others = ours(torch.from_numpy(features)), theirs(torch.from_numpy(scaled))
        alike[norm] = torch.allclose(logits, others, rtol=1e-4, atol=1e-5)
    assert alike == {"center": False, "standardize": True}


@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_learns_nothing_and_draws_nothing(norm: str, kind: str) -> None:
    """What is trained, and where it starts, is the same with each norm."""
    (head,), (plain,) = (fitted(kind, each, after_a_relu()) for each in (norm, None))
    for ours, theirs in zip(head.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    statistics = {"center": ["0.mean"], "standardize": ["0.mean", "0.scale"]}
    assert [name for name, _ in head.named_buffers()] == statistics.get(norm, [])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_drawn_from_the_generator_alone(kind: str) -> None:
    first = make_head(kind, 64, 100, width=1024, generator=seeded()).state_dict()
    torch.rand(3)  # moves the global generator
    again = make_head(kind, 64, 100, width=1024, generator=seeded()).state_dict()
    other = make_head(kind, 64, 100, width=1024, generator=seeded(1)).state_dict()
    drawn = [key for key, tensor in first.items() if tensor.ndim == 2]
    assert drawn
    for key in first:
        assert torch.equal(first[key], again[key])
        if key in drawn:
            assert first[key].std().item() == pytest.approx(0.02, rel=0.05)
            assert not torch.equal(first[key], other[key])
        elif key.endswith("bias"):
            assert not first[key].any()


@torch.no_grad()
def test_the_order_of_the_other_tokens_does_not_matter() -> None:
    head, tokens = SelfAttentionHead(128, 6, width=96, generator=seeded()).double(), random_tokens()
    tokens = tokens.double()
    permuted = tokens[:, [0, *torch.randperm(6, generator=seeded()).add(1).tolist()]]
    torch.testing.assert_close(head(permuted), head(tokens), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(head(tokens.roll(1, dims=1)), head(tokens))


@torch.no_grad()
def test_self_attention_reads_every_token() -> None:
    head, tokens = SelfAttentionHead(128, 6, width=96, generator=seeded()), random_tokens()
    for token in range(tokens.shape[1]):
        changed = tokens.clone()
        changed[:, token] *= -1
        assert not torch.allclose(head(changed), head(tokens), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_says_what_it_reads(kind: str) -> None:
    head = make_head(kind, 64, 9, width=32, generator=seeded())
    assert head.reads_tokens is reads_tokens(kind)
    assert head.n_clusters == 9
    shape = (4, 5, 64) if reads_tokens(kind) else (4, 64)
    assert head(torch.randn(shape)).shape == (4, 9)


def test_refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="head must be mlp, linear or self_attention, got cnn"):
        make_head("cnn", 64, 9, width=32, generator=seeded())


def test_refuses_a_norm_that_it_does_not_have() -> None:
    message = "head_norm must be null, rms, center or standardize, got layer"
    with pytest.raises(ValueError, match=message):
        make_head("mlp", 64, 9, width=32, generator=seeded(), norm="layer")


@pytest.mark.parametrize("norm", ["rms", *FITTED_NORMS])
def test_refuses_a_norm_before_self_attention(norm: str) -> None:
    with pytest.raises(ValueError, match="head_norm must be null with a self_attention head"):
        make_head("self_attention", 64, 9, width=32, generator=seeded(), norm=norm)


def test_refuses_features_that_it_cannot_be_fitted_to() -> None:
    head = make_head("linear", 64, 9, width=32, generator=seeded(), norm="standardize")
    with pytest.raises(ValueError, match="must have the 64 dims that the head reads, got 24"):
        fit_norms([head], after_a_relu())
    with pytest.raises(ValueError, match="features must differ to be standardized"):
        fit_norms([head], np.full((10, 64), 3.7, dtype=np.float32))
