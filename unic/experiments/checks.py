"""What a configuration must not say: by its schema, by keys of the past, by keys together."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from unic.experiments import stages
from unic.experiments.keys import Settings, unknown
from unic.experiments.stages import AUTO, has_cached_views, is_file, pretraining_stage

MOVED = {  # key of an earlier version to what it is called now
    "finetuning.views": "views.n_views",
    "finetuning.augmentation": "views.augmentation",
    "finetuning.token_dtype": "views.dtype",
    "finetuning.precision": "views.precision",
}
OFF = {  # key to what turned it off in an earlier version, which null does now
    "data.decoded": "none",
    "views.augmentation": "none",
    "pretraining.simgcd.augmentation": "none",
    "finetuning.trainable": "none",
    "finetuning.head_norm": "none",
    "finetuning.snapshot_every": 0,
}
Contradictions = Iterator[tuple[bool, str]]  # whether it is one, and how it is told


def check_schema(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Refuse a configuration that does not follow its schema.

    Raises:
        ValueError: Names the key; of a key of an earlier version, what it is called now.
    """
    error = best_match(_Validator(schema).iter_errors(config))
    if error is not None:
        raise ValueError(f"config: {_explain(error, '.'.join(map(str, error.absolute_path)))}")


def check_tables(tables: Mapping[str, Any], experiments: Mapping[str, Any]) -> None:
    """Refuse tables whose rows are not told apart, or name what there is not.

    Raises:
        ValueError: Names the table and the row.
    """
    for name, table in tables.items():
        for number, row in enumerate(table["rows"]):
            where = f"config: tables.{name}.rows[{number}] ({row['name']})"
            if row.get("experiment", next(iter(experiments))) not in experiments:
                raise ValueError(
                    f"{where}: " + unknown("experiment", row["experiment"], experiments)
                )
            for heading in row.get("paper", {}):
                if heading not in table["columns"]:
                    raise ValueError(f"{where}: " + unknown("column", heading, table["columns"]))
        names = [row["name"] for row in table["rows"]]
        twice = next((row for row in names if names.count(row) > 1), None)
        if twice is not None:
            raise ValueError(
                f"config: tables.{name}: each row must have its own name, got {twice} twice"
            )


def check_comparisons(
    comparisons: Mapping[str, Any], tables: Mapping[str, Any], experiments: Mapping[str, Any]
) -> None:
    """Refuse comparisons of experiments that there are not, or with the name of a table.

    Raises:
        ValueError: Names the comparison.
    """
    for name, comparison in comparisons.items():
        if name in tables:
            raise ValueError(f"config: comparisons.{name} must not have the name of a table")
        for heading, experiment in comparison["experiments"].items():
            if experiment not in experiments:
                raise ValueError(
                    f"config: comparisons.{name}.experiments.{heading}: "
                    + unknown("experiment", experiment, experiments)
                )


def check_figures(figures: Mapping[str, Any], experiments: Mapping[str, Any]) -> None:
    """Refuse figures of experiments that there are not, or with several of them on one curve.

    Raises:
        ValueError: Names the figure and the line.
    """
    for name, figure in figures.items():
        for panel, lines in figure["panels"].items():
            for line, found in lines.items():
                where = f"config: figures.{name}.panels.{panel}.{line}"
                names = [found] if isinstance(found, str) else found
                for experiment in names:
                    if experiment not in experiments:
                        raise ValueError(
                            f"{where}: " + unknown("experiment", experiment, experiments)
                        )
                if figure["x"] == "epoch" and not isinstance(found, str):
                    raise ValueError(f"{where} must be one experiment over epochs, got {found}")


def check_together(where: str, settings: Settings) -> None:
    """Refuse what no single key's range can say.

    Args:
        where: What messages begin with.
        settings: Complete, each key by itself as the schema wants it.

    Raises:
        ValueError: Tells the first of all contradictions.
    """
    for of_part in (_of_mining, _of_data, _of_training, _of_simgcd, _of_negatives, _of_gcd):
        for is_wrong, message in of_part(settings):
            if is_wrong:
                raise ValueError(f"{where}{message}")


def _of_mining(settings: Settings) -> Contradictions:
    neighbors, cleaning, shards = (settings[key] for key in ("neighbors", "cleaning", "shards"))
    n_neighbors, far_rank, engine = (
        neighbors[key] for key in ("n_neighbors", "far_rank", "engine")
    )
    eta, quantile = cleaning["max_union_size"], cleaning["quantile"]
    yield settings["n_clusters"] is None, ".n_clusters must be set"
    yield (
        settings["n_clusters"] == AUTO and not stages.is_consensus(settings),
        ".n_clusters must be a number where method is finetuning, got auto",
    )
    yield (
        AUTO not in (n_neighbors, far_rank) and n_neighbors >= far_rank,
        f".neighbors: n_neighbors must be below far_rank, got {n_neighbors} and {far_rank}",
    )
    yield (
        shards > 1 and engine != "exact",
        f".shards must be 1 where neighbors.engine is not exact, got {shards} and {engine}",
    )
    yield (
        (eta is None) == (quantile is None),
        ".cleaning: exactly one of max_union_size and quantile must be set, got "
        f"{eta} and {quantile}",
    )


