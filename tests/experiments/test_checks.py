import re
from typing import Any

import pytest

from tests.experiments.configurations import (
    EXPERIMENT,
    SCHEMA,
    Settings,
    example,
    merge,
    nested,
    properties,
    resolve,
    simgcd,
)
from unic.experiments.checks import MOVED, OFF
from unic.experiments.keys import setting
from unic.experiments.settings import resolve_experiments


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
            "experiments.toy.machine.qqq; known are device, engine, threads, processes, batch_size",
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
            "cleaning.quantile",
            None,
            "toy.cleaning: exactly one of max_union_size and quantile must be set, got None and",
        ),
        ("method", "scan", "method: 'scan' is not one of ['finetuning', 'consensus']"),
        (
            "n_clusters",
            "auto",
            "toy.n_clusters must be a number where method is finetuning, got auto",
        ),
        (
            "data.class_folders",
            False,
            "toy.data.class_folders must be true but for data.name folder, got false for digits",
        ),
        ("neighbors.engine", "faiss", "neighbors.engine: 'faiss' is not one of ['exact', 'faiss_"),
        (
            "negatives.draw",
            "never",
            "negatives.draw: 'never' is not one of ['once', 'each_epoch', 'in_batch']",
        ),
        ("data.decoded", 223, "data.decoded must be null or at least image_size=224, got 223"),
        ("n_clusters", 1, "experiments.toy.n_clusters: 1 is less than the minimum of 2"),
        ("n_clusters", None, "experiments.toy.n_clusters must be set"),
        ("seeds", [], "experiments.toy.seeds: [] should be non-empty"),
        ("seeds", [1, 1], "experiments.toy.seeds: [1, 1] has non-unique elements"),
        ("data.name", "digit", "experiments.toy.data.name: 'digit' is not one of ['digits'"),
        ("data.name", "folder", "experiments.toy.data.root must be set for data.name folder"),
        ("data.name", "manifest", "data.manifest must be set for data.name manifest and no other"),
        ("data.manifest", "a.csv", "for data.name manifest and no other, got a.csv for digits"),
        ("data.label_file", "a.csv", "must be null but for data.name folder, got a.csv for digi"),
        ("data.imbalance_ratio", 0.5, "data.imbalance_ratio: 0.5 is less than the minimum of 1"),
        (
            "data",
            {"name": "folder", "root": "a", "label_file": "a.csv", "imbalance_ratio": 10},
            "data.imbalance_ratio must be null where labels are those of data.label_file, got 10",
        ),
        ("finetuning.trainable", "None", "trainable: 'None' is not one of [null, 'last_b"),
        ("views.n_views", None, "views.n_views: null is not valid under any of the given"),
        ("finetuning.head_norm", "layer", "'layer' is not one of [null, 'rms', 'center', 'stand"),
        *(
            (
                "finetuning",
                {"head": "self_attention", "head_norm": norm},
                "experiments.toy.finetuning: head_norm must be null with head self_attention, "
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
            "experiments.toy.negatives.labeled_share must be 0 where no label is known, got 0.5",
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
    ("figure", "message"),
    [
        (
            {"x": "epoch", "panels": {"Head": {"MLP": "to"}}},
            "config: figures.figure5.panels.Head.MLP: unknown experiment to; did you mean toy?",
        ),
        (
            {"x": "a.b", "panels": {"Head": {"MLP": ["toy", "no"]}}},
            "config: figures.figure5.panels.Head.MLP: unknown experiment no",
        ),
        (
            {"x": "epoch", "panels": {"": {"MLP": ["toy"]}}},
            "config: figures.figure5.panels..MLP must be one experiment over epochs, got ['toy']",
        ),
        ({"x": "epoch", "panels": {}}, "config: figures.figure5.panels: {} should be non-empty"),
        ({"panels": {"": {"a": "toy"}}}, "figures.figure5: 'x' is a required property"),
        ({"x": "a.b", "scale": "log2", "panels": {"": {"a": "toy"}}}, "figures.figure5.scale"),
    ],
)
def test_refuses_a_wrong_figure(figure: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve({"toy": example()}, figures={"figure5": {"title": "Figure 5"} | figure})


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (simgcd(start="pretrain"), "hub, random, bundled:NAME or a file, got pretrain"),
        (
            merge(simgcd(augmentation="gcd"), {"views": {"n_views": 4, "augmentation": "scan"}}),
            "must be views.augmentation .* got gcd and scan",
        ),
        (
            merge(simgcd(augmentation="scan"), {"views": {"n_views": 1, "augmentation": "scan"}}),
            "views.n_views must be fresh or at least 2, SimGCD compares two, got 1",
        ),
    ],
)
def test_refuses_a_simgcd_that_cannot_run(settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve({"one": merge(example(), settings)})
    resolve({"one": merge(example(), settings | {"backbone": {"weights": "hub"}})})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"views": {"n_views": 8}, "finetuning": {"trainable": "all"}},
            ".views.n_views must be fresh where finetuning.trainable is all, got 8",
        ),
        (
            {"finetuning": {"train_final_norm": True, "trainable": None}},
            ".finetuning: train_final_norm must be false where trainable is null, got true",
        ),
        (
            {"finetuning": {"lambda_con": 5, "head": "self_attention"}},
            ".finetuning: lambda_con must be 0 with head self_attention",
        ),
        (
            {"machine": {"processes": 3}},
            ": finetuning.batch_size must be a multiple of machine.processes, got 128 and 3",
        ),
        (
            {"shards": 2, "neighbors": {"engine": "faiss_ivf"}},
            ".shards must be 1 where neighbors.engine is not exact, got 2 and faiss_ivf",
        ),
        ({"gcd": {}}, ".gcd.old_classes must be set"),
        (
            merge(
                simgcd(augmentation="scan"),
                {"views": {"n_views": 2}, "finetuning": {"head": "self_attention"}},
            ),
            ".finetuning: head must be mlp or linear where cached views serve SimGCD too",
        ),
    ],
)
def test_refuses_settings_that_contradict_each_other(settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"config: experiments.toy{message}")):
        resolve({"toy": merge(example(), settings)})


