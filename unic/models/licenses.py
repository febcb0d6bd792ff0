"""Licenses of pretrained weights, as far as they are known."""

import json
from importlib.resources import files
from pathlib import Path

import timm


def find_license(name: str, weights: str) -> str | None:
    """Find under which license the weights of a backbone are.

    Args:
        name: A timm model name.
        weights: See :func:`unic.models.backbones.load_backbone`; of a file its name says it, where
            it is that of weights of timm, such as ``resnet50.a1_in1k.safetensors``.

    Returns:
        As timm writes it, such as ``apache-2.0``; None where it is not known.

    Example:
        >>> find_license("resnet50.a1_in1k", "hub"), find_license("resnet50", "mine.pth")
        ('apache-2.0', None)
    """
    if weights.startswith("bundled:"):
        config = files("unic.models").joinpath(f"bundled/{weights.removeprefix('bundled:')}.json")
        known = json.loads(config.read_text("utf-8")) if config.is_file() else {}
        found = known.get("pretrained_cfg", {}).get("license")
        return None if found is None else str(found)
    if weights == "hub":
        return _license_of(name)
    known_name = Path(weights).stem
    return _license_of(known_name) if timm.is_model_pretrained(known_name) else None


def _license_of(name: str) -> str | None:
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    found = getattr(config, "license", None)
    return None if found is None else str(found)
