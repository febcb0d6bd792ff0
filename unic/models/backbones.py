"""Backbones from timm, cut into a trunk and a last block."""

import copy
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.norm import RmsNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unic.models.class_token import TOLERANCE as CLASS_TOKEN_TOLERANCE
from unic.models.class_token import ClassTokenBlock, block_error, refusal
from unic.models.trunk_output import TrunkOutput
from unic.models.weights import load_pretrained, read_weights
from unic.storage.tensor_files import save_tensors

LAST_STAGES = ("layer4", "s4")  # ResNet, RegNet
BLOCK_STACKS = ("stages", "blocks", "layers")  # ConvNeXt; ViT, EfficientNet; Swin
NORMS = (nn.LayerNorm, nn.GroupNorm, RmsNorm, _BatchNorm)
TOLERANCE = 1e-4
logger = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A timm model cut in two: ``last_block(trunk(images))`` are its features.

    The last block is the 12th transformer block of a ViT-B, the last stage of a conv net; what
    the model does after it (final norm, pooling) belongs to ``last_block`` but is not trained
    with it. The cut is checked against the uncut model when it is made.

    Args:
        model: A timm model without a classifier.
        image_size: Side of the images, pixels.
        all_tokens: Whether :meth:`features_and_tokens` is wanted, so that the last block is never
            computed for the class token alone.
        is_frozen: Whether nothing of the model is going to be trained, so that :meth:`prepare` may
            give the features themselves.

    Raises:
        ValueError: If no cut is found that computes the same features.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        image_size: int,
        all_tokens: bool = False,
        is_frozen: bool = False,
    ):
        super().__init__()
        self.model = model.eval().to(memory_format=torch.channels_last)
        self.n_token_dims = int(model.num_features)  # type: ignore[arg-type]
        self.n_dims = int(getattr(model, "head_hidden_size", self.n_token_dims))
        self.has_all_tokens = all_tokens
        self.gives_features = is_frozen and not all_tokens
        self._image_size = image_size
        probe = self.probe()
        owner, key = _find_last_block(model)
        self.block: nn.Module = owner._modules[key]  # type: ignore[assignment]
        try:
            after = _trace(model, self.block, probe)
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"backbone {type(model).__name__} must take images of image_size={image_size} "
                f"pixels (some need img_size among backbone.options): {error}"
            ) from None
        self._after = [model.get_submodule(name) for name in after]
        self._cut = _Passed()
        trunk = _without(model, self.block, self._cut, after)
        self._trunk = [trunk]  # in a list: no module of its own
        self._check_cut(probe.flip(0, 3))
        self._class_token_block = self._prove_class_token(probe)

    def probe(self) -> Tensor:
        """Two made-up images ``(2, 3, s, s)``, always the same, where the backbone is."""
        shape = (2, 3, self._image_size, self._image_size)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return images.to(next(self.parameters()).device)

    def trunk(self, images: Tensor) -> Tensor:
        """Everything before the last block: ``(b, 3, s, s)`` to tokens or a feature map."""
        images = images.contiguous(memory_format=torch.channels_last)  # halves a convolution's time
        return self._trunk[0].forward_features(images)  # type: ignore[operator]

    def last_block(self, tokens: Tensor) -> Tensor:
        """Last block, final norm and pooling: the trunk's latest output to features ``(b, d)``."""
        return self._finish(self._run_block(tokens))

    @property
    def has_class_token_path(self) -> bool:
        """Whether :meth:`features_of` computes the class token alone."""
        return self._class_token_block is not None

    @property
    def is_transformer(self) -> bool:
        """Whether the model is a plain vision transformer, whose trunk may run in bfloat16."""
        return isinstance(self.model, VisionTransformer)

    def prepare(self, images: Tensor, *, precision: torch.dtype = torch.float32) -> TrunkOutput:
        """What :meth:`features_of` is given: the trunk's output, normalized where that serves.

        Args:
            images: Shape ``(b, 3, s, s)``, normalized.
            precision: What the products of the trunk are computed in, float32 or bfloat16.

        Returns:
            Of float32 in either case; plain where a gradient is to go through it. Of a frozen
            backbone, its features ``(b, 1, d)`` in place of tokens.
        """
        is_half = precision == torch.bfloat16
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_half):
            tokens = self.trunk(images)
        output = self.split(tokens.float())
        if self.gives_features:
            return TrunkOutput(self.run_last(output)[:, None])
        return output

    def split(self, tokens: Tensor) -> TrunkOutput:
        """The trunk's output, float32, as :meth:`run_last` takes it: normalized if it serves."""
        block = self._class_token_block
        if block is None or tokens.requires_grad:
            return TrunkOutput(tokens)
        return block.split(tokens)

    def features_of(self, output: TrunkOutput) -> Tensor:
        """Features ``(b, d)`` of the views that gave this output.

        Where the features are the class token of a plain vision transformer, the last block
        computes it alone (see :class:`unic.models.class_token.ClassTokenBlock`); otherwise this is
        :meth:`last_block`. Those of a frozen backbone are the output itself.
        """
        if self.gives_features:
            return output.tokens[:, 0]
        return self.run_last(output)

    def run_last(self, output: TrunkOutput) -> Tensor:
        """Features ``(b, d)`` of what the trunk gives, see :meth:`features_of`."""
        if output.class_token is None or self._class_token_block is None:
            return self.last_block(output.tokens)
        return self._finish(self._class_token_block(output)[:, None])

    def features_and_tokens(self, output: TrunkOutput) -> tuple[Tensor, Tensor]:
        """Features ``(b, d)`` and all tokens of the last block after the final norm, ``(b, t, e)``.

        The first token is the class token, or the mean of all where the model has none; those of a
        feature map are its positions.

        Raises:
            ValueError: If the output serves the class token alone.
        """
        if output.class_token is not None:
            raise ValueError("the backbone must be made with all_tokens to give its tokens")
        normalized = self._normalize(self._run_block(output.tokens))
        return self._pool(normalized), self.as_sequence(normalized)

    def as_sequence(self, tokens: Tensor) -> Tensor:
        """Tokens or a feature map as ``(b, t, e)``, a token for the whole image first.

        Args:
            tokens: Of the last block, after the final norm.
        """
        if tokens.ndim == 4:
            is_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"  # Swin
            tokens = tokens.flatten(1, 2) if is_last else tokens.flatten(2).transpose(1, 2)
        elif getattr(self.model, "cls_token", None) is not None:
            return tokens
        return torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalized images: ``(b, 3, s, s)`` to ``(b, d)``."""
        return self.last_block(self.trunk(images))

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: running statistics and dropout are frozen."""
        del mode
        return super().train(False)

    def set_trainable(self, part: str | None, *, final_norm: bool = False) -> None:
        """Let gradients reach nothing of the backbone, its ``last_block``, or ``all``.

        Args:
            part: What is trained; None for nothing.
            final_norm: Whether the normalization after the last block is trained along with it.

        Raises:
            ValueError: If there is no such normalization, or nothing that it is trained with.
        """
        if self.gives_features and part is not None:
            raise ValueError(f"trainable must be null for a frozen backbone, got {part}")
        self.model.requires_grad_(part == "all")
        if part == "last_block":
            self.block.requires_grad_(True)
        if final_norm:
            self._set_final_norm_trainable(part)

    def _set_final_norm_trainable(self, part: str | None) -> None:
        ends = [*self._after, *(getattr(self.model, name, None) for name in ("fc_norm", "head"))]
        modules = [module for end in ends if end is not None for module in end.modules()]
        norms = [module for module in modules if isinstance(module, NORMS)]
        if part is None or not norms:
            raise ValueError(
                "train_final_norm must be false where nothing of the backbone is trained or where "
                f"it has no norm after its last block, got true for {type(self.model).__name__} "
                f"with trainable={part}"
            )
        for norm in norms:
            norm.requires_grad_(True)

    def _run_block(self, tokens: Tensor) -> Tensor:
        args, kwargs = self._cut.further  # such as rotary positions
        args = tuple(_moved(value, tokens.device) for value in args)
        kwargs = {key: _moved(value, tokens.device) for key, value in kwargs.items()}
        return self.block(tokens, *args, **kwargs)

    def _finish(self, tokens: Tensor) -> Tensor:
        """Final norm and pooling."""
        return self._pool(self._normalize(tokens))

    def _normalize(self, tokens: Tensor) -> Tensor:
        """What runs between the last block and the pooling."""
        for module in self._after:
            tokens = module(tokens)
        return tokens

    def _pool(self, tokens: Tensor) -> Tensor:
        return self.model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]

    @torch.no_grad()
    def _prove_class_token(self, probe: Tensor) -> ClassTokenBlock | None:
        """The last block for its class token, if on a probe that gives the same features."""
        reason = refusal(self.model, self.block)
        if self.has_all_tokens:
            reason = "the head reads all tokens"
        if reason is None:
            tokens = self.trunk(probe)
            error = block_error(self.block, tokens)
            alone, whole = self._finish(tokens[:, :1]), self._finish(tokens)
            is_same = torch.allclose(alone, whole, rtol=TOLERANCE, atol=1e-6)
            if error < CLASS_TOKEN_TOLERANCE and is_same:
                logger.info("the last block computes its class token alone (error %.0e)", error)
                return ClassTokenBlock(self.block)
            reason = f"its features differ (block {error:.0e}, pooling agrees: {is_same})"
        logger.info("the last block is computed whole: %s", reason)
        return None

    @torch.no_grad()
    def _check_cut(self, probe: Tensor) -> None:
        whole = self.model.forward_head(self.model.forward_features(probe), pre_logits=True)  # type: ignore[operator]
        try:
            error = float((self(probe) - whole).abs().max() / whole.abs().max())
        except RuntimeError:  # the shapes of the halves do not meet
            error = float("nan")
        if not error < TOLERANCE:
            raise ValueError(
                f"backbone {type(self.model).__name__} cannot be cut before its last block: the "
                f"features of the halves differ from the whole model's by {error:.1e} relatively"
            )


