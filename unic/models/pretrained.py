"""Pretrained backbones: which network, which weights, and how their images are prepared."""

import json
import math
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import timm

BEST = "vit_small_patch14_dinov2.lvd142m"  # of the hub, for whoever names none
GET = f"hf download timm/{BEST} --local-dir dinov2"  # on a machine that reaches the hub
VARIABLE = "UNIC_BACKBONE"  # of the environment: a backbone for whoever names none
PATCH_SIDE = 224  # pixels, to which the 518 of DINOv2 are taken down: five times less work
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_HUB_SECONDS = 2.0


class Pretrained(NamedTuple):
    """A backbone with weights, and what its authors did to images."""

    name: str  # of timm
    weights: str  # hub, bundled:NAME, or a file
    options: dict[str, Any]  # of timm.create_model
    image_size: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str | None
    why: str  # it was chosen, and where its preparation is from


def find_pretrained(asked: str | None) -> Pretrained:
    """Find the backbone that was asked for, or the best there is.

    Args:
        asked: A folder with ``config.json`` and ``model.safetensors`` as the hub has them; a file
            of weights named after a network of timm, such as ``resnet50.a1_in1k.safetensors``, with
            or without its config beside it (the same name, ``.json``); the name of a model of timm,
            whose weights the hub gives; ``bundled:NAME``; or None for the environment's
            ``UNIC_BACKBONE``, else DINOv2 from the hub.

    Raises:
        FileNotFoundError: If there is no such file, or the hub is needed and cannot be reached.
        ValueError: If it is no network of timm, or a config does not say which.
    """
    if asked is None:
        given = os.environ.get(VARIABLE)
        if given:
            return find_pretrained(given)._replace(why=f"{VARIABLE} names it")
        return _of_hub(BEST, "the best features there are without labels")
    if asked.startswith("bundled:"):
        config = files("unic.models").joinpath(f"bundled/{asked.removeprefix('bundled:')}.json")
        if not config.is_file():
            raise ValueError(f"the backbone must come with the package, there is no {asked}")
        return _of_config(json.loads(config.read_text("utf-8")), asked, "it comes with the package")
    path = Path(asked)
    if path.is_dir():
        return _of_folder(path)
    if path.suffix in _SUFFIXES:
        return _of_file(path)
    return _of_hub(asked, "asked for")


def _of_folder(folder: Path) -> Pretrained:
    """A model as the hub has it: weights and config in a folder."""
    config = folder / "config.json"
    weights = next((p for p in sorted(folder.iterdir()) if p.suffix in _SUFFIXES), None)
    if weights is None or not config.is_file():
        raise FileNotFoundError(
            f"the backbone's folder must hold config.json and weights such as model.safetensors, "
            f"{folder} has {', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}"
        )
    return _of_config(_read(config), str(weights.absolute()), f"prepared as {config} says")


def _of_file(path: Path) -> Pretrained:
    if not path.is_file():
        raise FileNotFoundError(f"the backbone must be a file of weights, there is none at {path}")
    weights = str(path.absolute())
    config = path.with_suffix(".json")
    if config.is_file():
        return _of_config(_read(config), weights, f"prepared as {config} says")
    name = path.name.removesuffix(path.suffix)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ValueError(
            f"{path} must be named after a network of timm, or have its config beside it as "
            f"{config.name}; {architecture} is none"
        )
    known = name if timm.is_model_pretrained(name) else architecture
    why = f"prepared as timm does {known}, since there is no {config.name} beside it"
    return _of_timm(known, weights, why)


def _of_hub(name: str, why: str) -> Pretrained:
    if not timm.is_model(name):
        raise ValueError(
            f"the backbone must be a model of timm, a folder, or a file that ends in "
            f"{', '.join(_SUFFIXES)}, got {name}"
        )
    if not (_is_cached(name) or _is_reachable()):
        raise FileNotFoundError(
            f"no backbone: the hub, which has {name}, cannot be reached. Name weights that are "
            f"here with --backbone FOLDER_OR_FILE (or {VARIABLE}); where there is a network, "
            f"'{GET}' gets some"
        )
    return _of_timm(name, "hub", why)


def _of_timm(name: str, weights: str, why: str) -> Pretrained:
    """Prepared as timm's pretrained configuration says."""
    found = timm.get_pretrained_cfg(name)
    config = {} if found is None else found.to_dict()
    return _of_config({"architecture": name, "pretrained_cfg": config}, weights, why)


def _of_config(config: Mapping[str, Any], weights: str, why: str) -> Pretrained:
    prepared = config.get("pretrained_cfg") or config
    name = config.get("architecture")
    if not isinstance(name, str) or not timm.is_model(name):
        raise ValueError(f"the backbone's config must name a network of timm, got {name}")
    try:
        side = int(prepared["input_size"][-1])
        mean, std = (tuple(map(float, prepared[key])) for key in ("mean", "std"))
        crop = float(prepared.get("crop_pct", 0.875))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"the backbone's config must have input_size, mean and std, got {error!r}"
        ) from None
    options = dict(config.get("model_args") or {})
    if name.startswith("vit_") and side > PATCH_SIDE:
        side = PATCH_SIDE
        options["img_size"] = side
    if not (len(mean) == len(std) == 3 and math.isfinite(sum(mean) + sum(std))):
        raise ValueError(f"mean and std of the backbone's config must be of 3 channels, got {mean}")
    return Pretrained(name, weights, options, side, crop, mean, std, prepared.get("license"), why)


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} must be JSON, cannot read it: {error}") from None


def _is_cached(name: str) -> bool:
    """Whether the hub's weights of a model are on this machine."""
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    repository = getattr(config, "hf_hub_id", None)
    if not repository:
        return False
    if repository.endswith("/"):
        repository += name
    found = (
        try_to_load_from_cache(repository, f) for f in ("model.safetensors", "pytorch_model.bin")
    )
    return any(isinstance(path, str) for path in found)


def _is_reachable() -> bool:
    """Whether the hub answers, asked once and for two seconds at most."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or place.hostname is None:
        return False
    answers = []

    def ask() -> None:
        with (
            suppress(OSError),
            socket.create_connection((place.hostname, place.port or 443), _HUB_SECONDS),
        ):
            answers.append(True)

    asking = threading.Thread(target=ask, daemon=True)  # looking a name up knows no limit of time
    asking.start()
    asking.join(2 * _HUB_SECONDS)
    return bool(answers)
