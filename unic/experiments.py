"""Experiments: settings resolved from base to base, checked, and stages shared between them."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from unic.images.readers.classes import published_old_classes

Settings = dict[str, Any]


class Stage(NamedTuple):
    """What a stage depends on: its own settings (dotted keys) and the stages before it."""

    settings: tuple[str, ...]
    after: tuple[str, ...] = ()


DATA = ("data.name", "data.root", "data.manifest", "data.bad_images")  # what images there are
VIEW = ("data.image_size", "data.crop_pct", "data.mean", "data.std")
NETWORK = ("backbone.name", "backbone.options")
TRUNK_VIEWS = ("finetuning.views", "finetuning.token_dtype", "finetuning.precision")
PRETRAININGS = {"neighbors": "pretrain", "simgcd": "pretrain_simgcd"}  # method to its stage
STAGES = {
    "index_images": Stage((*DATA, "data.label_file", "n_clusters", "neighbors.far_rank")),
    "decode_images": Stage((*DATA, "data.decoded")),
    "split_labels": Stage((*DATA, "data.label_file", "gcd")),
    "pretrain": Stage((*DATA, *VIEW, *NETWORK, "pretraining.neighbors")),
    "pretrain_simgcd": Stage(
        (
            *(*VIEW, *NETWORK, "backbone.network", "n_clusters", "pretraining.simgcd"),
            *TRUNK_VIEWS,
        ),
        ("decode_images", "split_labels"),
    ),
    "extract_features": Stage((*VIEW, "backbone"), ("decode_images", *PRETRAININGS.values())),
    "mine_neighbors": Stage(("neighbors",), ("extract_features",)),
    "clean_neighbors": Stage(("cleaning",), ("mine_neighbors",)),
    "index_negatives": Stage(("negatives",), ("mine_neighbors", "split_labels")),
    "extract_tokens": Stage(
        (
            *(*VIEW, "backbone", "pretraining.simgcd.start"),
            *("finetuning.augmentation", "finetuning.head", *TRUNK_VIEWS),
        ),
        ("decode_images", "pretrain"),  # not SimGCD, which leaves the trunk as it is
    ),
    "extract_views": Stage(("finetuning.augmentation", *TRUNK_VIEWS), ("extract_features",)),
    "finetune": Stage(
        ("finetuning", "n_clusters"), ("clean_neighbors", "index_negatives", "split_labels")
    ),
    "predict": Stage((), ("finetune",)),
    "extract_pixels": Stage((*DATA, *VIEW)),
    "cluster_pixels": Stage(("kmeans", "n_clusters", "seeds"), ("extract_pixels",)),
    "cluster_features": Stage(("kmeans", "n_clusters", "seeds"), ("extract_features",)),
    "cluster_finetuned": Stage(("kmeans", "n_clusters", "seeds"), ("predict",)),
    "predict_simgcd": Stage((), ("extract_features",)),
    "cluster_semi_supervised": Stage(
        ("kmeans", "n_clusters", "seeds"), ("extract_features", "split_labels")
    ),
}
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
    _check(config, schema, "config")
    experiments, defaults = config["experiments"], config.get("defaults") or {}
    _check_tables(config.get("tables", {}), experiments)
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
        _check_together(f"config: experiments.{name}", settings)
        resolved[name] = settings
    return resolved


def setting(settings: Settings, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def stage_settings(settings: Settings, stage: str) -> Settings:
    """Everything that a stage's result depends on, through all stages before it."""
    keys = {key: setting(settings, key) for key in STAGES[stage].settings}
    for earlier in STAGES[stage].after:
        if earlier not in PRETRAININGS.values() or earlier == pretraining_stage(settings):
            keys |= stage_settings(settings, earlier)
    return keys


def pretraining_stage(settings: Settings) -> str | None:
    """The stage that trains the backbone before all else; None where its weights are given."""
    if settings["backbone"]["weights"] != "pretrain":
        return None
    return PRETRAININGS[settings["pretraining"]["method"]]


def stage_owner(experiments: Mapping[str, Settings], name: str, stage: str) -> str:
    """The experiment whose folder holds a stage's result for an experiment.

    Experiments that agree in all that the stage depends on share one result; it belongs to the
    first of them: a base before those that start from it, else in the order of the configuration.

    Raises:
        ValueError: If there is no such experiment.
    """
    if name not in experiments:
        raise ValueError(_unknown("experiment", name, experiments))
    wanted = _key(experiments[name], stage)
    return next(other for other in experiments if _key(experiments[other], stage) == wanted)


