"""The last block of a vision transformer, computed for its class token alone."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from unic.models.trunk_output import TrunkOutput

TOLERANCE = 1e-9  # relative, in float64
PART_SIZES = {"cpu": 2**20}  # numbers that are attended to at once, so that they stay in the cache
PART_SIZE = 2**28


class ClassTokenBlock:
    """A block of timm's ``VisionTransformer`` as a function of normalized tokens.

    A loss that reads the class token asks one query a head of the last block. With ``x^_t`` the
    tokens after the normalization without its weights ``g`` and ``c``, and ``x_t = g x^_t + c``,

    - ``<q, W_k x_t + b_k> = <g W_k^T q, x^_t>`` plus what is the same for all ``t``, which softmax
      does not see;
    - ``sum_t p_t (W_v x_t + b_v) = W_v (g sum_t p_t x^_t + c) + b_v``, as the ``p_t`` sum to 1.

    Hence neither keys nor values are formed, and what is left of ``t`` tokens are two products
    with ``x^``. It is the same function of the weights, and shares them with the block.

    Args:
        block: A block for which :func:`refusal` has nothing to say.
    """

    def __init__(self, block: nn.Module):
        self._block: Any = block

    def split(self, tokens: Tensor) -> TrunkOutput:
        """Normalize tokens ``(b, t, d)``, without weights and in float32 at least."""
        tokens = tokens if tokens.dtype == torch.float64 else tokens.float()
        return TrunkOutput(self._normalize(tokens), tokens[:, 0])

    def __call__(self, output: TrunkOutput) -> Tensor:
        """The class token after the block, ``(b, d)``."""
        block = self._block
        token: Any = output.class_token
        token = token + block.ls1(self._attend(token, output))
        return token + block.ls2(block.mlp(block.norm2(token)))

    def _normalize(self, tokens: Tensor) -> Tensor:
        return layer_norm(tokens, tokens.shape[-1:], eps=self._block.norm1.eps)

    def _attend(self, class_token: Tensor, output: TrunkOutput) -> Tensor:
        """Attention of the class token ``(b, d)`` to the normalized tokens."""
        norm, attention = self._block.norm1, self._block.attn
        n_heads, n_dims = attention.num_heads, class_token.shape[1]
        query_weight, key_weight, value_weight = attention.qkv.weight.chunk(3)  # (h e, d) each
        query_bias, _, value_bias = _chunk_bias(attention.qkv)
        query = linear(norm(class_token), query_weight, query_bias)  # (b, h e)
        query = query.unflatten(1, (n_heads, -1)).transpose(0, 1)  # (h, b, e)
        absorbed = query @ key_weight.view(n_heads, -1, n_dims)  # (h, b, d)
        absorbed = absorbed.transpose(0, 1) * (norm.weight * attention.scale)  # (b, h, d)
        mixed = _Mix.apply(absorbed, output.tokens, output.scales)  # (b, h, d)
        mixed = mixed * norm.weight + norm.bias  # (b, h, d)
        value = value_weight.view(n_heads, -1, n_dims).transpose(1, 2)  # (h, d, e)
        attended = (mixed.transpose(0, 1) @ value).transpose(0, 1).flatten(1)  # (b, h e)
        if value_bias is not None:
            attended = attended + value_bias
        return attention.proj(attended)


class _Mix(torch.autograd.Function):
    """``softmax(q x^T) x`` of queries ``(b, h, d)`` and tokens ``(b, t, d)``, as a function of q.

    The tokens are brought to the precision of the queries a few images at a time, forwards and
    backwards, so that they need not be written to memory in it.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, tokens: Tensor, scales: Tensor | None) -> Tensor:
        probs = queries.new_empty(*queries.shape[:2], tokens.shape[1])  # (b, h, t)
        mixed = torch.empty_like(queries)  # (b, h, d)
        for part, exact in _parts(tokens, scales, queries.dtype):
            probs[part] = torch.softmax(queries[part] @ exact.transpose(1, 2), dim=2)
            mixed[part] = probs[part] @ exact
        ctx.save_for_backward(probs, tokens, scales)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients  # (b, h, d)
        probs, tokens, scales = ctx.saved_tensors
        found = torch.empty_like(gradient)  # (b, h, d)
        for part, exact in _parts(tokens, scales, gradient.dtype):
            of_probs = gradient[part] @ exact.transpose(1, 2)  # (b, h, t)
            weighted = probs[part] * of_probs
            of_scores = weighted - probs[part] * weighted.sum(2, keepdim=True)
            found[part] = of_scores @ exact
        return found, None, None


def _parts(
    tokens: Tensor, scales: Tensor | None, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor]]:
    size = max(1, PART_SIZES.get(tokens.device.type, PART_SIZE) // tokens[0].numel())
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        exact = tokens[part].to(dtype)  # (p, t, d)
        yield part, exact if scales is None else exact * scales[part, :, None]


def refusal(model: nn.Module, block: nn.Module) -> str | None:
    """Why the last block of a model cannot be computed for its class token alone.

    Known parts are asked for by their exact type; numbers alone would not tell, for the layer
    scales of untrained weights hide nearly all that a block does.

    Args:
        model: The whole model.
        block: Its last block.

    Returns:
        The reason, or None where it can.
    """
    if type(model) is not VisionTransformer or type(block) is not Block:
        return f"{type(model).__name__} with {type(block).__name__} is no plain vision transformer"
    if model.global_pool != "token" or not model.has_class_token:
        return f"its features are not the class token (global_pool={model.global_pool!r})"
    attention = block.attn
    if type(attention) is not Attention:
        return f"its attention is {type(attention).__name__}"
    for name in ("q_norm", "k_norm", "norm"):
        if not isinstance(getattr(attention, name), nn.Identity):
            return f"its attention normalizes ({name})"
    if attention.gate is not None:
        return "its attention is gated"
    if not isinstance(block.norm1, nn.LayerNorm) or block.norm1.bias is None:
        return f"its first normalization is {block.norm1}"
    return None


@torch.no_grad()
def block_error(block: nn.Module, tokens: Tensor) -> float:
    """How far the class token of :class:`ClassTokenBlock` is from the block's own.

    Args:
        block: A block for which :func:`refusal` has nothing to say.
        tokens: Shape ``(b, t, d)``, input of the block.

    Returns:
        Largest difference relative to the largest value, both computed in float64.
    """
    exact, tokens = copy.deepcopy(block).double(), tokens.double()
    ours = ClassTokenBlock(exact)
    plain = exact(tokens)[:, 0]  # (b, d)
    return float((ours(ours.split(tokens)) - plain).abs().max() / plain.abs().max())


def _chunk_bias(qkv: nn.Linear) -> tuple[Tensor | None, ...]:
    return (None, None, None) if qkv.bias is None else qkv.bias.chunk(3)
