"""Settings of every experiment: resolved from base to base, filled with defaults, and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unic.experiments.checks import (
    check_comparisons,
    check_figures,
    check_schema,
    check_tables,
    check_together,
)
from unic.experiments.keys import Settings, unknown
from unic.images.readers.classes import published_old_classes

_EITHER = {"max_union_size": "quantile", "quantile": "max_union_size"}  # key to the one it unsets


def resolve_experiments(
    config: Mapping[str, Any], schema: Mapping[str, Any]
) -> dict[str, Settings]:
    """Check a configuration and fill in every setting of every experiment.

    Args:
        config: The merged configuration files, with ``experiments`` and maybe ``defaults``.
        schema: ``config.schema.yaml``.

    Returns:
        Name of the experiment to its complete settings, without ``base``.

    Raises:
        ValueError: If a key is unknown, a value is not of its type or range, a base is missing
            or goes in a circle, or settings contradict each other; names the key.
    """
    check_schema(config, schema)
    experiments, defaults = config["experiments"], config.get("defaults") or {}
    check_tables(config.get("tables", {}), experiments)
    check_comparisons(config.get("comparisons", {}), config.get("tables", {}), experiments)
    check_figures(config.get("figures", {}), experiments)
    if defaults.get("base") is not None:
        raise ValueError("config: defaults must not have a base")
    resolved = {}
    for name in _bases_first(experiments):
        settings = _merged(_schema_defaults(schema["$defs"]["experiment"]), defaults)
        for link in reversed(_lineage(name, experiments)):
            settings = _merged(settings, experiments[link])
        settings.pop("base")
        if settings["gcd"] is not None:
            gcd_schema = schema["$defs"]["experiment"]["properties"]["gcd"]["oneOf"][1]
            settings["gcd"] = _merged(_schema_defaults(gcd_schema), settings["gcd"])
        _fill_in(f"config: experiments.{name}", settings)
        check_together(f"config: experiments.{name}", settings)
        resolved[name] = settings
    return resolved


def _bases_first(experiments: Mapping[str, Any]) -> list[str]:
    """Names in the order of the configuration, but each after its base."""
    lineages = [reversed(_lineage(name, experiments)) for name in experiments]
    return list(dict.fromkeys(name for lineage in lineages for name in lineage))


def _lineage(name: str, experiments: Mapping[str, Any]) -> list[str]:
    """The experiment, its base, the base of that, and so on."""
    lineage = [name]
    while (base := experiments[lineage[-1]].get("base")) is not None:
        if base not in experiments:
            raise ValueError(
                f"config: experiments.{lineage[-1]}.base: "
                + unknown("experiment", base, experiments)
            )
        if base in lineage:
            raise ValueError(
                f"config: bases must not go in a circle, got {' -> '.join([*lineage, base])}"
            )
        lineage.append(base)
    return lineage


def _merged(settings: Mapping[str, Any], override: Mapping[str, Any]) -> Settings:
    """Sections are merged key by key; anything else, backbone options too, is replaced.

    Of two keys that exclude each other, the one that is set unsets an earlier other.
    """
    merged = dict(settings)
    for key, other in _EITHER.items():
        if override.get(key) is not None:
            merged[other] = None
    for key, value in override.items():
        old = merged.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict) and key != "options"
        merged[key] = _merged(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def _schema_defaults(schema: Mapping[str, Any]) -> Settings:
    """The default of every key of an object schema, sections filled."""
    defaults = {}
    for key, sub in schema.get("properties", {}).items():
        if "properties" in sub:
            defaults[key] = _schema_defaults(sub)
        elif "default" in sub:
            defaults[key] = sub["default"]
    return defaults


def _fill_in(where: str, settings: Settings) -> None:
    """What a setting stands for, where another one decides."""
    data, gcd = settings["data"], settings["gcd"]
    if data["name"] == "manifest" and data["root"] is None and data["manifest"] is not None:
        data["root"] = str(Path(data["manifest"]).parent)
    if gcd is not None and gcd.get("old_classes") == "published":
        try:
            gcd["old_classes"] = published_old_classes(data["name"])
        except ValueError as error:
            raise ValueError(f"{where}.gcd.old_classes: {error}") from None