def _of_data(settings: Settings) -> Contradictions:
    """Where images and labels are, which differs between data sets."""
    data = settings["data"]
    name, manifest, label_file = (data[key] for key in ("name", "manifest", "label_file"))
    decoded, image_size = data["decoded"], data["image_size"]
    yield (
        (manifest is None) == (name == "manifest"),
        f".data.manifest must be set for data.name manifest and no other, got {manifest} for "
        f"{name}",
    )
    yield (
        name != "digits" and data["root"] is None,
        f".data.root must be set for data.name {name}",
    )
    yield (
        label_file is not None and name != "folder",
        f".data.label_file must be null but for data.name folder, got {label_file} for {name}",
    )
    yield (
        label_file is not None and data["imbalance_ratio"] is not None,
        ".data.imbalance_ratio must be null where labels are those of data.label_file, got "
        f"{data['imbalance_ratio']}",
    )
    known, gcd = data["known_labels"], settings["gcd"]
    yield (
        bool(known) and gcd is not None,
        ".data.known_labels must be empty with gcd, which draws labels from the truth, got "
        f"{', '.join(known)}",
    )
    yield (
        not data["class_folders"] and name != "folder",
        f".data.class_folders must be true but for data.name folder, got false for {name}",
    )
    yield (
        decoded is not None and decoded < image_size,
        f".data.decoded must be null or at least image_size={image_size}, got {decoded}",
    )


def _of_training(settings: Settings) -> Contradictions:
    finetuning, n_views = settings["finetuning"], settings["views"]["n_views"]
    head, norm, trainable, batch_size = (
        finetuning[key] for key in ("head", "head_norm", "trainable", "batch_size")
    )
    n_processes = settings["machine"]["processes"]
    yield (
        finetuning["lambda_con"] > 0 and head == "self_attention",
        ".finetuning: lambda_con must be 0 with head self_attention",
    )
    yield (
        finetuning["start"] == "consensus" and head == "self_attention",
        ".finetuning: start must be random with head self_attention, which reads no features",
    )
    yield (
        norm is not None and head == "self_attention",
        ".finetuning: head_norm must be null with head self_attention, which has its own, got "
        f"{norm}",
    )
    yield (
        has_cached_views(settings) and trainable == "all",
        f".views.n_views must be fresh where finetuning.trainable is all, got {n_views}",
    )
    yield (
        finetuning["train_final_norm"] and trainable is None,
        ".finetuning: train_final_norm must be false where trainable is null, got true",
    )
    yield (
        batch_size % n_processes != 0,
        ": finetuning.batch_size must be a multiple of machine.processes, got "
        f"{batch_size} and {n_processes}",
    )


def _of_simgcd(settings: Settings) -> Contradictions:
    """Of SimGCD where it goes first, and of the weights that are read first of all."""
    is_first, is_cached = pretraining_stage(settings) == "pretrain_simgcd", False
    key, weights = "backbone.weights", settings["backbone"]["weights"]
    simgcd, views = settings["pretraining"]["simgcd"], settings["views"]
    if is_first:
        key, weights = "pretraining.simgcd.start", simgcd["start"]
        is_cached = has_cached_views(settings)
    yield (
        is_first and weights == "pretrain",
        ".pretraining.simgcd.start must be hub, random, bundled:NAME or a file, got pretrain",
    )
    yield (
        is_cached and simgcd["augmentation"] != views["augmentation"],
        ": pretraining.simgcd.augmentation must be views.augmentation where views are cached, "
        f"which serve both, got {simgcd['augmentation']} and {views['augmentation']}",
    )
    yield (
        is_cached and views["n_views"] == 1,
        ".views.n_views must be fresh or at least 2, SimGCD compares two, got 1",
    )
    yield (
        is_cached and settings["finetuning"]["head"] == "self_attention",
        ".finetuning: head must be mlp or linear where cached views serve SimGCD too, got "
        "self_attention",
    )
    network = settings["backbone"]["network"]
    has_several = is_file(weights) and not weights.endswith(".safetensors")
    yield (
        network != "auto" and not has_several,
        f".backbone.network must be auto where {key} is no torch checkpoint, got {network} for "
        f"{weights}",
    )


def _of_negatives(settings: Settings) -> Contradictions:
    negatives = settings["negatives"]
    draw, pool, share = (negatives[key] for key in ("draw", "pool", "labeled_share"))
    yield (
        draw == "in_batch" and (pool != "far" or share > 0),
        ".negatives: with draw in_batch, pool must be far and labeled_share 0, got "
        f"{pool} and {share}",
    )
    yield (
        share > 0 and settings["gcd"] is None and not settings["data"]["known_labels"],
        f".negatives.labeled_share must be 0 where no label is known, got {share}",
    )


def _of_gcd(settings: Settings) -> Contradictions:
    gcd, n_clusters = settings["gcd"], settings["n_clusters"]
    if gcd is None:
        return
    yield "old_classes" not in gcd, ".gcd.old_classes must be set"
    n_old = len(gcd["old_classes"])
    yield (
        n_old >= n_clusters,
        f".gcd.old_classes must leave new classes among the {n_clusters}, got {n_old}",
    )


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
        key = f"{path}.{next(key for key in error.instance if key not in known)}".lstrip(".")
        now = MOVED.get(_inside(key))
        return unknown("key", key, known) if now is None else f"{key} is now {now}"
    off = OFF.get(_inside(path))
    if off is not None and error.instance == off:
        return f"{path}: {off} is now null"
    if error.validator == "type" and _is_exponent(error.instance):
        return f"{path}: {error.message} (YAML reads 1e-4 as text, write 1.0e-4)"
    described = error.schema.get("description", "") if isinstance(error.schema, dict) else ""
    message = re.sub(r"(?<!')\bNone\b", "null", error.message)  # as YAML spells it
    return f"{path}: {message}".removeprefix(": ") + (
        f" ({described.strip()})" if described else ""
    )


def _inside(path: str) -> str:
    """A key within an experiment or the defaults, without what it is within."""
    return re.sub(r"^(experiments\.[^.]*|defaults)\.", "", path)


def _is_exponent(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[+-]?\d+e[+-]?\d+", value.lower()) is not None
