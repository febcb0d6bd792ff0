"""What Snakemake would run: in a fresh clone, after a run, and after each kind of change."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.configurations import SCHEMA, read_config
from tests.workflow.project import Project, copy_project
from unic.experiments.settings import resolve_experiments
from unic.features.cached_views import CachedViews
from unic.inspection.neighbors import inspect_images, open_artifacts
from unic.inspection.sheets import read_pixels
from unic.models.trained import load_model
from unic.storage.stores import open_store
from unic.storage.tensor_files import read_tensors, save_tensors

pytestmark = pytest.mark.workflow
TARGET = "results/tiny/metrics.json"
DIGITS = "config/experiments/digits.yaml"
GIVEN = """\
experiments:
  listed:
    base: digits
    data: {name: manifest, manifest: list.csv, root: photos}
    n_clusters: 3
    neighbors: {far_rank: 20, n_neighbors: 5}
    backbone: {weights: random}
  labeled:
    base: listed
    data: {name: folder, manifest: null, label_file: labels.csv}
  weighted:
    base: digits
    backbone: {weights: weights.safetensors}
"""
AFTER_TRAINING = {
    "predict": 1,
    "evaluate": 1,
    "cluster_features": 1,  # of the finetuned features
    "summarize": 1,
}


def edit(project: Project, path: str, pattern: str, replacement: str) -> None:
    file = project.folder / path
    text, n_changes = re.subn(pattern, replacement, file.read_text(), count=1)
    assert n_changes == 1
    file.write_text(text)


def test_fresh_clone_plans_imagenet200_without_data(fresh_project: Project) -> None:
    assert fresh_project.plan("results/imagenet200/metrics.json") == {
        "index_images": 1,
        "split_labels": 1,
        "extract_features": 1,
        "mine_neighbors": 1,
        "clean_neighbors": 1,
        "index_negatives": 1,
        "finetune": 3,
        "predict": 3,
        "evaluate": 1,
        "cluster_features": 2,
        "summarize": 1,
    }


def test_every_experiment_and_table_plans(fresh_project: Project) -> None:
    config = read_config()
    experiments = resolve_experiments(config, SCHEMA)
    for settings in experiments.values():
        weights = settings["backbone"]["weights"]
        if weights.startswith("data/"):  # released checkpoints, which a plan does not open
            (fresh_project.folder / weights).parent.mkdir(parents=True, exist_ok=True)
            (fresh_project.folder / weights).touch()
    targets = [f"results/{name}/metrics.json" for name in experiments]
    tables = [f"results/tables/{name}.md" for name in config["tables"]]
    planned = fresh_project.plan(*targets, *tables)
    assert planned["summarize"] == planned["evaluate"] == len(experiments) > 40
    assert planned["collect_table"] == len(tables) == 13
    assert planned["mine_neighbors"] < len(experiments) / 2  # ablations share


def test_a_table_runs_its_experiments_and_shares_their_neighbors(fresh_project: Project) -> None:
    planned = fresh_project.plan("results/tables/table3.md")
    assert planned["summarize"] == 6
    assert planned["finetune"] == 18
    assert planned["extract_features"] == planned["mine_neighbors"] == 1
    assert planned["index_negatives"] == planned["clean_neighbors"] == 1


def test_gcd_shares_mining_with_clustering(fresh_project: Project) -> None:
    both = fresh_project.plan("results/digits/metrics.json", "results/digits_gcd/metrics.json")
    assert both["mine_neighbors"] == both["extract_features"] == 1
    assert both["index_negatives"] == 2
    assert both["finetune"] == 6
    assert both["cluster_semi_supervised"] == 1  # of GCD alone


def test_a_map_takes_features_and_neighbors_alone(fresh_project: Project) -> None:
    stages = ("index_images", "extract_features", "mine_neighbors", "map_images")
    assert fresh_project.plan("results/digits/map.zarr/zarr.json") == dict.fromkeys(stages, 1)


def test_simgcd_goes_before_the_features_and_is_scored(fresh_project: Project) -> None:
    planned = fresh_project.plan("results/digits_gcd_simgcd/metrics.json")
    assert planned["pretrain_simgcd"] == planned["predict_simgcd"] == 1
    assert planned["cluster_semi_supervised"] == planned["extract_features"] == 1
    assert "pretrain" not in planned
    assert "pretrain_simgcd" not in fresh_project.plan("results/digits_gcd/metrics.json")
    cached = "views: {n_views: 4}\n    backbone:\n      weights: pretrain\n    pretraining:"
    edit(fresh_project, DIGITS, r"backbone:\n      weights: pretrain\n    pretraining:", cached)
    planned = fresh_project.plan("results/digits_gcd_simgcd/simgcd/classifier.safetensors")
    assert planned == {
        "index_images": 1,
        "split_labels": 1,
        "extract_tokens": 1,
        "pretrain_simgcd": 1,
    }


def test_cached_views_and_negatives_within_the_batch_have_their_own_inputs(
    fresh_project: Project,
) -> None:
    edit(fresh_project, "config/tiny.yaml", "seeds: ", "views: {n_views: 2}\n    seeds: ")
    settings = fresh_project.folder / "config/tiny.yaml"
    settings.write_text(settings.read_text() + "    negatives: {draw: in_batch}\n")
    planned = fresh_project.plan(TARGET, "results/tiny/seed0/progress.csv")
    assert planned["extract_tokens"] == planned["follow_training"] == planned["finetune"] == 1
    assert planned["mine_neighbors"] == 1
    assert "index_negatives" not in planned


def test_a_frozen_backbone_trains_on_features(fresh_project: Project) -> None:
    edit(fresh_project, "config/tiny.yaml", "epochs: 1", "trainable: null\n      epochs: 1")
    edit(fresh_project, "config/tiny.yaml", "seeds: ", "views: {augmentation: null}\n    seeds: ")
    planned = fresh_project.plan(TARGET)
    assert planned["extract_features"] == planned["finetune"] == 1
    assert not planned.keys() & {"extract_tokens", "extract_views"}
    assert planned["cluster_features"] == 1  # there are no finetuned ones


@pytest.mark.slow
def test_shards_give_the_artifacts_of_one_job(fresh_project: Project, tmp_path: Path) -> None:
    whole = copy_project(tmp_path / "whole")
    whole.run("results/digits/neighbors.zarr/zarr.json")
    edit(fresh_project, "config/config.yaml", "defaults:\n", "defaults:\n  shards: 2\n")
    edit(fresh_project, "config/tiny.yaml", "epochs: 1", "trainable: null\n      epochs: 1")
    edit(fresh_project, "config/tiny.yaml", "seeds: ", "views: {n_views: 2}\n    seeds: ")
    targets = "results/digits/neighbors.zarr/zarr.json", "results/tiny/views.json"
    planned = fresh_project.plan(*targets)
    for stage in ("extract_features", "extract_views", "mine_neighbors"):
        assert planned[f"{stage}_of_shard"] == 2
        assert planned[stage] == 1
    fresh_project.run(*targets)
    folder = fresh_project.folder / "results"
    for name in ("digits/features.zarr", "digits/neighbors.zarr"):  # which the experiments share
        assert read_files(folder / name) == read_files(whole.folder / "results" / name)
    assert CachedViews(folder / "tiny/views.json", device=torch.device("cpu")).layout.n_views == 2
    assert not [path for path in folder.rglob("*_of_*") if path.is_file()]
    assert fresh_project.plan(*targets) == {}


def read_files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_decoded_images_are_made_once(fresh_project: Project) -> None:
    edit(fresh_project, "config/tiny.yaml", "seeds: ", "data: {decoded: 32}\n    seeds: ")
    planned = fresh_project.plan(TARGET)
    assert planned["decode_images"] == planned["extract_features"] == planned["finetune"] == 1


def test_second_run_does_nothing(finished_project: Project) -> None:
    assert finished_project.plan(TARGET) == {}


def test_shared_stages_are_where_the_summary_says(finished_project: Project) -> None:
    results = finished_project.folder / "results"
    artifacts = open_artifacts(results / "tiny")
    assert artifacts.neighbors.path == results / "digits" / "neighbors.zarr"
    assert artifacts.positives is not None
    assert artifacts.negatives is not None
    assert artifacts.known_labels is not None
    (anchor,) = inspect_images(artifacts, [12])
    assert read_pixels([anchor], artifacts)[12].shape == (8, 8, 3)


def test_touched_files_rerun_nothing(finished_project: Project) -> None:
    for path in finished_project.folder.rglob("*.py"):
        path.touch()
    assert finished_project.plan(TARGET) == {}


def test_new_eta_reruns_cleaning_and_later(edited_project: Project) -> None:
    edit(
        edited_project,
        DIGITS,
        r"max_union_size: \d+",
        "max_union_size: 90",
    )
    assert edited_project.plan(TARGET) == {"clean_neighbors": 1, "finetune": 1} | AFTER_TRAINING


def test_negatives_redrawn_each_epoch_are_not_indexed(edited_project: Project) -> None:
    settings = edited_project.folder / "config/tiny.yaml"
    settings.write_text(settings.read_text() + "    negatives: {draw: each_epoch}\n")
    assert edited_project.plan(TARGET) == {"finetune": 1} | AFTER_TRAINING
    with settings.open("a") as file:
        file.write("    neighbors: {metric: cosine}\n")
    planned = edited_project.plan(TARGET)
    assert planned["mine_neighbors"] == 1
    assert "index_negatives" not in planned


def test_other_content_reruns_whatever_its_time(fresh_project: Project) -> None:
    folder = fresh_project.folder
    (folder / "config/tiny.yaml").write_text(GIVEN)
    images = folder / "photos"
    images.mkdir()
    names = [f"{row}.png" for row in range(30)]
    for name in names:
        Image.new("RGB", (8, 8)).save(images / name)
    lines = ["path,label", *(f"{name},{row % 3}" for row, name in enumerate(names))]
    for name in ("list.csv", "labels.csv"):
        (folder / name).write_text("\n".join(lines))
    bundled = folder / "unic/models/bundled/digits_test_resnet.safetensors"
    weights = folder / "weights.safetensors"
    shutil.copyfile(bundled, weights)
    targets = (
        *(f"results/{name}/labels.zarr/zarr.json" for name in ("listed", "labeled")),
        "results/weighted/features.zarr/zarr.json",
    )
    fresh_project.run(*targets)
    assert fresh_project.plan(*targets) == {}
    lines[1] = "0.png,1"
    for name in ("list.csv", "labels.csv"):
        (folder / name).write_text("\n".join(lines))
        os.utime(folder / name, (0, 0))
    assert fresh_project.plan(*targets) == {"index_images": 1, "split_labels": 2}
    fresh_project.run(*targets)
    save_tensors(weights, {k: tensor * 2 for k, tensor in read_tensors(bundled).tensors.items()})
    os.utime(weights, (0, 0))
    assert fresh_project.plan(*targets) == {"extract_features": 1}
    weights.unlink()
    missing = fresh_project.snakemake("--dry-run", targets[2])
    assert "Missing input files" in missing.stdout + missing.stderr


@pytest.mark.parametrize("draw", ["once", "in_batch"])
def test_centered_heads_take_the_features_that_were_mined(
    draw: str, edited_project: Project
) -> None:
    own = f"base: tiny\n    negatives: {{draw: {draw}}}\n    finetuning: {{head_norm: center}}"
    settings = edited_project.folder / "config/tiny.yaml"
    settings.write_text(settings.read_text() + f"  centered_{draw}:\n    {own}\n")
    edited_project.run(f"results/centered_{draw}/seed0/predictions.parquet")
    results = edited_project.folder / "results"
    head = load_model(results / f"centered_{draw}/seed0/model.safetensors").head
    store = open_store(results / "digits/features.zarr", kind="features")
    mean = store.read("features").mean(0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(head[0].mean.numpy(), mean)


def test_edited_losses_rerun_finetuning_and_later(edited_project: Project) -> None:
    with (edited_project.folder / "unic/training/losses.py").open("a") as file:
        file.write("\nEDITED = True\n")
    assert edited_project.plan(TARGET) == {"finetune": 1} | AFTER_TRAINING


def test_edited_readme_reruns_nothing(edited_project: Project) -> None:
    with (edited_project.folder / "README.md").open("a") as file:
        file.write("\nEdited.\n")
    assert edited_project.plan(TARGET) == {}


def test_edited_mining_reruns_mining_and_later(edited_project: Project) -> None:
    with (edited_project.folder / "unic/neighbors/mining.py").open("a") as file:
        file.write("\nEDITED = True\n")
    planned = edited_project.plan(TARGET)
    assert {"mine_neighbors", "index_negatives", "clean_neighbors", "finetune"} <= set(planned)
    assert not {"index_images", "split_labels", "extract_features"} & set(planned)


def test_new_device_and_threads_rerun_nothing(edited_project: Project) -> None:
    edit(edited_project, DIGITS, r"device: cpu", "device: auto")
    edit(edited_project, DIGITS, r"threads: 1", "threads: 2")
    assert edited_project.plan(TARGET) == {}