def stage_owners(experiments: Mapping[str, Settings], name: str) -> dict[str, str]:
    """The experiments whose folders hold the results of an experiment, stage by stage."""
    return {stage: stage_owner(experiments, name, stage) for stage in STAGES}


def _key(settings: Settings, stage: str) -> str:
    return json.dumps(stage_settings(settings, stage), sort_keys=True)


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
                + _unknown("experiment", base, experiments)
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


def _check(config: Mapping[str, Any], schema: Mapping[str, Any], where: str) -> None:
    error = best_match(_Validator(schema).iter_errors(config))
    if error is not None:
        path = ".".join(map(str, error.absolute_path))
        raise ValueError(f"{where}: {_explain(error, path)}")


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema takes 4.0 for an integer, and YAML's .nan and .inf would pass for numbers.
_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)


def _explain(error: ValidationError, path: str) -> str:
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(key for key in error.instance if key not in known)
        return _unknown("key", f"{path}.{unknown}".lstrip("."), known)
    if error.validator == "type" and _is_exponent(error.instance):
        return f"{path}: {error.message} (YAML reads 1e-4 as text, write 1.0e-4)"
    described = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    return f"{path}: {error.message}".removeprefix(": ") + (
        f" ({described.strip()})" if described else ""
    )


def _is_exponent(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value.lower()) is not None


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = list(known)
    last = name.rpartition(".")[2]
    close = difflib.get_close_matches(last, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"unknown {what} {name}; {hint}"


def _check_tables(tables: Mapping[str, Any], experiments: Mapping[str, Any]) -> None:
    for name, table in tables.items():
        for number, row in enumerate(table["rows"]):
            where = f"config: tables.{name}.rows[{number}] ({row['name']})"
            if row.get("experiment", next(iter(experiments))) not in experiments:
                raise ValueError(
                    f"{where}: " + _unknown("experiment", row["experiment"], experiments)
                )
            for heading in row.get("paper", {}):
                if heading not in table["columns"]:
                    raise ValueError(f"{where}: " + _unknown("column", heading, table["columns"]))
        names = [row["name"] for row in table["rows"]]
        twice = next((row for row in names if names.count(row) > 1), None)
        if twice is not None:
            raise ValueError(
                f"config: tables.{name}: each row must have its own name, got {twice} twice"
            )


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


def _check_together(where: str, settings: Settings) -> None:
    """What no single key's range can say."""
    neighbors, n_clusters = settings["neighbors"], settings["n_clusters"]
    if n_clusters is None:
        raise ValueError(f"{where}.n_clusters must be set")
    if neighbors["n_neighbors"] >= neighbors["far_rank"]:
        raise ValueError(
            f"{where}.neighbors: n_neighbors must be below far_rank, got "
            f"{neighbors['n_neighbors']} and {neighbors['far_rank']}"
        )
    if settings["shards"] > 1 and neighbors["engine"] != "exact":
        raise ValueError(
            f"{where}.shards must be 1 where neighbors.engine is not exact, got "
            f"{settings['shards']} and {neighbors['engine']}"
        )
    cleaning = settings["cleaning"]
    if (cleaning["max_union_size"] is None) == (cleaning["quantile"] is None):
        raise ValueError(
            f"{where}.cleaning: exactly one of max_union_size and quantile must be set, got "
            f"{cleaning['max_union_size']} and {cleaning['quantile']}"
        )
    _check_data(where, settings["data"])
    decoded, image_size = settings["data"]["decoded"], settings["data"]["image_size"]
    if decoded != "none" and decoded < image_size:
        raise ValueError(
            f"{where}.data.decoded must be none or at least image_size={image_size}, got {decoded}"
        )
    finetuning = settings["finetuning"]
    if finetuning["lambda_con"] and finetuning["head"] == "self_attention":
        raise ValueError(f"{where}.finetuning: lambda_con must be 0 with head self_attention")
    if finetuning["head_norm"] != "none" and finetuning["head"] == "self_attention":
        raise ValueError(
            f"{where}.finetuning: head_norm must be none with head self_attention, which has its "
            f"own, got {finetuning['head_norm']}"
        )
    if finetuning["views"] != "fresh" and finetuning["trainable"] == "all":
        raise ValueError(
            f"{where}.finetuning: views must be fresh where trainable is all, got "
            f"{finetuning['views']}"
        )
    if finetuning["train_final_norm"] and finetuning["trainable"] == "none":
        raise ValueError(
            f"{where}.finetuning: train_final_norm must be false where trainable is none, got true"
        )
    simgcd = settings["pretraining"]["simgcd"]
    if pretraining_stage(settings) == "pretrain_simgcd":
        if simgcd["start"] == "pretrain":
            raise ValueError(
                f"{where}.pretraining.simgcd.start must be hub, random, bundled:NAME or a file, "
                "got pretrain"
            )
        if finetuning["views"] != "fresh" and simgcd["augmentation"] != finetuning["augmentation"]:
            raise ValueError(
                f"{where}: pretraining.simgcd.augmentation must be that of finetuning where "
                "finetuning.views are cached, which serve both, got "
                f"{simgcd['augmentation']} and {finetuning['augmentation']}"
            )
        if finetuning["views"] == 1:
            raise ValueError(
                f"{where}.finetuning.views must be fresh or at least 2, SimGCD compares two, got 1"
            )
        if finetuning["views"] != "fresh" and finetuning["head"] == "self_attention":
            raise ValueError(
                f"{where}.finetuning: head must be mlp or linear where cached views serve SimGCD "
                "too, got self_attention"
            )
    if finetuning["batch_size"] % settings["machine"]["processes"]:
        raise ValueError(
            f"{where}: finetuning.batch_size must be a multiple of machine.processes, got "
            f"{finetuning['batch_size']} and {settings['machine']['processes']}"
        )
    _check_network(f"{where}.backbone.network", settings)
    _check_negatives(f"{where}.negatives", settings)
    if settings["gcd"] is not None and "old_classes" not in settings["gcd"]:
        raise ValueError(f"{where}.gcd.old_classes must be set")
    old = settings["gcd"]["old_classes"] if settings["gcd"] else []
    if len(old) >= n_clusters:
        raise ValueError(
            f"{where}.gcd.old_classes must leave new classes among the {n_clusters}, got {len(old)}"
        )


def _check_network(where: str, settings: Settings) -> None:
    """Files of our own, and all but torch checkpoints, hold one network."""
    key, weights = "backbone.weights", settings["backbone"]["weights"]
    if pretraining_stage(settings) == "pretrain_simgcd":
        key, weights = "pretraining.simgcd.start", settings["pretraining"]["simgcd"]["start"]
    is_checkpoint = weights not in ("hub", "random", "pretrain") and not (
        weights.startswith("bundled:") or weights.endswith(".safetensors")
    )
    network = settings["backbone"]["network"]
    if network != "auto" and not is_checkpoint:
        raise ValueError(
            f"{where} must be auto where {key} is no torch checkpoint, got {network} for {weights}"
        )


def _check_negatives(where: str, settings: Settings) -> None:
    negatives = settings["negatives"]
    draw, pool, share = (negatives[key] for key in ("draw", "pool", "labeled_share"))
    if draw == "in_batch" and (pool != "far" or share):
        raise ValueError(
            f"{where}: with draw in_batch, pool must be far and labeled_share 0, got {pool} and "
            f"{share}"
        )
    if share and settings["gcd"] is None:
        raise ValueError(f"{where}.labeled_share must be 0 where gcd is null, got {share}")


def _check_data(where: str, data: Settings) -> None:
    """Where images and labels are, which differs between data sets."""
    if (data["manifest"] is None) == (data["name"] == "manifest"):
        raise ValueError(
            f"{where}.data.manifest must be set for data.name manifest and no other, got "
            f"{data['manifest']} for {data['name']}"
        )
    if data["name"] != "digits" and data["root"] is None:
        raise ValueError(f"{where}.data.root must be set for data.name {data['name']}")
    if data["label_file"] is not None and data["name"] != "folder":
        raise ValueError(
            f"{where}.data.label_file must be null but for data.name folder, got "
            f"{data['label_file']} for {data['name']}"
        )
