"""Batch normalizations folded into the convolutions before them, where neither is trained."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(network: nn.Module, probe: Tensor) -> nn.Module:
    """A copy of a network, with convolutions that do what the batch normalization after them did.

    ``gamma (w * x - mean) / sqrt(var + eps) + beta`` is a convolution with other weights and
    biases. Which normalization reads which convolution is seen by running the network.

    Args:
        network: In evaluation mode.
        probe: What it is run on, shape ``(b, 3, s, s)``.

    Returns:
        The copy; the network itself is left as it is, and given where it has no such normalization.
        Convolutions whose results are normalized elsewhere too, or not at all, stay.
    """
    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network
    folded = copy.deepcopy(network).eval()
    pairs = _find_pairs(folded, probe)
    for convolution, norm in pairs:
        _fold(convolution, norm)
        # Not another module: containers of a cut backbone share their parts.
        norm.forward = _activation(norm).forward  # type: ignore[method-assign]
    return folded


@torch.no_grad()
def _find_pairs(network: nn.Module, probe: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Convolutions and the one normalization that each result goes to next, both called once."""
    given: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # by the identity of the result, kept alive
    calls: dict[int, int] = {}
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def note_result(module: nn.Module, _: object, result: Tensor) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1
        given[id(result)] = (module, result)  # type: ignore[assignment]

    def note_use(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        calls[id(module)] = calls.get(id(module), 0) + 1
        found = given.get(id(arguments[0]))
        if found is not None:
            pairs.append((found[0], module))  # type: ignore[arg-type]

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(note_result))
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(note_use))
    network(probe)
    for hook in hooks:
        hook.remove()
    uses = [id(module) for pair in pairs for module in pair]
    return [
        pair
        for pair in pairs
        if all(calls[id(module)] == uses.count(id(module)) == 1 for module in pair)
    ]


def _fold(convolution: nn.Conv2d, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    convolution.weight, convolution.bias = weight, bias


def _activation(norm: _BatchNorm) -> nn.Module:
    """What is left of a normalization: timm's have the activation after them as a part."""
    activation = getattr(norm, "act", None)
    return nn.Identity() if activation is None else activation
