"""Backbones from timm, cut into a trunk and a last block, and the head on top."""

import copy
import json
import logging
import pickle
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unic.class_token import TOLERANCE as CLASS_TOKEN_TOLERANCE
from unic.class_token import ClassTokenBlock, TrunkOutput, block_error, refusal
from unic.files import whole_file

LAST_STAGES = ("layer4", "s4")  # ResNet, RegNet
BLOCK_STACKS = ("stages", "blocks", "layers")  # ConvNeXt; ViT, EfficientNet; Swin
HEAD_STD = 0.02
TOLERANCE = 1e-4
log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A timm model cut in two: ``last_block(trunk(images))`` are its features.

    The last block is the 12th transformer block of a ViT-B, the last stage of a conv net; what
    the model does after it (final norm, pooling) belongs to ``last_block`` but is not trained
    with it. The cut is checked against the uncut model when it is made.

    Args:
        model: A timm model without a classifier.
        image_size: Side of the images, pixels.

    Raises:
        ValueError: If no cut is found that computes the same features.
    """

    def __init__(self, model: nn.Module, *, image_size: int):
        super().__init__()
        self.model = model.eval().to(memory_format=torch.channels_last)
        self.n_dims = int(model.num_features)  # type: ignore[arg-type]
        probe = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
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

    def trunk(self, images: Tensor) -> Tensor:
        """Everything before the last block: ``(b, 3, s, s)`` to tokens or a feature map."""
        images = images.contiguous(memory_format=torch.channels_last)  # halves a convolution's time
        return self._trunk[0].forward_features(images)  # type: ignore[operator]

    def last_block(self, tokens: Tensor) -> Tensor:
        """Last block, final norm and pooling: the trunk's latest output to features ``(b, d)``."""
        args, kwargs = self._cut.further  # such as rotary positions
        return self._finish(self.block(tokens, *args, **kwargs))

    @property
    def has_class_token_path(self) -> bool:
        """Whether :meth:`features_of` computes the class token alone."""
        return self._class_token_block is not None

    def prepare(self, images: Tensor, *, precision: torch.dtype = torch.float32) -> TrunkOutput:
        """What :meth:`features_of` is given: the trunk's output, normalized where that serves.

        Args:
            images: Shape ``(b, 3, s, s)``, normalized.
            precision: What the products of the trunk are computed in, float32 or bfloat16.

        Returns:
            Of float32 in either case; plain where a gradient is to go through it.
        """
        is_half = precision == torch.bfloat16
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_half):
            tokens = self.trunk(images)
        tokens = tokens.float()
        block = self._class_token_block
        if block is None or tokens.requires_grad:
            return TrunkOutput(tokens)
        return block.split(tokens)

    def features_of(self, output: TrunkOutput) -> Tensor:
        """Features ``(b, d)`` of the views that gave this output.

        Where the features are the class token of a plain vision transformer, the last block
        computes it alone (see :class:`unic.class_token.ClassTokenBlock`); otherwise this is
        :meth:`last_block`.
        """
        if output.class_token is None or self._class_token_block is None:
            return self.last_block(output.tokens)
        return self._finish(self._class_token_block(output)[:, None])

    def forward(self, images: Tensor) -> Tensor:
        """Features of normalized images: ``(b, 3, s, s)`` to ``(b, d)``."""
        return self.last_block(self.trunk(images))

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: running statistics and dropout are frozen."""
        del mode
        return super().train(False)

    def set_trainable(self, part: str) -> None:
        """Let gradients reach ``none`` of the backbone, its ``last_block``, or ``all``."""
        self.model.requires_grad_(part == "all")
        if part == "last_block":
            self.block.requires_grad_(True)

    def _finish(self, tokens: Tensor) -> Tensor:
        """Final norm and pooling."""
        for module in self._after:
            tokens = module(tokens)
        return self.model.forward_head(tokens, pre_logits=True)  # type: ignore[operator]

    @torch.no_grad()
    def _prove_class_token(self, probe: Tensor) -> ClassTokenBlock | None:
        """The last block for its class token, if on a probe that gives the same features."""
        reason = refusal(self.model, self.block)
        if reason is None:
            tokens = self.trunk(probe)
            error = block_error(self.block, tokens)
            alone, whole = self._finish(tokens[:, :1]), self._finish(tokens)
            is_same = torch.allclose(alone, whole, rtol=TOLERANCE, atol=1e-6)
            if error < CLASS_TOKEN_TOLERANCE and is_same:
                log.info("the last block computes its class token alone (error %.0e)", error)
                return ClassTokenBlock(self.block)
            reason = f"its features differ (block {error:.0e}, pooling agrees: {is_same})"
        log.info("the last block is computed whole: %s", reason)
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


class ClusterHead(nn.Sequential):
    """Two-layer perceptron from features to cluster logits (paper, A.10): Linear-GELU-Linear.

    Args:
        n_dims: Width of the features.
        n_clusters: Number of outputs.
        width: Hidden units.
        generator: Source of the initial weights (truncated normal, 0.02; biases 0).
    """

    def __init__(self, n_dims: int, n_clusters: int, *, width: int, generator: torch.Generator):
        hidden, output = nn.Linear(n_dims, width), nn.Linear(width, n_clusters)
        super().__init__(hidden, nn.GELU(), output)
        self.n_clusters = n_clusters
        for layer in (hidden, output):
            nn.init.trunc_normal_(layer.weight, std=HEAD_STD, generator=generator)
            nn.init.zeros_(layer.bias)


def load_backbone(
    name: str, *, weights: str, options: Mapping[str, Any], image_size: int, seed: int = 0
) -> Backbone:
    """Make a backbone by its timm name and fill in its weights.

    Args:
        name: A timm model name.
        weights: ``hub``, ``random``, ``bundled:NAME``, or the path of a ``.safetensors`` file or
            of a torch checkpoint (read with ``weights_only``).
        options: Further arguments of ``timm.create_model``.
        image_size: Side of the images, pixels.
        seed: Of the random weights, where they are kept.

    Raises:
        FileNotFoundError: If there is no file of weights, or the hub cannot be reached.
        ValueError: If timm does not know the name or options, or the weights do not fit; lists a
            few of the keys that do not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _create_model(name, pretrained=weights == "hub", options=options)
    if weights not in ("hub", "random"):
        load_weights(model, read_weights(weights), source=weights)
    parameters = sum(p.numel() for p in model.parameters())
    log.info("backbone %s, weights %s, %.2f M parameters", name, weights, parameters / 1e6)
    return Backbone(model, image_size=image_size)


