import copy
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.experiments.configurations import (
    EXPERIMENT,
    SCHEMA,
    example,
    properties,
    read_config,
    resolve,
)
from unic.experiments.keys import setting
from unic.experiments.settings import resolve_experiments
from unic.images.datasets import DATASETS
from unic.images.readers.classes import published_old_classes
from unic.neighbors.negatives import PoolSettings
from unic.training.contrastive import PretrainingSettings
from unic.training.simgcd import SimGCDSettings
from unic.training.step import FinetuningSettings


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
    assert found == {"plain": (None, 0.8), "chosen": (None, 0.8), "given": (9, None)} | {
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


def test_resolving_changes_neither_configuration_nor_schema() -> None:
    config, schema = read_config(), copy.deepcopy(SCHEMA)
    before = copy.deepcopy(config)
    resolve_experiments(config, schema)
    assert config == before
    assert schema == SCHEMA


def test_refuses_a_circle_of_bases() -> None:
    circle = {"a": example("base", "b"), "b": {"base": "c"}, "c": {"base": "b"}}
    with pytest.raises(ValueError, match="in a circle, got a -> b -> c -> b"):
        resolve(circle)


def test_refuses_defaults_with_a_base() -> None:
    with pytest.raises(ValueError, match="config: defaults must not have a base"):
        resolve({"toy": example()}, defaults={"base": "toy"})


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


@pytest.mark.parametrize(
    ("kind", "sections"),
    [
        (FinetuningSettings, ("finetuning", "views")),
        (SimGCDSettings, ("pretraining.simgcd", "views")),
        (PretrainingSettings, ("pretraining.neighbors",)),
        (PoolSettings, ("negatives",)),
    ],
)
def test_defaults_of_the_package_are_those_of_the_schema(
    kind: type, sections: tuple[str, ...]
) -> None:
    defaults = resolve({"plain": example()})["plain"]
    known = {key: value for name in sections for key, value in setting(defaults, name).items()}
    for field in dataclasses.fields(kind):
        assert field.name in known, field.name
        assert field.default in (known[field.name], dataclasses.MISSING), field.name
