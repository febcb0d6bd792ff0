"""Cluster heads: from what the backbone gives for an image to cluster logits (A.10, Fig. 5)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

HEAD_STD = 0.02
PROJECTOR_WIDTH, PROJECTOR_DIMS = 2048, 256  # DINO, SimGCD
HEAD_DIMS = 64  # least dims of an attention head, those of ViT-B
NORMS = (None, "rms", "center", "standardize")
FITTED_NORMS = ("center", "standardize")  # by statistics of the training features
_WIDE = 256  # outputs of a linear layer whose product is taken alone
_FIT_ROWS = 4096  # of features that are float64 at a time


class Center(nn.Module):
    """Features less the mean of the training features, dim by dim.

    Features of a backbone share a mean, above all those after a ReLU, which are not negative. A
    step along this mean moves the logits of all images alike, and so the clusters' sizes, far more
    than it tells one image from another; without it a head learns differences from the start.

    Args:
        n_dims: Width of the features.
    """

    mean: Tensor

    def __init__(self, n_dims: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_dims))

    def fit(self, features: NDArray[np.float32]) -> None:
        """Take the mean ``(d,)`` of training features ``(n, d)``, computed in float64."""
        self.mean.copy_(torch.from_numpy(features.mean(axis=0, dtype=np.float64)))

    def forward(self, features: Tensor) -> Tensor:
        """Centered features ``(b, d)``."""
        return features - self.mean


class Standardize(Center):
    """Centered features divided by one number, after which a dim has a variance of 1 on average.

    ``s^2 = mean_i mean_d (x_id - mean_d)^2``. One number leaves the angles and the order of the
    distances between centered features as they are, and is defined unless all images have one
    feature; a number a dim would let dims that hardly vary say as much as the others. A
    learning rate then means the same for every backbone.

    Args:
        n_dims: Width of the features.
    """

    scale: Tensor

    def __init__(self, n_dims: int):
        super().__init__(n_dims)
        self.register_buffer("scale", torch.ones(()))

    def fit(self, features: NDArray[np.float32]) -> None:
        """Take mean ``(d,)`` and scale of training features ``(n, d)``, computed in float64.

        Raises:
            ValueError: If all features are the same.
        """
        if (features == features[0]).all():
            raise ValueError("features must differ to be standardized, all are the same")
        super().fit(features)
        mean, total = features.mean(axis=0, dtype=np.float64), 0.0
        for start in range(0, len(features), _FIT_ROWS):
            total += float(np.square(features[start : start + _FIT_ROWS] - mean).sum())
        self.scale.fill_((total / features.size) ** 0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Standardized features ``(b, d)``."""
        return super().forward(features) / self.scale


class ClusterHead(nn.Sequential):
    """Two-layer perceptron from features to cluster logits (paper, A.10): Linear-GELU-Linear.

    Args:
        n_dims: Width of the features.
        n_clusters: Number of outputs.
        width: Hidden units.
        generator: Source of the initial weights (truncated normal, 0.02; biases 0).
        norm: What is done to features first, see :func:`make_head`.
    """

    reads_tokens = False

    def __init__(
        self,
        n_dims: int,
        n_clusters: int,
        *,
        width: int,
        generator: torch.Generator,
        norm: str | None = None,
    ):
        hidden, output = nn.Linear(n_dims, width), nn.Linear(width, n_clusters)
        super().__init__(*_make_norm(norm, n_dims), hidden, nn.GELU(), output)
        self.n_clusters = n_clusters
        _draw_weights(self, generator)


class LinearHead(nn.Sequential):
    """One linear layer from features to cluster logits (FC in Fig. 5).

    Args:
        n_dims: Width of the features.
        n_clusters: Number of outputs.
        generator: Source of the initial weights (truncated normal, 0.02; biases 0).
        norm: As for :class:`ClusterHead`.
    """

    reads_tokens = False

    def __init__(
        self, n_dims: int, n_clusters: int, *, generator: torch.Generator, norm: str | None = None
    ):
        super().__init__(*_make_norm(norm, n_dims), nn.Linear(n_dims, n_clusters))
        self.n_clusters = n_clusters
        _draw_weights(self, generator)