def save_backbone(path: str | Path, backbone: Backbone) -> None:
    """Write the weights with timm's keys, whole or not at all."""
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.model.state_dict().items()}
    with whole_file(path) as temporary:
        save_file(state, temporary)


def read_weights(weights: str) -> dict[str, Tensor]:
    """Read a state dict from ``bundled:NAME``, a safetensors file or a torch checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is neither.
    """
    if weights.startswith("bundled:"):
        bundled = weights.removeprefix("bundled:")
        with as_file(files("unic").joinpath(f"weights/{bundled}.safetensors")) as path:
            return read_weights(str(path))
    if not Path(weights).is_file():
        raise FileNotFoundError(f"backbone.weights must be a file, there is none at {weights}")
    try:
        if weights.endswith(".safetensors"):
            return load_file(weights)
        loaded = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{weights} must be a torch checkpoint that holds tensors and nothing else; it is "
            "none, or reading it would run code of unknown origin"
        ) from None
    except Exception as error:  # torch raises all sorts on broken files
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"weights must be a safetensors file or a torch checkpoint, cannot read {weights}: "
            f"{type(error).__name__} {first}"
        ) from None
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        held = ", ".join(map(str, loaded)) if isinstance(loaded, dict) else type(loaded).__name__
        raise ValueError(f"{weights} must hold one dictionary of tensors, got {held[:200]}")
    return loaded


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Fill a module; a classifier in the state that the module lacks is dropped.

    Raises:
        ValueError: If keys or shapes do not fit; lists a few.
    """
    expected = module.state_dict()
    classifiers = _classifier_prefixes(module)
    found = {k: v for k, v in state.items() if k in expected or not k.startswith(classifiers)}
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unexpected {key}" for key in found if key not in expected]
    problems += [
        f"{key} of shape {tuple(found[key].shape)} where {tuple(expected[key].shape)} is needed"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    if problems:
        raise ValueError(
            f"the weights in {source} must fit {type(module).__name__}, but {len(problems)} "
            f"entries do not: {'; '.join(problems[:4])}"
        )
    module.load_state_dict(found)


def _classifier_prefixes(module: nn.Module) -> tuple[str, ...]:
    names = getattr(module, "default_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


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
    """Gives its first argument back and remembers the others."""

    further: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def forward(self, tokens: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.further = (args, kwargs)
        return tokens


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
