from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.experiments.configurations import (
    SCHEMA,
    Settings,
    example,
    merge,
    nested,
    read_config,
    resolve,
    simgcd,
)
from unic.experiments import stages
from unic.experiments.keys import setting
from unic.experiments.settings import resolve_experiments
from unic.experiments.stages import (
    PRETRAININGS,
    STAGES,
    Artifact,
    stage_owner,
    stage_owners,
    stage_settings,
)

CLUSTERINGS = ["cluster_pixels", "cluster_features", "cluster_finetuned", "cluster_semi_supervised"]


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


def test_stages_depend_on_settings_that_exist() -> None:
    resolved = resolve({"plain": example()})["plain"]
    for stage, (keys, earlier) in STAGES.items():
        for key in keys:
            setting(resolved, key)
        assert set(earlier) <= set(STAGES), stage


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


def test_the_recipe_lists_images_once_whatever_the_number_of_clusters() -> None:
    changed = changed_stages("n_clusters", 7, method="consensus")
    assert "index_images" not in changed
    assert "fit_consensus" in changed
    assert "index_images" in changed_stages("n_clusters", 7)


@pytest.mark.parametrize(
    ("key", "value", "firsts"),
    [
        ("cleaning.max_union_size", 50, ["clean_neighbors"]),
        ("cleaning.quantile", 0.7, ["clean_neighbors"]),
        ("neighbors.n_neighbors", 20, ["mine_neighbors"]),
        ("neighbors.engine", "faiss_ivf", ["mine_neighbors"]),
        ("negatives.draw", "each_epoch", ["finetune"]),
        ("neighbors.far_rank", 900, ["mine_neighbors", "index_images"]),
        ("negatives.seed", 3, ["index_negatives"]),
        ("negatives.pool", "all", ["index_negatives"]),
        ("gcd", {"old_classes": [0]}, ["split_labels"]),
        ("finetuning.lambda_ent", 5, ["finetune"]),
        ("kmeans.n_restarts", 3, CLUSTERINGS),
        ("kmeans.pixels", True, []),
        ("seeds", [0, 1, 2, 3], [*CLUSTERINGS, "cluster_by"]),
        ("backbone.options", {"img_size": 32}, ["extract_features", "extract_tokens"]),
        ("data.decoded", 256, ["decode_images"]),
        ("views.augmentation", "gcd", ["finetune", "extract_tokens", "extract_views"]),
        ("views.n_views", 4, ["finetune", "extract_tokens", "extract_views"]),
        ("views.dtype", "int8", ["finetune", "extract_tokens", "extract_views"]),
        ("views.precision", "bfloat16", ["finetune", "extract_tokens", "extract_views"]),
        ("finetuning.head", "self_attention", ["finetune", "extract_tokens"]),
        ("finetuning.train_final_norm", True, ["finetune"]),
        ("finetuning.n_heads", 3, ["finetune"]),
        ("finetuning.head_norm", "rms", ["finetune"]),
        ("finetuning.head_norm", "center", ["finetune"]),
        ("machine.processes", 2, []),
        ("machine.threads", 3, []),
        ("machine.device", "cpu", []),
        ("machine.batch_size", 3, []),
        ("shards", 3, []),
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


# What rules read and are told


def resolved(*parts: Settings) -> Settings:
    settings = example()
    for part in parts:
        settings = merge(settings, part)
    return resolve({"one": settings})["one"]


CACHED, FROZEN = {"views": {"n_views": 8}}, {"finetuning": {"trainable": None}}
FIRST = simgcd(augmentation="scan", start="a.pth")  # SimGCD
TOKENS = {"tokens": Artifact("extract_tokens", "tokens.json")}
MINED = {"features": Artifact("extract_features", "features.zarr/zarr.json")}


@pytest.mark.parametrize(
    ("weights", "file"),
    [
        ({"backbone": {"weights": "hub"}}, {}),
        ({"backbone": {"weights": "random"}}, {}),
        ({"backbone": {"weights": "bundled:x"}}, {}),
        ({"backbone": {"weights": "b.pth"}}, {"backbone": "b.pth"}),
        (
            {"backbone": {"weights": "pretrain"}},
            {"backbone": Artifact("pretrain", "backbone.safetensors")},
        ),
        (FIRST, {"backbone": Artifact("pretrain_simgcd", "simgcd/backbone.safetensors")}),
    ],
)
def test_weights_are_given_or_made_by_a_stage(weights: Settings, file: stages.Files) -> None:
    settings = resolved(weights)
    assert stages.weight_files(settings) == file
    is_simgcd = weights is FIRST
    assert stages.trunk_files(settings) == ({"backbone": "a.pth"} if is_simgcd else file)
    assert stages.start_files(settings) == ({"backbone": "a.pth"} if is_simgcd else {})


def test_the_network_is_one_of_given_weights_alone() -> None:
    student = {"backbone": {"network": "student"}}
    assert stages.network(resolved(student, {"backbone": {"weights": "b.pth"}})) == "student"
    assert stages.network(resolved(student, FIRST)) == "auto"
    assert stages.trunk_weights(resolved(FIRST)) == "a.pth"
    assert stages.trunk_weights(resolved({"backbone": {"weights": "b.pth"}})) == "b.pth"


@pytest.mark.parametrize(
    ("parts", "files"),
    [
        ((), {}),
        ((CACHED,), TOKENS),
        ((FROZEN,), {}),
        ((FROZEN, CACHED), {"tokens": Artifact("extract_views", "views.json")}),
        ((FROZEN, {"views": {"augmentation": None}}), {"frozen": MINED["features"]}),
        ((FROZEN, CACHED, {"views": {"augmentation": None}}), {"frozen": MINED["features"]}),
        ((FROZEN, {"finetuning": {"head": "self_attention"}}, CACHED), TOKENS),
        (({"views": {"augmentation": None}},), {}),
    ],
)
def test_finetuning_reads_the_views_that_are_kept(
    parts: tuple[Settings, ...], files: stages.Files
) -> None:
    settings = resolved(*parts)
    assert stages.view_files(settings) == files
    assert stages.token_files(settings) == (TOKENS if CACHED in parts else {})
    is_frozen = FROZEN in parts and files != TOKENS
    assert stages.frozen_features(settings) == (MINED if is_frozen else {})


def test_finetuning_reads_a_stored_set_of_negatives_or_all_far_images() -> None:
    stored = {"negatives": Artifact("index_negatives", "negatives.zarr/zarr.json")}
    mined = MINED | {"neighbors": Artifact("mine_neighbors", "neighbors.zarr/zarr.json")}
    found = {"once": stored, "each_epoch": mined, "in_batch": mined}
    for draw, files in found.items():
        assert stages.negative_files(resolved({"negatives": {"draw": draw}})) == files


@pytest.mark.parametrize(
    ("norm", "files"), [(None, {}), ("rms", {}), ("center", MINED), ("standardize", MINED)]
)
def test_heads_that_center_read_the_features(norm: str | None, files: stages.Files) -> None:
    assert stages.norm_files(resolved({"finetuning": {"head_norm": norm}})) == files


def test_files_that_the_settings_name_are_read_where_they_do() -> None:
    listed = resolved({"data": {"name": "manifest", "manifest": "a.csv", "decoded": 256}})
    labeled = resolved({"data": {"name": "folder", "root": "x", "label_file": "b.csv"}})
    assert stages.manifest_file(listed) == {"manifest": "a.csv"}
    assert stages.label_file(labeled) == {"label_file": "b.csv"}
    assert stages.manifest_file(labeled) == stages.label_file(listed) == {}
    assert stages.decoded_files(listed) == {"decoded": Artifact("decode_images", "decoded.json")}
    assert stages.decoded_files(labeled) == {}


def test_evaluation_reads_the_predictions_of_all_methods_that_are_run() -> None:
    def methods(*parts: Settings) -> list[str]:
        found = stages.all_predictions(resolved({"seeds": [3, 5]}, *parts))
        own = [Artifact("predict", f"seed{seed}/predictions.parquet") for seed in (3, 5)]
        assert found[:2] == own
        return [stage for stage, _ in found[2:]]

    assert methods() == ["cluster_features", "cluster_finetuned"]
    assert methods(FROZEN, {"kmeans": {"pixels": True}}) == ["cluster_features", "cluster_pixels"]
    assert methods(FROZEN, {"gcd": {"old_classes": [0]}}, FIRST) == [
        *("cluster_features", "predict_simgcd", "cluster_semi_supervised"),
    ]
    assert methods(FROZEN, {"methods": ["ward", "scan"]})[1:] == ["cluster_by", "cluster_by"]


def test_what_is_packed_is_of_the_recipe_or_of_a_training() -> None:
    seeds = {"seeds": [3, 5]}
    recipe = resolved(seeds, {"method": "consensus"})
    assert stages.learned_files(recipe) == {
        "models": [Artifact("fit_consensus", f"seed{s}/consensus.safetensors") for s in (3, 5)]
    }
    assert stages.learned_files(resolved(seeds)) == {
        "models": [Artifact("finetune", f"seed{s}/model.safetensors") for s in (3, 5)],
        "features": [Artifact("predict", f"seed{s}/features.zarr/zarr.json") for s in (3, 5)],
        "predictions": [Artifact("predict", f"seed{s}/predictions.parquet") for s in (3, 5)],
    }


def test_clusters_are_named_where_they_start_from_labels() -> None:
    assert stages.has_named_clusters(resolved({"method": "consensus"}))
    assert stages.has_named_clusters(resolved({"finetuning": {"start": "consensus"}}))
    assert not stages.has_named_clusters(resolved({}))


def test_a_method_is_a_module_that_is_there() -> None:
    schema = Path(__file__).parents[2] / "workflow" / "schemas" / "config.schema.yaml"
    known = yaml.safe_load(schema.read_text())["$defs"]["experiment"]["properties"]["methods"]
    assert sorted(known["items"]["enum"]) == sorted(stages.METHODS)
    for method, path in stages.METHODS.items():
        assert (Path(stages.__file__).parents[1] / path).is_file()
        assert stages.method_module({}, method) == f"unic.{path[:-3].replace('/', '.')}"


def test_k_means_clusters_one_store_or_one_a_seed() -> None:
    settings = resolved({"seeds": [3, 5]})
    assert stages.clustered_features(settings, "features") == [MINED["features"]]
    assert [stage for stage, _ in stages.clustered_features(settings, "pixels")] == [
        "extract_pixels"
    ]
    assert stages.clustered_features(settings, "finetuned") == [
        Artifact("predict", f"seed{seed}/features.zarr/zarr.json") for seed in (3, 5)
    ]


def test_trainings_are_told_their_own_settings() -> None:
    settings = resolved({})
    finetuning, model = stages.finetuning(settings), stages.model(settings)
    kept_elsewhere = {"n_heads", "snapshot_every", "start"}
    assert finetuning.keys() | model.keys() | kept_elsewhere >= settings["finetuning"].keys()
    assert not finetuning.keys() & model.keys()
    assert stages.simgcd(settings) == {
        key: value
        for key, value in settings["pretraining"]["simgcd"].items()
        if key not in ("start", "augmentation")
    }


def test_artifacts_are_placed_with_their_owners() -> None:
    experiments = resolve({"a": example(), "b": {"base": "a", "finetuning": {"epochs": 3}}})
    decided = {"mined": MINED, "models": [Artifact("finetune", "model")], "size": 3, "none": None}
    assert stages.place(decided, experiments, "b") == {
        "mined": {"features": "results/a/features.zarr/zarr.json"},
        "models": ["results/b/model"],
        "size": 3,
        "none": None,
    }


def test_jobs_take_gpus_and_threads_where_they_have_work_for_them() -> None:
    machine = {"machine": {"processes": 4, "threads": 6}}
    settings = resolved(machine)
    assert (stages.gpus(settings), stages.training_gpus(settings)) == (1, 4)
    assert stages.joining_gpus(settings) == 1
    assert stages.joining_gpus(resolved(machine, {"shards": 2})) == 0
    assert stages.training_gpus(resolved(machine, {"machine": {"device": "cpu"}})) == 0
    assert stages.index_threads(settings) == 1
    assert stages.index_threads(resolved(machine, {"data": {"bad_images": "skip"}})) == 6


def test_a_table_names_each_experiment_once() -> None:
    rows = [{"name": "a", "experiment": "x"}, {"name": "b"}, {"name": "c", "experiment": "x"}]
    assert stages.experiments_of_table({"rows": rows}) == ["x"]


def test_a_figure_names_each_experiment_once() -> None:
    panels = {"a": {"x": "one", "y": ["two", "one"]}, "b": {"x": ["three"]}}
    assert stages.experiments_of_figure({"panels": panels}) == ["one", "two", "three"]


def test_scores_over_epochs_need_snapshots() -> None:
    settings = resolved({"seeds": [3, 5], "finetuning": {"snapshot_every": 2}})
    files = stages.progress_files(settings, "toy")
    assert files == ["results/toy/seed3/progress.csv", "results/toy/seed5/progress.csv"]
    for others in (resolved(), resolved({"method": "consensus"})):
        with pytest.raises(ValueError, match=r"toy must keep snapshots .*snapshot_every"):
            stages.progress_files(others, "toy")


@pytest.mark.parametrize(
    ("data", "is_sure"),
    [
        ({"name": "digits"}, True),
        ({"name": "folder", "root": "a"}, False),
        ({"name": "folder", "root": "a", "label_file": "b.csv"}, True),
        ({"name": "manifest", "manifest": "a.csv"}, False),
    ],
)
def test_clusters_take_the_place_of_classes_that_may_be_missing(
    data: Settings, is_sure: bool
) -> None:
    settings = resolved({"data": data, "seeds": [1, 4]})
    assert stages.has_labels(settings) == is_sure
    assert stages.seeds_for_classes(settings) == ([] if is_sure else [1, 4])


def test_gcd_has_examples_of_old_and_of_new_classes() -> None:
    assert stages.paper_figures(resolved()) == ["4", "8", "9", "10", "12", "13"]
    gcd = resolved({"gcd": {"old_classes": [0]}})
    assert stages.paper_figures(gcd) == ["4", "8", "9", "10", "13", "14", "15"]