def load_backbone(
    name: str,
    *,
    weights: str,
    options: Mapping[str, Any],
    image_size: int,
    network: str = "auto",
    seed: int = 0,
    all_tokens: bool = False,
    is_frozen: bool = False,
) -> Backbone:
    """Make a backbone by its timm name and fill in its weights.

    Args:
        name: A timm model name.
        weights: ``hub``, ``random``, ``bundled:NAME``, or the path of a ``.safetensors`` file or
            of a torch checkpoint, see :mod:`unic.models.weights`.
        options: Further arguments of ``timm.create_model``.
        image_size: Side of the images, pixels.
        network: Key of the network in a checkpoint of several.
        seed: Of the random weights, where they are kept.
        all_tokens: See :class:`Backbone`.
        is_frozen: See :class:`Backbone`.

    Raises:
        FileNotFoundError: If there is no file of weights, or the hub cannot be reached.
        ValueError: If timm does not know the name or options, or the weights do not fit; lists a
            few of the keys that do not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _create_model(name, pretrained=weights == "hub", options=options)
    if weights not in ("hub", "random"):
        load_pretrained(model, read_weights(weights, network=network), origin=weights)
    parameters = sum(p.numel() for p in model.parameters())
    logger.info("backbone %s, weights %s, %.2f M parameters", name, weights, parameters / 1e6)
    return Backbone(model, image_size=image_size, all_tokens=all_tokens, is_frozen=is_frozen)


def save_backbone(path: str | Path, backbone: Backbone) -> None:
    """Write the weights with timm's keys, whole or not at all."""
    save_tensors(path, backbone.model.state_dict())


