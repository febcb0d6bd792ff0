import pytest
import torch
from torch import Tensor, nn

from unic.heads import ClusterHead, SelfAttentionHead, apply_heads, make_head, reads_tokens

KINDS = ("mlp", "linear", "self_attention")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_tokens(n_dims: int = 128, n_tokens: int = 7) -> Tensor:
    return torch.randn(5, n_tokens, n_dims, generator=seeded(1))


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


@pytest.mark.parametrize("norm", ["none", "rms"])
@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_heads_together_are_each_alone(n_heads: int, kind: str, norm: str) -> None:
    generator = seeded()
    heads = [
        make_head(kind, 24, 5, width=16, generator=generator, norm=norm).double()
        for _ in range(n_heads)
    ]
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


# Laws


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
    with pytest.raises(ValueError, match="head_norm must be none or rms, got layer"):
        make_head("mlp", 64, 9, width=32, generator=seeded(), norm="layer")
    with pytest.raises(ValueError, match="head_norm must be none with a self_attention head"):
        make_head("self_attention", 64, 9, width=32, generator=seeded(), norm="rms")
