import copy
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unic.experiments import (
    PRETRAININGS,
    STAGES,
    resolve_experiments,
    setting,
    stage_owner,
    stage_owners,
    stage_settings,
)
from unic.images.datasets import DATASETS
from unic.images.readers.classes import published_old_classes

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text("utf-8"))
EXPERIMENT = SCHEMA["$defs"]["experiment"]
CLUSTERINGS = ["cluster_pixels", "cluster_features", "cluster_finetuned", "cluster_semi_supervised"]
Settings = dict[str, Any]


def read_config() -> Settings:
    """The configuration of the repository, put together as Snakemake does."""
    folder = ROOT / "config"
    files = [folder / "config.yaml", *sorted(folder.glob("experiments/*.yaml"))]
    files.append(folder / "tables.yaml")
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


def properties(schema: Settings, path: str = "") -> Iterator[tuple[str, Settings]]:
    """Every key of the schema, sections and their keys."""
    for part in (schema, *schema.get("oneOf", ())):
        for key, sub in part.get("properties", {}).items():
            yield f"{path}{key}", sub
            yield from properties(sub, f"{path}{key}.")


def test_published_old_classes_are_filled_in() -> None:
    aircraft = {"data": {"name": "fgvc_aircraft", "root": "data"}, "n_clusters": 100}
    resolved = resolve(
        {
            "published": aircraft | {"gcd": {"old_classes": "published"}},
            "listed": {"base": "published", "gcd": {"old_classes": [2, 1]}},
            "listed_first": aircraft | {"gcd": {"old_classes": [2, 1]}},
            "published_then": {"base": "listed_first", "gcd": {"old_classes": "published"}},
        }
    )
    old = published_old_classes("fgvc_aircraft")
    assert resolved["published"]["gcd"]["old_classes"] == old
    assert resolved["published_then"]["gcd"]["old_classes"] == old
    assert resolved["listed"]["gcd"]["old_classes"] == [2, 1]


def test_paths_of_a_manifest_count_from_its_folder_or_the_root() -> None:
    data = {"name": "manifest", "manifest": "lists/birds.csv"}
    resolved = resolve({"a": example("data", data), "b": example("data", data | {"root": "x"})})
    assert resolved["a"]["data"]["root"] == "lists"
    assert resolved["b"]["data"]["root"] == "x"


# The schema


def test_every_key_has_type_description_and_default() -> None:
    found = dict(properties(EXPERIMENT))
    assert {"base", "n_clusters", "seeds", "gcd.labeled_fraction", "finetuning.epochs"} <= set(
        found
    )
    for key, sub in found.items():
        assert {"type", "enum", "oneOf"} & set(sub), key
        assert len(sub["description"]) > 5, key
        if key != "gcd.old_classes":  # has no sensible default
            assert "default" in sub, key


def test_the_schema_knows_every_data_set() -> None:
    assert set(setting(EXPERIMENT, "properties.data.properties.name.enum")) == set(DATASETS)


def test_sections_refuse_keys_that_are_not_listed() -> None:
    sections = [EXPERIMENT, *(sub for _, sub in properties(EXPERIMENT) if "properties" in sub)]
    assert len(sections) > 5
    assert all(section["additionalProperties"] is False for section in sections)


def test_defaults_pass_their_own_schema() -> None:
    resolved = resolve({"plain": example()})["plain"]
    again = resolve({"plain": resolved})["plain"]
    assert again == resolved


def test_stages_depend_on_settings_that_exist() -> None:
    resolved = resolve({"plain": example()})["plain"]
    for stage, (keys, earlier) in STAGES.items():
        for key in keys:
            setting(resolved, key)
        assert set(earlier) <= set(STAGES), stage


# Where a setting comes from