def _create_model(name: str, *, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except (OSError, LookupError) as error:
        raise FileNotFoundError(
            f"weights of {name} must come from the hub, which did not give them ({error}); set "
            "backbone.weights to a local file instead"
        ) from None
    except (AssertionError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"timm cannot make backbone {name} with {json.dumps(dict(options))}: {error}"
        ) from None


def _find_last_block(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the last block, and the name under which it does."""
    for name in LAST_STAGES:
        if name in model._modules:
            return model, name
    for name in BLOCK_STACKS:
        stack = model._modules.get(name)
        if isinstance(stack, nn.Sequential | nn.ModuleList):
            return stack, str(len(stack) - 1)
    raise ValueError(
        f"backbone {type(model).__name__} must have one of the parts "
        f"{', '.join(LAST_STAGES + BLOCK_STACKS)}, got {', '.join(model._modules)}"
    )


@torch.no_grad()
def _trace(model: nn.Module, block: nn.Module, probe: Tensor) -> list[str]:
    """Names of the parts that run after the last block."""
    order: list[str] = []
    hooks = [block.register_forward_pre_hook(lambda *_: order.clear())]
    for name, part in model.named_children():
        if not any(inner is block for inner in part.modules()):
            hooks.append(part.register_forward_hook(lambda *_, name=name: order.append(name)))
    model.forward_features(probe)  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return order


class _Passed(nn.Module):
    """Returns its first argument and remembers the others."""

    further: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.further = (args, kwargs)
        return tokens


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor on the device: cached tokens may be elsewhere than the trunk has last run."""
    return value.to(device) if isinstance(value, Tensor) else value


def _without(model: nn.Module, block: nn.Module, cut: nn.Module, after: list[str]) -> nn.Module:
    """The model with ``cut`` for its last block and without what follows, sharing all else."""

    def rebuild(part: nn.Module) -> nn.Module:
        if part is block:
            return cut
        if not any(inner is block for inner in part.modules()):
            return part
        shared = copy.copy(part)
        shared._modules = {k: v and rebuild(v) for k, v in part._modules.items()}
        return shared

    trunk = rebuild(model)
    trunk._modules.update({name: _Passed() for name in after})
    return trunk
