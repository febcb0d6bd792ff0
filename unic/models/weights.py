"""Pretrained weights: files as the projects release them, brought to timm's names."""

import argparse
import logging
import pickle
import re
import sys
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from unic.storage.tensor_files import read_tensors

NETWORKS = ("teacher", "state_dict", "model", "student")  # of checkpoints, the first that is there
PREFIXES = (
    "module.",  # DistributedDataParallel
    "_orig_mod.",  # torch.compile
    "backbone.",  # DINO, DINOv2, iBOT, beside head.*, dino_head.*
    "encoder_q.",  # MoCo, beside encoder_k.*, queue
    "0.",  # SimGCD, Sequential(backbone, projector)
)
PROJECTORS = ("head.", "fc.", "projection_head.", "prototypes.")  # DINO, MoCo, SwAV
_MAX_DEPTH = 4  # of dictionaries in dictionaries, one of which may hold itself
logger = logging.getLogger(__name__)


def read_weights(weights: str, *, network: str = "auto") -> dict[str, Tensor]:
    """Read a state dict from ``bundled:NAME``, a safetensors file or a torch checkpoint.

    A torch checkpoint may hold tensors, or networks among other things (optimizer, epoch, an
    ``argparse.Namespace``); it is read with ``weights_only``, so none of its code is run.

    Args:
        weights: ``bundled:NAME`` or a path.
        network: Key of the network in the checkpoint, such as ``student``; ``auto`` takes the
            checkpoint itself where it is a state dict, else the first of :data:`NETWORKS`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is neither, or holds no such network.
    """
    if weights.startswith("bundled:"):
        bundled = weights.removeprefix("bundled:")
        if re.fullmatch(r"[A-Za-z0-9_]+", bundled) is None:  # no path, that might lead elsewhere
            raise ValueError(f"backbone.weights must be bundled:NAME, got {weights!r}")
        with as_file(files("unic.models").joinpath(f"bundled/{bundled}.safetensors")) as path:
            return read_weights(str(path), network=network)
    if not Path(weights).is_file():
        raise FileNotFoundError(f"backbone.weights must be a file, there is none at {weights}")
    return _choose_network(_read_file(weights), network, weights)


