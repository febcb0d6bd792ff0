"""What a rule is told and reads is what its stage depends on; the rules are those of Snakemake."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    OutputSettings,
    ResourceSettings,
    StorageSettings,
)

from tests.experiments.configurations import (
    EXPERIMENT,
    example,
    merge,
    properties,
    resolve,
    simgcd,
)
from tests.workflow.project import copy_project
from unic.experiments.keys import Settings
from unic.experiments.stages import STAGES, Artifact, pretraining_stage, stage_settings

pytestmark = pytest.mark.workflow
SOURCES = {"cluster_pixels": "pixels", "cluster_finetuned": "finetuned"}  # of one rule
SECTIONS = {key for key, sub in properties(EXPERIMENT) if "properties" in sub}
LEAVES = [key for key, _ in properties(EXPERIMENT) if not key.startswith("gcd.")]
# Settings of a stage that leave what the other gives it as it is.
FIXED = {
    # Where views serve SimGCD it has their augmentation, and no head may read all tokens.
    ("pretrain_simgcd", "extract_tokens"): {
        *("views.augmentation", "finetuning.head", "backbone.weights")
    },
    # The list of the images is the same; these are compared to its length.
    **{(stage, "index_images"): {"method", "n_clusters", "neighbors.far_rank"} for stage in STAGES},
}
GIVEN = {"name": "folder", "root": "photos", "label_file": "labels.csv", "bad_images": "skip"}
OWN = {
    **{"name": "folder", "root": "photos", "class_folders": False},
    "known_labels": ["some.csv", "more.csv"],
}
LISTED = {"name": "manifest", "manifest": "list.csv", "decoded": 256}
PARTS: dict[str, Settings] = {
    "plain": {},
    "cached": {"views": {"n_views": 2}, "neighbors": {"engine": "faiss_flat"}},
    "frozen": {"finetuning": {"trainable": None}, "views": {"augmentation": None}},
    "frozen views": {"finetuning": {"trainable": None}, "views": {"n_views": 2}},
    "all tokens": {"finetuning": {"head": "self_attention"}, "views": {"n_views": 2}},
    "centered": {"finetuning": {"head_norm": "center"}, "kmeans": {"pixels": True}},
    "in batch": {"negatives": {"draw": "in_batch"}, "shards": 2, "gcd": {"old_classes": [0]}},
    "given files": {"data": GIVEN, "backbone": {"weights": "a.pth", "network": "student"}},
    "a list": {"data": LISTED, "backbone": {"weights": "bundled:digits_test_resnet"}},
    "consensus": {"method": "consensus", "n_clusters": "auto", "data": OWN},
    "started": {"finetuning": {"start": "consensus"}},
    "pretrained": {"backbone": {"weights": "pretrain"}, "views": {"n_views": 2}},
    "simgcd": simgcd(start="a.pth") | {"data": LISTED},
    "cached simgcd": simgcd(augmentation="scan") | {"views": {"n_views": 2}},
}
CASES = resolve({name.replace(" ", "_"): merge(example(), part) for name, part in PARTS.items()})


class Recorded(dict[str, Any]):
    """A section of settings that notes what is read of it."""

    def __init__(self, section: Settings, read: set[str], path: str = ""):
        super().__init__(section)
        self._read, self._path = read, path

    def __getitem__(self, key: str) -> Any:
        path = f"{self._path}{key}"
        value = super().__getitem__(key)
        if path in SECTIONS:
            return Recorded(value, self._read, f"{path}.")
        self._read.add(path)
        return value

    def __iter__(self) -> Iterator[str]:  # so that ** asks for each key
        return super().__iter__()


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    project = copy_project(tmp_path_factory.mktemp("rules") / "project")
    with pytest.MonkeyPatch.context() as patch, SnakemakeApi(OutputSettings()) as api:
        patch.chdir(project.folder)
        parsed = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(),
            storage_settings=StorageSettings(),
            snakefile=Path("Snakefile"),
        )
        yield {rule.name: rule for rule in parsed._workflow.rules}
        parsed._workflow.sourcecache.runtime_cache.cleanup()


def decisions(function: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What an input or parameter function of the workflow stands for, as functions of settings."""
    held = inspect.getclosurevars(function).nonlocals
    if "function" in held:
        names = held["names"]
        yield lambda settings, **known: held["function"](settings, *(known[n] for n in names))
    elif "stage" in held:
        yield lambda *_, **__: Artifact(held["stage"], held["path"])
    else:
        for value in held.values():
            if callable(value):
                yield from decisions(value)


