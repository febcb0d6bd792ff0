"""Configurations to resolve: that of the repository, and small ones put together for a test."""

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from unic.experiments.settings import resolve_experiments

ROOT = Path(__file__).parents[2]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
EXPERIMENT = SCHEMA["$defs"]["experiment"]
Settings = dict[str, Any]


def read_config() -> Settings:
    """The configuration of the repository, put together as Snakemake does."""
    folder = ROOT / "config"
    files = [folder / "config.yaml", *sorted(folder.glob("experiments/*.yaml"))]
    files += [folder / "tables.yaml", folder / "figures.yaml"]
    return reduce(merge, (yaml.safe_load(path.read_text("utf-8")) for path in files))


def merge(ours: Settings, theirs: Settings) -> Settings:
    merged = dict(ours)
    for key, value in theirs.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def resolve(experiments: Settings, **others: Any) -> dict[str, Settings]:
    return resolve_experiments({"experiments": experiments, **others}, SCHEMA)


def nested(key: str, value: Any) -> Settings:
    """``a.b`` and 3 to ``{a: {b: 3}}``."""
    return reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)


def example(key: str | None = None, value: Any = None) -> Settings:
    """A whole experiment, but for one setting."""
    return merge({"n_clusters": 10}, {} if key is None else nested(key, value))


def simgcd(**settings: Any) -> Settings:
    return {
        "backbone": {"weights": "pretrain"},
        "pretraining": {"method": "simgcd", "simgcd": settings},
    }


def properties(schema: Settings, path: str = "") -> Iterator[tuple[str, Settings]]:
    """Every key of the schema, sections and their keys."""
    for part in (schema, *schema.get("oneOf", ())):
        for key, sub in part.get("properties", {}).items():
            yield f"{path}{key}", sub
            yield from properties(sub, f"{path}{key}.")