def test_own_settings_go_before_bases_defaults_and_schema() -> None:
    experiments = {
        "first": example("finetuning", {"epochs": 1, "batch_size": 2}),
        "second": {"base": "first", "finetuning": {"epochs": 3}},
        "third": {"base": "second", "finetuning": {"weight_decay": 0.5}},
    }
    defaults = {"finetuning": {"epochs": 7, "batch_size": 8, "lambda_ent": 9}}
    resolved = resolve(experiments, defaults=defaults)
    keys = ("epochs", "batch_size", "weight_decay", "lambda_ent", "trainable")
    found = {name: [s["finetuning"][key] for key in keys] for name, s in resolved.items()}
    assert found["first"] == [1, 2, 0, 9, "last_block"]
    assert found["second"] == [3, 2, 0, 9, "last_block"]
    assert found["third"] == [3, 2, 0.5, 9, "last_block"]
    assert all(s["n_clusters"] == 10 and "base" not in s for s in resolved.values())


@settings(max_examples=30, deadline=None)
@given(
    given_by=st.lists(st.one_of(st.none(), st.integers(1, 50)), min_size=4, max_size=4),
)
def test_the_nearest_of_a_chain_wins(given_by: list[int | None]) -> None:
    own = [{} if v is None else {"finetuning": {"epochs": v}} for v in given_by]
    chain = {
        "e0": {**own[0], "base": "e1"},
        "e1": {**own[1], "base": "e2"},
        "e2": {**own[2], "n_clusters": 5},
    }
    expected = next((v for v in given_by if v is not None), 100)
    assert resolve(chain, defaults=own[3])["e0"]["finetuning"]["epochs"] == expected


def test_eta_and_its_quantile_replace_each_other() -> None:
    experiments = {
        "plain": example(),
        "chosen": {"base": "plain", "cleaning": {"quantile": 0.8}},
        "given": {"base": "chosen", "cleaning": {"max_union_size": 9}},
        "kept": {"base": "chosen", "seeds": [4]},
    }
    resolved = resolve(experiments)
    found = {name: tuple(s["cleaning"].values()) for name, s in resolved.items()}
    assert found == {"plain": (70, None), "chosen": (None, 0.8), "given": (9, None)} | {
        "kept": (None, 0.8)
    }


def test_lists_and_backbone_options_are_replaced_whole() -> None:
    experiments = {
        "first": {
            "n_clusters": 3,
            "seeds": [1, 2, 3],
            "backbone": {"name": "a", "options": {"img_size": 32, "depth": 2}},
        },
        "second": {"base": "first", "seeds": [9], "backbone": {"options": {"width": 1}}},
    }
    second = resolve(experiments)["second"]
    assert second["seeds"] == [9]
    assert second["backbone"]["name"] == "a"
    assert second["backbone"]["options"] == {"width": 1}


def test_gcd_is_off_or_filled_with_its_defaults() -> None:
    experiments = {
        "clustering": example(),
        "gcd": {"base": "clustering", "gcd": {"old_classes": [0, 1]}},
        "more": {"base": "gcd", "gcd": {"old_classes": [2], "labeled_fraction": 0.8}},
        "off": {"base": "more", "gcd": None},
    }
    resolved = resolve(experiments)
    assert resolved["clustering"]["gcd"] is None
    assert resolved["off"]["gcd"] is None
    assert resolved["gcd"]["gcd"] == {
        "old_classes": [0, 1],
        "labeled_fraction": 0.5,
        "split_seed": 0,
    }
    assert resolved["more"]["gcd"] == {
        "old_classes": [2],
        "labeled_fraction": 0.8,
        "split_seed": 0,
    }


def test_resolving_changes_neither_configuration_nor_schema() -> None:
    config, schema = read_config(), copy.deepcopy(SCHEMA)
    before = copy.deepcopy(config)
    resolve_experiments(config, schema)
    assert config == before
    assert schema == SCHEMA