# Keys of earlier versions


# All that could be said of an experiment before the section views was there.
KEYS = """
base n_clusters seeds data data.name data.root data.manifest data.label_file data.bad_images
data.decoded data.image_size data.crop_pct data.mean data.std gcd gcd.old_classes
gcd.labeled_fraction gcd.split_seed backbone backbone.name backbone.weights backbone.network
backbone.options pretraining pretraining.method pretraining.neighbors pretraining.neighbors.epochs
pretraining.neighbors.batch_size pretraining.neighbors.learning_rate
pretraining.neighbors.weight_decay pretraining.neighbors.temperature
pretraining.neighbors.pixel_neighbors pretraining.neighbors.feature_neighbors
pretraining.neighbors.pixel_fraction pretraining.neighbors.remine_every pretraining.neighbors.seed
pretraining.simgcd pretraining.simgcd.start pretraining.simgcd.augmentation
pretraining.simgcd.epochs pretraining.simgcd.batch_size pretraining.simgcd.learning_rate
pretraining.simgcd.weight_decay pretraining.simgcd.supervised_weight
pretraining.simgcd.entropy_weight pretraining.simgcd.student_temperature
pretraining.simgcd.first_teacher_temperature pretraining.simgcd.teacher_temperature
pretraining.simgcd.teacher_epochs pretraining.simgcd.seed neighbors neighbors.n_neighbors
neighbors.far_rank neighbors.metric neighbors.far_radius neighbors.engine cleaning
cleaning.max_union_size cleaning.quantile negatives negatives.draw negatives.n_negatives
negatives.pool negatives.labeled_share negatives.exclude_known_same_label negatives.seed
finetuning finetuning.trainable finetuning.train_final_norm finetuning.head finetuning.head_norm
finetuning.n_heads finetuning.head_width finetuning.epochs finetuning.batch_size
finetuning.learning_rate finetuning.weight_decay finetuning.lambda_pos finetuning.lambda_neg
finetuning.lambda_ent finetuning.lambda_con finetuning.views finetuning.token_dtype
finetuning.snapshot_every finetuning.precision finetuning.schedule finetuning.clip_norm
finetuning.accumulation finetuning.entropy_momentum finetuning.augmentation kmeans
kmeans.n_restarts kmeans.pixels shards machine machine.device machine.threads machine.processes
machine.batch_size
"""


def test_every_key_of_old_is_one_still_or_has_a_new_name() -> None:
    keys = {key for key, _ in properties(EXPERIMENT)}
    assert set(KEYS.split()) - keys == set(MOVED)
    assert set(MOVED.values()) <= keys


@pytest.mark.parametrize("key", MOVED)
def test_refuses_an_old_key_by_its_new_name(key: str) -> None:
    message = f"experiments.toy.{key} is now {MOVED[key]}"
    with pytest.raises(ValueError, match=f"^config: {re.escape(message)}$"):
        resolve({"toy": example(key, 8)})
    with pytest.raises(ValueError, match=f"^config: defaults.{key} is now {MOVED[key]}$"):
        resolve({"toy": example()}, defaults=nested(key, 8))


@pytest.mark.parametrize("key", OFF)
def test_off_is_null_and_its_old_spelling_refused(key: str) -> None:
    assert setting(resolve({"toy": example(key, None)})["toy"], key) is None
    message = f"experiments.toy.{key}: {OFF[key]} is now null"
    with pytest.raises(ValueError, match=f"^config: {re.escape(message)}$"):
        resolve({"toy": example(key, OFF[key])})


def test_nothing_is_turned_off_by_another_word() -> None:
    for key, sub in properties(EXPERIMENT):
        values = {*sub.get("enum", ()), *(part.get("const") for part in sub.get("oneOf", ()))}
        assert not values & {"none", "off", "never", False}, key