class SelfAttentionHead(nn.Module):
    """One encoder layer over all tokens, then a linear layer on the class token (SA in Fig. 5).

    The paper says no more of it than "a self-attention-based classification architecture with
    patch size 16 x 16 and intermediate MLP dimension 2048" (A.10). We take a block like those of
    the backbone: with tokens ``x``, the class token ``x_0``, pre-normalization and no dropout,

    ``z = x_0 + Attention(LN(x))_0``, ``logits = W (z + MLP(LN(z))) + b``.

    Only the class token asks a query, since no other is read afterwards; attention heads have 64
    dims, or the next number that divides ``n_dims``.

    Args:
        n_dims: Width of the tokens.
        n_clusters: Number of outputs.
        width: Hidden units of the perceptron.
        generator: Source of the initial weights (truncated normal, 0.02; biases 0).
    """

    reads_tokens = True

    def __init__(self, n_dims: int, n_clusters: int, *, width: int, generator: torch.Generator):
        super().__init__()
        self.n_clusters = n_clusters
        start = min(HEAD_DIMS, n_dims)
        self.head_dims = next(d for d in range(start, n_dims + 1) if n_dims % d == 0)
        self.norm1, self.norm2 = nn.LayerNorm(n_dims), nn.LayerNorm(n_dims)
        self.query, self.key_value = nn.Linear(n_dims, n_dims), nn.Linear(n_dims, 2 * n_dims)
        self.projection = nn.Linear(n_dims, n_dims)
        self.mlp = nn.Sequential(nn.Linear(n_dims, width), nn.GELU(), nn.Linear(width, n_dims))
        self.output = nn.Linear(n_dims, n_clusters)
        _draw_weights(self, generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(b, c)`` of tokens ``(b, t, d)``, the class token first."""
        normalized = self.norm1(tokens)
        query = self._split(self.query(normalized[:, :1]))  # (b, h, 1, e)
        key, value = map(self._split, self.key_value(normalized).chunk(2, dim=2))  # (b, h, t, e)
        attended = scaled_dot_product_attention(query, key, value)  # (b, h, 1, e)
        token = tokens[:, 0] + self.projection(attended.flatten(1))  # (b, d)
        token = token + self.mlp(self.norm2(token))
        return self.output(token)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(2, (-1, self.head_dims)).transpose(1, 2)  # (b, h, t, e)


class Projector(nn.Sequential):
    """Three-layer perceptron from features to unit vectors ``(b, 256)`` for contrastive losses.

    DINO's head up to its bottleneck: two hidden layers of 2048 units with GELU, no norm.

    Args:
        n_dims: Width of the features.
        generator: Source of the initial weights (truncated normal, 0.02; biases 0).
    """

    def __init__(self, n_dims: int, *, generator: torch.Generator):
        first, second = nn.Linear(n_dims, PROJECTOR_WIDTH), nn.Linear(*(PROJECTOR_WIDTH,) * 2)
        super().__init__(
            first, nn.GELU(), second, nn.GELU(), nn.Linear(PROJECTOR_WIDTH, PROJECTOR_DIMS)
        )
        _draw_weights(self, generator)

    def forward(self, features: Tensor) -> Tensor:
        """Unit vectors ``(b, 256)`` of features ``(b, d)``."""
        return normalize(super().forward(features), dim=1)


Head = ClusterHead | LinearHead | SelfAttentionHead


def make_head(
    kind: str,
    n_dims: int,
    n_clusters: int,
    *,
    width: int,
    generator: torch.Generator,
    norm: str | None = None,
) -> Head:
    """Draw a new head.

    Args:
        kind: ``mlp``, ``linear`` or ``self_attention``.
        n_dims: Width of features and tokens.
        n_clusters: Number of outputs.
        width: Hidden units of the perceptron; a linear head has none.
        generator: Source of the initial weights.
        norm: What is done to features first: None; ``rms`` to scale each to length
            ``sqrt(n_dims)``; :class:`Center` or :class:`Standardize`, which are to be fitted by
            :func:`fit_norms` before the training.

    Raises:
        ValueError: If there is no such kind, or it takes no such norm.
    """
    if kind == "linear":
        return LinearHead(n_dims, n_clusters, generator=generator, norm=norm)
    if kind == "mlp":
        return ClusterHead(n_dims, n_clusters, width=width, generator=generator, norm=norm)
    if kind == "self_attention":
        if norm is not None:
            raise ValueError(
                f"head_norm must be null with a self_attention head, which has its own, got {norm}"
            )
        return SelfAttentionHead(n_dims, n_clusters, width=width, generator=generator)
    raise ValueError(f"head must be mlp, linear or self_attention, got {kind}")


def fit_norms(heads: Sequence[Head], features: NDArray[np.float32]) -> None:
    """Center or standardize what heads read by the statistics of training features.

    Nothing is done to heads without such a norm.

    Args:
        heads: On any device.
        features: Shape ``(n, d)``, float32, of the backbone as it is before the training.

    Raises:
        ValueError: If the features are of another width than the heads read, or all the same
            where they are to be standardized.
    """
    norms = [module for head in heads for module in head.modules() if isinstance(module, Center)]
    if not norms:
        return
    n_dims = len(norms[0].mean)
    if features.shape[1] != n_dims:
        raise ValueError(
            f"features must have the {n_dims} dims that the head reads, got {features.shape[1]}"
        )
    norms[0].fit(features)
    for norm in norms[1:]:
        norm.load_state_dict(norms[0].state_dict())


def apply_heads(heads: Sequence[Head], read: Tensor) -> Tensor:
    """Logits ``(b, h, c)`` of several heads of one kind.

    Small products are taken together, since many of them leave a processor waiting for memory. Of
    wide layers each fills it alone; together, what lies between their products would leave the
    cache, and weights would be copied.

    Args:
        heads: ``h`` heads, alike but for their weights; a norm has none, or the same statistics.
        read: Features ``(b, d)``, or tokens ``(b, t, d)`` for heads that read them.
    """
    linears = [layer for layer in heads[0].modules() if isinstance(layer, nn.Linear)]
    if len(heads) == 1 or heads[0].reads_tokens or linears[0].out_features >= _WIDE:
        return torch.stack([head(read) for head in heads], dim=1)
    for layers in zip(*heads, strict=True):
        is_linear = isinstance(layers[0], nn.Linear)
        read = _apply_linear(layers, read) if is_linear else layers[0](read)
    return read


def _apply_linear(layers: Sequence[nn.Linear], rows: Tensor) -> Tensor:
    """Rows ``(b, d)`` of all layers, or a row each ``(b, h, d)``, to ``(b, h, e)``."""
    biases = torch.stack([layer.bias for layer in layers])  # (h, e)
    if rows.ndim == 2:
        weights = torch.cat([layer.weight for layer in layers])  # (h e, d)
        return linear(rows, weights, biases.flatten()).unflatten(1, biases.shape)
    weights = torch.stack([layer.weight for layer in layers])  # (h, e, d)
    return torch.einsum("bhd,hed->bhe", rows, weights) + biases


def reads_tokens(kind: str) -> bool:
    """Whether heads of this kind read all tokens of the last block, and not the features."""
    return kind == "self_attention"


def is_centered(head: Head) -> bool:
    """Whether a head centers what it reads."""
    return any(isinstance(module, Center) for module in head.modules())


def _make_norm(norm: str | None, n_dims: int) -> list[nn.Module]:
    if norm not in NORMS:
        raise ValueError(f"head_norm must be null, rms, center or standardize, got {norm}")
    if norm == "rms":
        return [nn.RMSNorm(n_dims, eps=1e-12, elementwise_affine=False)]
    if norm == "center":
        return [Center(n_dims)]
    return [Standardize(n_dims)] if norm == "standardize" else []


def _draw_weights(head: nn.Module, generator: torch.Generator) -> None:
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=HEAD_STD, generator=generator)
            nn.init.zeros_(layer.bias)