# Refusals


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_cluster", 3, "unknown key experiments.toy.n_cluster; did you mean n_clusters?"),
        ("finetuning.epoch", 3, "experiments.toy.finetuning.epoch; did you mean epochs?"),
        (
            "gcd",
            {"old_classes": [0], "split_sed": 1},
            "toy.gcd.split_sed; did you mean split_seed?",
        ),
        (
            "machine.qqq",
            3,
            "experiments.toy.machine.qqq; known are device, threads, processes, batch_size",
        ),
        ("finetuning.epochs", "3", "finetuning.epochs: '3' is not of type 'integer'"),
        ("finetuning.epochs", 3.0, "finetuning.epochs: 3.0 is not of type 'integer'"),
        ("finetuning.epochs", True, "finetuning.epochs: True is not of type 'integer'"),
        ("finetuning.learning_rate", "1e-4", "learning_rate: '1e-4' is not of type 'number'"),
        ("finetuning.learning_rate", float("nan"), "learning_rate: nan is not of type 'number'"),
        ("finetuning.lambda_ent", float("inf"), "lambda_ent: inf is not of type 'number'"),
        ("finetuning", 3, "experiments.toy.finetuning: 3 is not of type 'object'"),
        ("cleaning.max_union_size", 0, "cleaning.max_union_size: 0 is less than the minimum of 1"),
        ("cleaning.quantile", 0, "cleaning.quantile: 0 is less than or equal to the minimum of 0"),
        ("cleaning.quantile", 1.5, "cleaning.quantile: 1.5 is greater than the maximum of 1"),
        (
            "cleaning",
            {"max_union_size": 70, "quantile": 0.8},
            "toy.cleaning: exactly one of max_union_size and quantile must be set, got 70 and 0.8",
        ),
        (
            "cleaning.max_union_size",
            None,
            "toy.cleaning: exactly one of max_union_size and quantile must be set, got None and",
        ),
        ("neighbors.engine", "faiss", "neighbors.engine: 'faiss' is not one of ['exact', 'faiss_"),
        (
            "negatives.draw",
            "never",
            "negatives.draw: 'never' is not one of ['once', 'each_epoch', 'in_batch']",
        ),
        ("data.decoded", 223, "data.decoded must be none or at least image_size=224, got 223"),
        ("n_clusters", 1, "experiments.toy.n_clusters: 1 is less than the minimum of 2"),
        ("n_clusters", None, "experiments.toy.n_clusters must be set"),
        ("seeds", [], "experiments.toy.seeds: [] should be non-empty"),
        ("seeds", [1, 1], "experiments.toy.seeds: [1, 1] has non-unique elements"),
        ("data.name", "digit", "experiments.toy.data.name: 'digit' is not one of ['digits'"),
        ("data.name", "folder", "experiments.toy.data.root must be set for data.name folder"),
        ("data.name", "manifest", "data.manifest must be set for data.name manifest and no other"),
        ("data.manifest", "a.csv", "for data.name manifest and no other, got a.csv for digits"),
        ("data.label_file", "a.csv", "must be null but for data.name folder, got a.csv for digi"),
        ("finetuning.head_norm", "layer", "'layer' is not one of ['none', 'rms', 'center', 'stand"),
        *(
            (
                "finetuning",
                {"head": "self_attention", "head_norm": norm},
                "experiments.toy.finetuning: head_norm must be none with head self_attention, "
                f"which has its own, got {norm}",
            )
            for norm in ("rms", "center", "standardize")
        ),
        ("gcd.old_classes", "publisht", "gcd.old_classes: 'publisht' is not valid"),
        ("gcd.old_classes", "published", "gcd.old_classes: published old classes are those of"),
        (
            "neighbors",
            {"n_neighbors": 50, "far_rank": 50},
            "experiments.toy.neighbors: n_neighbors must be below far_rank, got 50 and 50",
        ),
        (
            "gcd",
            {"old_classes": list(range(10))},
            "experiments.toy.gcd.old_classes must leave new classes among the 10, got 10",
        ),
        ("gcd", {"old_classes": [0], "labeled_fraction": 1}, "gcd.labeled_fraction: 1 is greater"),
        (
            "negatives",
            {"draw": "in_batch", "pool": "all"},
            "experiments.toy.negatives: with draw in_batch, pool must be far and labeled_share 0, "
            "got all and 0",
        ),
        (
            "negatives.labeled_share",
            0.5,
            "experiments.toy.negatives.labeled_share must be 0 where gcd is null, got 0.5",
        ),
        ("base", "digist", "experiments.toy.base: unknown experiment digist; known are toy"),
        ("base", "to", "experiments.toy.base: unknown experiment to; did you mean toy?"),
        ("base", "toy", "bases must not go in a circle, got toy -> toy"),
    ],
)
def test_refuses_a_wrong_setting_by_its_name(key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        resolve({"toy": example(key, value)})
    assert str(caught.value).startswith("config: ")


def test_a_refusal_says_what_the_key_means() -> None:
    with pytest.raises(ValueError, match=re.escape("(eta, largest union of")):
        resolve({"toy": example("cleaning.max_union_size", -1)})


def test_refuses_a_circle_of_bases() -> None:
    circle = {"a": example("base", "b"), "b": {"base": "c"}, "c": {"base": "b"}}
    with pytest.raises(ValueError, match="in a circle, got a -> b -> c -> b"):
        resolve(circle)


def test_refuses_defaults_with_a_base() -> None:
    with pytest.raises(ValueError, match="config: defaults must not have a base"):
        resolve({"toy": example()}, defaults={"base": "toy"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"name": "UNIC", "experiment": "to"},
            "config: tables.table9.rows[1] (UNIC): unknown experiment to; did you mean toy?",
        ),
        (
            {"name": "UNIC", "paper": {"ACK": 3}},
            "config: tables.table9.rows[1] (UNIC): unknown column ACK; did you mean ACC?",
        ),
        (
            {"name": "k-means"},
            "tables.table9: each row must have its own name, got k-means twice",
        ),
        ({"paper": {}}, "config: tables.table9.rows.1: 'name' is a required property"),
        ({"name": "UNIC", "paper": {"ACC": 101}}, "101 is greater than the maximum of 100"),
    ],
)
def test_refuses_a_wrong_row_of_a_table(row: Settings, message: str) -> None:
    rows = [{"name": "k-means", "experiment": "toy"}, row]
    table = {"title": "Table 9", "columns": {"ACC": "acc"}, "rows": rows}
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve({"toy": example()}, tables={"table9": table})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config: 'experiments' is a required property"),
        ({"experiments": {}}, "config: experiments: {} should be non-empty"),
        ({"experiments": {"a b": {}}}, "config: experiments: 'a b' does not match"),
        (
            {"experiments": {"a": {}}, "default": {}},
            "config: unknown key default; did you mean defaults?",
        ),
        (
            {"experiments": {"a": example()}, "defaults": {"machine": {"thread": 1}}},
            "config: unknown key defaults.machine.thread; did you mean threads?",
        ),
    ],
)
def test_refuses_a_wrong_configuration(config: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve_experiments(config, SCHEMA)


# Sharing


def owners(experiments: Settings, name: str) -> dict[str, str]:
    resolved = resolve(experiments)
    return stage_owners(resolved, name)


def stages_after(*firsts: str, pretraining: str | None = None) -> set[str]:
    """Stages that build on others by way of no pretraining but a given one, and these."""
    found = set(firsts)
    idle = set(PRETRAININGS.values()) - {pretraining}

    def build_on_found() -> set[str]:
        return {s for s, (_, earlier) in STAGES.items() if (found - idle) & set(earlier)} - found

    while more := build_on_found():
        found |= more
    return found


def changed_stages(key: str, value: Any, **base: Any) -> set[str]:
    """Stages of which an experiment does not share the result after a change."""
    experiments = {"one": merge(example(), base), "two": {"base": "one", **nested(key, value)}}
    return {stage for stage, owner in owners(experiments, "two").items() if owner == "two"}


def test_the_configuration_of_the_repository() -> None:
    resolved = resolve_experiments(read_config(), SCHEMA)
    assert {"digits", "digits_gcd", "imagenet50", "imagenet200"} <= set(resolved)
    assert resolved["imagenet50"]["neighbors"]["far_rank"] == 6300
    assert resolved["imagenet200"]["finetuning"]["batch_size"] == 512
    for stage in ("extract_features", "mine_neighbors", "clean_neighbors"):
        assert stage_owner(resolved, "digits_gcd", stage) == "digits"
    for stage in ("split_labels", "index_negatives", "finetune", "predict"):
        assert stage_owner(resolved, "digits_gcd", stage) == "digits_gcd"
    for name in resolved:
        for stage in STAGES:
            owner = stage_owner(resolved, name, stage)
            assert stage_settings(resolved[owner], stage) == stage_settings(resolved[name], stage)


@pytest.mark.parametrize(
    ("key", "value", "firsts"),
    [
        ("cleaning.max_union_size", 50, ["clean_neighbors"]),
        ("cleaning.quantile", 0.8, ["clean_neighbors"]),
        ("neighbors.n_neighbors", 20, ["mine_neighbors"]),
        ("neighbors.engine", "faiss_ivf", ["mine_neighbors"]),
        ("negatives.draw", "each_epoch", ["index_negatives"]),
        ("neighbors.far_rank", 900, ["mine_neighbors", "index_images"]),
        ("negatives.seed", 3, ["index_negatives"]),
        ("negatives.pool", "all", ["index_negatives"]),
        ("gcd", {"old_classes": [0]}, ["split_labels"]),
        ("finetuning.lambda_ent", 5, ["finetune"]),
        ("kmeans.n_restarts", 3, CLUSTERINGS),
        ("seeds", [0, 1, 2, 3], CLUSTERINGS),
        ("backbone.options", {"img_size": 32}, ["extract_features", "extract_tokens"]),
        ("data.decoded", 256, ["decode_images"]),
        ("finetuning.augmentation", "gcd", ["finetune", "extract_tokens", "extract_views"]),
        ("finetuning.views", 4, ["finetune", "extract_tokens", "extract_views"]),
        ("finetuning.token_dtype", "int8", ["finetune", "extract_tokens", "extract_views"]),
        ("finetuning.precision", "bfloat16", ["finetune", "extract_tokens", "extract_views"]),
        ("finetuning.head", "self_attention", ["finetune", "extract_tokens"]),
        ("finetuning.train_final_norm", True, ["finetune"]),
        ("finetuning.n_heads", 3, ["finetune"]),
        ("finetuning.head_norm", "rms", ["finetune"]),
        ("finetuning.head_norm", "center", ["finetune"]),
        ("machine.processes", 2, []),
        ("machine.threads", 3, []),
        ("machine.device", "cpu", []),
    ],
)
def test_a_change_belongs_to_its_stage_and_those_after(
    key: str, value: Any, firsts: list[str]
) -> None:
    expected = stages_after(*firsts)
    idle = set(PRETRAININGS.values())  # never run here, but they have settings in common
    assert changed_stages(key, value) - idle == expected - idle


@pytest.mark.parametrize(
    ("key", "value"),
    [("data.root", "other"), ("data.manifest", "other"), ("data.bad_images", "skip")],
)
def test_other_images_are_shared_by_no_stage(key: str, value: str) -> None:
    data = {"name": "manifest", "root": "here", "manifest": "list.csv"}
    assert changed_stages(key, value, data=data) == set(STAGES)


def test_pretraining_matters_only_where_it_is_asked_for() -> None:
    assert changed_stages("pretraining.neighbors.epochs", 3) == {"pretrain"}
    asked = changed_stages("pretraining.neighbors.epochs", 3, backbone={"weights": "pretrain"})
    assert asked == stages_after("pretrain", pretraining="pretrain")
    assert "finetune" in asked


def test_a_network_belongs_to_the_stages_that_read_foreign_weights() -> None:
    backbone = {"weights": "full.pth"}
    changed = changed_stages("backbone.network", "student", backbone=backbone)
    assert changed - {"pretrain_simgcd"} == stages_after("extract_features", "extract_tokens")
    changed = changed_stages("backbone.network", "student", **simgcd(start="full.pth"))
    firsts = "pretrain_simgcd", "extract_tokens"
    assert changed == stages_after(*firsts, pretraining="pretrain_simgcd")
    assert {"extract_features", "extract_views", "finetune"} <= changed


@pytest.mark.parametrize(
    ("settings", "key", "weights"),
    [
        ({"backbone": {"weights": "hub"}}, "backbone.weights", "hub"),
        ({"backbone": {"weights": "random"}}, "backbone.weights", "random"),
        ({"backbone": {"weights": "bundled:x"}}, "backbone.weights", "bundled:x"),
        ({"backbone": {"weights": "a.safetensors"}}, "backbone.weights", r"a\.safetensors"),
        ({"backbone": {"weights": "pretrain"}}, "backbone.weights", "pretrain"),
        (
            {"backbone": {"weights": "pretrain"}, "pretraining": {"method": "simgcd"}},
            "pretraining.simgcd.start",
            "hub",
        ),
    ],
)
def test_refuses_a_network_of_weights_that_have_one(
    settings: Settings, key: str, weights: str
) -> None:
    resolve({"one": merge(example(), settings)})
    message = f"backbone.network must be auto where {key} is no torch checkpoint, got student for "
    with pytest.raises(ValueError, match=message + f"{weights}$"):
        resolve({"one": merge(example(), merge(settings, {"backbone": {"network": "student"}}))})


def simgcd(**settings: Any) -> Settings:
    return {
        "backbone": {"weights": "pretrain"},
        "pretraining": {"method": "simgcd", "simgcd": settings},
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pretraining.simgcd.entropy_weight", 2),
        ("pretraining.simgcd.start", "random"),
        ("gcd", {"old_classes": [0, 1]}),
        ("data.decoded", 256),
    ],
)
def test_features_and_predictions_build_on_simgcd(key: str, value: Any) -> None:
    changed = changed_stages(key, value, **simgcd(), gcd={"old_classes": [0]})
    assert stages_after("pretrain_simgcd", pretraining="pretrain_simgcd") <= changed
    assert {"extract_features", "predict_simgcd", "finetune"} <= changed