def artifacts(decided: Any) -> set[Artifact]:
    """Artifacts in what was decided, of which all sections are read on the way."""
    if isinstance(decided, Artifact):
        return {decided}
    if isinstance(decided, Recorded):
        decided = {key: decided[key] for key in decided}
    within = decided.values() if isinstance(decided, dict) else decided
    if not isinstance(decided, dict | list):
        return set()
    return set().union(*map(artifacts, within))


def told(functions: Any, settings: Settings, stage: str) -> tuple[set[str], set[Artifact]]:
    """Settings that some functions of a rule read, and the artifacts that they name."""
    read: set[str] = set()
    found: set[Artifact] = set()
    files = (getattr(function, "_file", function) for function in functions)
    unpacked = (getattr(file, "callable", file) for file in files)
    for function in filter(callable, unpacked):
        for decide in decisions(function):
            source = SOURCES.get(stage, "features")
            found |= artifacts(
                decide(Recorded(settings, read), source=source, method="ward", seed="0")
            )
    return read, found


def rule_of(stage: str, rules: dict[str, Any]) -> Any:
    return rules["cluster_features" if stage in SOURCES else stage]


def reads(stage: str, settings: Settings, rules: dict[str, Any]) -> set[str]:
    """All settings that a stage's rule is told or reads by, through the rules before it."""
    rule = rule_of(stage, rules)
    read, _ = told(rule.params, settings, stage)
    chosen, files = told(rule.input, settings, stage)
    read |= chosen
    for file in files:
        if (stage, file.path) != ("clean_neighbors", "known_labels.zarr/zarr.json"):  # for its log
            read |= reads(file.stage, settings, rules) - FIXED.get((stage, file.stage), set())
    return read


def is_within(key: str, sections: Any) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def cases_of(stage: str) -> list[Settings]:
    """Those that have the stage, as far as a pretraining decides it."""
    wanted = {"predict_simgcd": "pretrain_simgcd"}.get(stage, stage)
    if not wanted.startswith("pretrain"):
        return list(CASES.values())
    return [settings for settings in CASES.values() if pretraining_stage(settings) == wanted]


@pytest.mark.parametrize("stage", STAGES)
def test_a_rule_is_told_what_its_stage_depends_on_alone(stage: str, rules: dict[str, Any]) -> None:
    assert cases_of(stage)
    for settings in cases_of(stage):
        known = stage_settings(settings, stage)
        read = reads(stage, settings, rules) - {"pretraining.method"}  # says which come before
        assert not {key for key in read if not is_within(key, known)}


@pytest.mark.parametrize("stage", STAGES)
def test_all_that_a_stage_depends_on_reaches_its_rule(stage: str, rules: dict[str, Any]) -> None:
    own = {key for key in LEAVES if key not in SECTIONS and is_within(key, STAGES[stage].settings)}
    read = set().union(*(reads(stage, settings, rules) for settings in cases_of(stage)))
    assert own - read == set()


def test_the_machine_is_no_parameter(rules: dict[str, Any]) -> None:
    assert {"evaluate", "summarize", "follow_training", "extract_features_of_shard"} <= set(rules)
    for rule in rules.values():
        read, _ = told(rule.params, CASES["plain"], rule.name)
        assert not {key for key in read if is_within(key, ("machine", "shards"))}, rule.name


def test_rules_of_shards_are_told_the_same(rules: dict[str, Any]) -> None:
    shared = [name for name in rules if name.endswith("_of_shard")]
    assert len(shared) == 4
    for name in shared:
        whole = name.removesuffix("_of_shard")
        for settings in CASES.values():
            assert told(rules[name].params, settings, whole) == told(
                rules[whole].params, settings, whole
            )