def load_pretrained(model: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Fill a timm model with weights under the names that their project gives them.

    Prefixes of wrappers are stripped; what a file holds besides the backbone (projector, momentum
    encoder, queue, mask token) is left out and logged. Where the rest does not fit as it is, timm
    converts it, as it does with what it takes from the hub: names of DINOv2 and DINOv3, and
    position embeddings, which are resampled to the model's grid.

    Args:
        model: A timm model without a classifier.
        state: Of :func:`read_weights`.
        origin: Where the weights are from, for messages.

    Raises:
        ValueError: If keys or shapes do not fit; lists a few. No weight is changed then.
    """
    expected = model.state_dict()
    found = _leave_out(model, _strip_prefixes(state, expected), origin)
    if _problems(expected, found):
        _check_convertible(model, found, origin)
        found = _convert(model, found, origin)
    load_weights(model, found, origin=origin)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], *, origin: str) -> None:
    """Fill a module with exactly its weights.

    Raises:
        ValueError: If keys or shapes do not fit; lists a few. No weight is changed then.
    """
    problems = _problems(module.state_dict(), state)
    if problems:
        raise ValueError(
            f"the weights in {origin} must fit {type(module).__name__}, but {len(problems)} "
            f"entries do not: {'; '.join(problems[:4])}"
        )
    module.load_state_dict(state)


def _read_file(path: str) -> Any:
    if path.endswith(".safetensors"):
        return read_tensors(path).tensors
    try:
        with safe_globals([argparse.Namespace]):  # the options of the command that trained it
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} must be a torch checkpoint that holds tensors and plain values; it is none, "
            "or reading it would run code of unknown origin"
            + (f" ({blocked[1]})" if blocked else "")
        ) from None
    except Exception as error:  # torch raises all sorts on broken files
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"weights must be a safetensors file or a torch checkpoint, cannot read {path}: "
            f"{type(error).__name__} {first}"
        ) from None


def _choose_network(loaded: Any, network: str, path: str, *, depth: int = 0) -> dict[str, Tensor]:
    keys = list(loaded) if isinstance(loaded, dict) else []
    if depth > _MAX_DEPTH:
        raise ValueError(f"{path} must hold networks at most {_MAX_DEPTH} levels deep")
    named = ", ".join(map(str, keys))[:200] or type(loaded).__name__
    if network != "auto":
        if network not in keys:
            raise ValueError(
                f"backbone.network must be auto or a key of {path}, got {network} of {named}"
            )
        return _choose_network(loaded[network], "auto", path, depth=depth + 1)
    if keys and all(isinstance(value, Tensor) for value in loaded.values()):
        return dict(loaded)
    for name in NETWORKS:
        if name in keys:
            logger.info("%s: %s is taken of %s", path, name, named)
            return _choose_network(loaded[name], "auto", path, depth=depth + 1)
    raise ValueError(
        f"{path} must hold a dictionary of tensors, by itself or as one of "
        f"{', '.join(NETWORKS)}, got {named}"
    )


def _strip_prefixes(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Entries under the prefixes that a backbone has in a checkpoint, without these."""
    stripped = dict(state)
    while prefix := next((p for p in PREFIXES if _is_wrapped(p, stripped, expected)), None):
        beside = [key for key in stripped if not key.startswith(prefix)]
        if beside:
            logger.info("%s* is taken, %d entries beside it are left out", prefix, len(beside))
        stripped = {k.removeprefix(prefix): v for k, v in stripped.items() if k.startswith(prefix)}
    return stripped


def _is_wrapped(prefix: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    is_there, is_own = (any(k.startswith(prefix) for k in keys) for keys in (state, expected))
    return is_there and not is_own


def _leave_out(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """All but projectors and classifiers that the model does not have."""
    expected = model.state_dict()
    foreign = (*_classifier_prefixes(model), *PROJECTORS)
    found = {k: v for k, v in state.items() if k in expected or not k.startswith(foreign)}
    if len(found) < len(state):
        logger.info("%s: %d entries of a projector are left out", origin, len(state) - len(found))
    return found


def _classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "default_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unexpected {key}" for key in found if key not in expected]
    problems += [
        f"{key} of shape {tuple(found[key].shape)} where {tuple(expected[key].shape)} is needed"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    return problems


def _check_convertible(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Refuse what timm's conversion would change or drop silently."""
    expected, key = model.state_dict(), "patch_embed.proj.weight"
    problem = None
    if key in expected and key in state and state[key].shape != expected[key].shape:
        needed = tuple(expected[key].shape)
        problem = f"{key} is of shape {tuple(state[key].shape)} where {needed} is needed"
    for key in _biases_without_place(expected, state):
        query, _, value = state[key].chunk(3)  # that of the keys is masked, in DINOv3
        if query.any() or value.any():
            problem = f"{key} is not zero and the model has no bias; the timm name with qkvb has"
    if problem is not None:
        raise ValueError(f"the weights in {origin} must fit {type(model).__name__}, but {problem}")


def _biases_without_place(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Biases of attention in a DINOv3 file that the model has under no name."""
    if "storage_tokens" not in state:
        return []
    biases = [key for key in state if key.endswith("attn.qkv.bias") and key not in expected]
    return [key for key in biases if key.replace("qkv.bias", "q_bias") not in expected]


def _convert(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    """The weights as timm's own conversion for this kind of model gives them."""
    dropped = {*_biases_without_place(model.state_dict(), state), "masked_embed"}  # iBOT's mask
    kept = {key: tensor for key, tensor in state.items() if key not in dropped}
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return kept
    try:
        converted: dict[str, Tensor] = convert(dict(kept), model)
    except (AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"the weights in {origin} must fit {type(model).__name__}, timm cannot convert them: "
            f"{type(error).__name__} {error}"
        ) from None
    for key in converted.keys() & kept.keys():
        if converted[key].shape != kept[key].shape:
            shapes = tuple(kept[key].shape), tuple(converted[key].shape)
            logger.info("%s: %s is resampled from shape %s to %s", origin, key, *shapes)
    return converted