def test_cached_views_build_on_the_start_of_simgcd_alone() -> None:
    changed = changed_stages("pretraining.simgcd.epochs", 3, **simgcd())
    assert changed == stages_after("pretrain_simgcd", pretraining="pretrain_simgcd")
    assert "extract_tokens" not in changed
    assert "extract_tokens" in changed_stages("pretraining.simgcd.start", "random", **simgcd())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (simgcd(start="pretrain"), "hub, random, bundled:NAME or a file, got pretrain"),
        (
            merge(simgcd(augmentation="gcd"), {"finetuning": {"views": 4, "augmentation": "scan"}}),
            "must be that of finetuning .* got gcd and scan",
        ),
        (
            merge(
                simgcd(augmentation="scan"), {"finetuning": {"views": 1, "augmentation": "scan"}}
            ),
            "finetuning.views must be fresh or at least 2, SimGCD compares two, got 1",
        ),
    ],
)
def test_refuses_a_simgcd_that_cannot_run(settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve({"one": merge(example(), settings)})
    resolve({"one": merge(example(), settings | {"backbone": {"weights": "hub"}})})


def test_the_first_of_equals_owns() -> None:
    experiments = {"b": example(), "a": {"base": "b"}, "c": example("finetuning.epochs", 3)}
    assert set(owners(experiments, "a").values()) == {"b"}
    assert owners(experiments, "c")["finetune"] == "c"
    assert owners(experiments, "c")["mine_neighbors"] == "b"


def test_an_owner_owns_its_own() -> None:
    resolved = resolve_experiments(read_config(), SCHEMA)
    for name in resolved:
        for stage in STAGES:
            owner = stage_owner(resolved, name, stage)
            assert stage_owner(resolved, owner, stage) == owner


def test_refuses_an_unknown_experiment() -> None:
    resolved = resolve({"digits": example()})
    with pytest.raises(ValueError, match=r"unknown experiment digit; did you mean digits\?"):
        stage_owner(resolved, "digit", "finetune")
