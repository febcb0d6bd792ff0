"""Scratch of interrupted work is taken up where it belongs to the same inputs, and only there."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests.script import Job, run_job
from tests.training.runs import FINETUNING, MODEL, VIEW
from unic.images.decoded import open_decoded
from unic.images.index import write_index
from unic.models.backbones import load_backbone, save_backbone
from unic.storage.resumption import resumption_key
from unic.storage.row_files import BLOCK_ROWS
from unic.storage.stores import open_store, write_derived, write_features, write_known_labels

N_IMAGES, N_FEW = 2 * BLOCK_ROWS + 76, 48
IDS = [f"{row:04}.ppm" for row in range(N_IMAGES)]
KILLED = -9
DATA = {"source": {"name": "folder", "view": VIEW}, "code": "0"}
BACKBONE = {"name": "test_vit", "options": {"img_size": 32}, "network": "auto"}
BACKBONE |= dict.fromkeys(("weights", "start"), "a file")
VIEWS = {"augmentation": "scan", "n_views": 1, "dtype": "float16", "precision": "float32"}
TOKENS = DATA | BACKBONE | {"views": VIEWS, "all_tokens": False, "is_frozen": False}
SIMGCD = {
    "epochs": 3,
    "batch_size": 12,
    "learning_rate": 0.05,
    "weight_decay": 5e-5,
    "supervised_weight": 0.35,
    "entropy_weight": 2.0,
    "student_temperature": 0.1,
    "first_teacher_temperature": 0.07,
    "teacher_temperature": 0.04,
    "teacher_epochs": 2,
    "seed": 0,
}
TRAINED = (
    DATA
    | BACKBONE
    | {
        "augmentation": "scan",
        "precision": "float32",
        "draw": "once",
        "pool": {"pool": "far", "labeled_share": 0.0, "exclude_known_same_label": True},
        "model": MODEL,
        "n_heads": 1,
        "snapshot_every": None,
        "finetuning": FINETUNING | {"epochs": 3},
    }
)
MINED = {
    "n_neighbors": 5,
    "far_rank": 20,
    "metric": "euclidean",
    "far_radius": "exact",
    "engine": "exact",
    "code": "0",
}
PARTS = [f"parts/{shard}_of_2.json" for shard in range(2)]
PHOTO = "photos/0003.ppm"
WEIGHTS, ROWS, BLOCKS = "weights.safetensors", "images.parquet", "blocks are there already"
FEW = {"images": "few.parquet", "known_labels": "known_labels.zarr/zarr.json"}
STORES = {kind: f"{kind}.zarr/zarr.json" for kind in ("positives", "negatives")}
EPOCHS = "the training goes on after epoch 1"


class Stage(NamedTuple):
    """A stage whose work can be interrupted, and what may change while it is."""

    script: str
    input: Mapping[str, Any]
    output: Mapping[str, str]
    params: Mapping[str, Any]
    kill_at: tuple[str, int]  # pattern of the scratch, and the time that it is replaced
    says: str  # in the log, where it goes on
    changes: tuple[str, ...]  # inputs, one after the other; a photo last, whose ctime will differ


STAGES = {
    "decode_images": Stage(
        "images/decode_images.py",
        {"images": ROWS},
        {"header": "decoded.json"},
        {"data": "folder", "size": 32, "code": "0"},
        (".decoded.part.json", 2),
        BLOCKS,
        (PHOTO,),
    ),
    "extract_features": Stage(
        "features/extract_features.py",
        {"images": ROWS, "backbone": WEIGHTS},
        {"features": "embedded.zarr/zarr.json"},
        TOKENS | {"precision": "float32"},
        (".train.part.json", 2),
        BLOCKS,
        (WEIGHTS, PHOTO),
    ),
    "extract_tokens": Stage(
        "features/extract_tokens.py",
        {"images": ROWS, "backbone": WEIGHTS},
        {"header": "tokens.json"},
        TOKENS,
        (".tokens.part.json", 2),
        BLOCKS,
        (WEIGHTS, PHOTO),
    ),
    "extract_tokens of decoded images": Stage(
        "features/extract_tokens.py",
        {"images": ROWS, "backbone": WEIGHTS, "decoded": "decoded.json"},
        {"header": "tokens.json"},
        TOKENS,
        (".tokens.part.json", 2),
        BLOCKS,
        ("decoded",),
    ),
    "extract_views": Stage(
        "features/extract_tokens.py",
        {"images": ROWS, "backbone": WEIGHTS},
        {"header": "views.json"},
        TOKENS | {"is_frozen": True},
        (".views.part.json", 2),
        BLOCKS,
        (WEIGHTS, PHOTO),
    ),
    "join_tokens": Stage(
        "features/extract_tokens.py",
        {"images": ROWS, "parts": PARTS},
        {"header": "tokens.json"},
        TOKENS,
        (".tokens.part.json", 2),
        BLOCKS,
        ("parts",),
    ),
    "finetune": Stage(
        "training/finetune.py",
        FEW | STORES | {"backbone": WEIGHTS},
        {"model": "model.safetensors", "history": "history.csv"},
        TRAINED,
        ("model.safetensors.checkpoint", 2),
        EPOCHS,
        (WEIGHTS, "negatives.zarr", PHOTO),
    ),
    "pretrain_simgcd": Stage(
        "training/pretrain_simgcd.py",
        FEW | {"backbone": WEIGHTS},
        {
            "backbone": "backbone.safetensors",
            "classifier": "classifier.safetensors",
            "history": "history.csv",
        },
        DATA
        | BACKBONE
        | {"augmentation": "scan", "precision": "float32", "n_clusters": 4, "simgcd": SIMGCD},
        ("backbone.safetensors.checkpoint", 2),
        EPOCHS,
        (WEIGHTS, "known_labels.zarr", PHOTO),
    ),
    "mine_neighbors": Stage(
        "neighbors/mine_neighbors.py",
        {"features": "features.zarr/zarr.json"},
        {"neighbors": "neighbors.zarr/zarr.json"},
        MINED,
        ("neighbors.zarr", 1),
        f"found {N_FEW} of {N_FEW} rows",
        ("features.zarr",),
    ),
}


def make_job(stage: Stage, given: Path, out: Path) -> Job:
    def place(name: Any) -> Any:
        return str(given / name) if isinstance(name, str) else [str(given / n) for n in name]

    root = {"root": str(given / "photos")}
    params = dict(stage.params) | root
    params["source"] = params.get("source", {}) | root
    return Job(
        stage.script,
        {name: place(path) for name, path in stage.input.items()},
        {name: str(out / path) for name, path in stage.output.items()},
        params,
        str(out / "log"),
        {"seed": "3"},
    )


def write_inputs(folder: Path, seed: int) -> None:
    """All that the stages read, other content for each seed."""
    generator = np.random.default_rng(seed)
    (folder / "photos").mkdir(parents=True)
    for image_id in IDS:
        pixels = generator.integers(256, size=(8, 8, 3), dtype=np.uint8)
        (folder / "photos" / image_id).write_bytes(b"P6 8 8 255\n" + pixels.tobytes())
    for name, ids in ((ROWS, IDS), ("few.parquet", IDS[:N_FEW])):
        write_index(folder / name, {"train": ids}, name="folder", root=str(folder / "photos"))
    options = {"img_size": 32}
    backbone = load_backbone(
        "test_vit", weights="random", options=options, image_size=32, seed=seed
    )
    save_backbone(folder / WEIGHTS, backbone)
    few = IDS[:N_FEW]
    known = np.where(np.arange(N_FEW) < 8, generator.integers(2, size=N_FEW), -1)
    write_known_labels(folder / "known_labels.zarr/zarr.json", known, few)
    features = generator.normal(size=(N_FEW, 6)).astype(np.float32)
    manifest = folder / "features.zarr/zarr.json"
    write_features(manifest, {"train": features}, {"train": few}, backbone="x")
    store = open_store(manifest, kind="features")
    order = generator.permuted(np.tile(np.arange(N_FEW), (N_FEW, 1)), axis=1)
    arrays = {
        "union_size": np.full(N_FEW, 5, dtype=np.int32),
        "is_clean": np.full(N_FEW, True),
        "reciprocity": np.ones(N_FEW, dtype=np.float32),
        "indices": order[:, :5],
    }
    write_derived(folder / STORES["positives"], "positives", arrays, of=store, parameters={})
    arrays = {"indices": order[:, 5:20]}
    write_derived(folder / STORES["negatives"], "negatives", arrays, of=store, parameters={})
    assert run_job(make_job(STAGES["decode_images"], folder, folder)) == 0
    for shard, part in enumerate(PARTS):
        job = make_job(STAGES["extract_tokens"], folder, folder)
        job = job._replace(
            output={"header": str(folder / part)},
            wildcards={"shard": str(shard), "n_shards": "2"},
        )
        assert run_job(job) == 0


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Inputs of all stages in two versions."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed, name in enumerate(("first", "second")):
        write_inputs(folder / "given", seed)
        (folder / "given").rename(folder / name)  # under one path, which headers hold
    return folder / "first", folder / "second"


def change(given: Path, second: Path, name: str) -> None:
    """Put the second version of an input in the place of the first, with the time of the first."""
    for target in given.glob(f"{name}*"):
        source = second / target.relative_to(given)
        before = target.stat()
        target.rename(f"{target}.kept")
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_back(given: Path, name: str) -> None:
    for kept in given.glob(f"{name}*.kept"):
        target = kept.with_suffix("")
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        kept.rename(target)


def outputs(folder: Path) -> dict[str, bytes]:
    """Content of all files but the log, without what holds times."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "log"]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    if "history.csv" in found:
        history = pd.read_csv(folder / "history.csv").drop(
            columns="images_per_second", errors="ignore"
        )
        found["history.csv"] = history.to_csv().encode()
    return found


@pytest.mark.parametrize("name", STAGES)
def test_killed_work_goes_on_with_the_same_inputs_and_starts_anew_with_others(
    name: str, inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    stage, given = STAGES[name], tmp_path / "given"
    shutil.copytree(inputs[0], given)

    def run(out: str, **arguments: Any) -> int:
        return run_job(make_job(stage, given, tmp_path / out), **arguments)

    assert run("killed", kill_at=stage.kill_at) == KILLED
    for out in ("same", *stage.changes):
        shutil.copytree(tmp_path / "killed", tmp_path / "again" / out)
    assert run("again/same") == 0
    assert stage.says in (tmp_path / "again" / "same" / "log").read_text()
    assert run("whole/same") == 0
    assert outputs(tmp_path / "again/same") == outputs(tmp_path / "whole/same")
    for changed in stage.changes:
        change(given, inputs[1], changed)
        assert run(f"again/{changed}") == 0
        assert run(f"whole/{changed}") == 0
        expected = outputs(tmp_path / "whole" / changed)
        assert outputs(tmp_path / "again" / changed) == expected
        assert expected != outputs(tmp_path / "whole/same")
        log = (tmp_path / "again" / changed / "log").read_text()
        assert "anew" in log
        assert stage.says not in log
        change_back(given, changed)


# The key


def test_the_key_changes_with_settings_and_the_content_of_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a")
    second.write_text("b")
    settings = {"epochs": 3, "nested": {"b": 1, "a": None}}
    key = resumption_key(settings, files=[first, second])
    assert key == resumption_key(dict(reversed(settings.items())), files=[first, second])
    second.touch()
    assert key == resumption_key(settings, files=[first, second])
    others = {
        resumption_key(settings | {"epochs": 4}, files=[first, second]),
        resumption_key(settings, files=[first]),
        resumption_key(settings, files=[second, first]),
    }
    second.write_text("c")
    others.add(resumption_key(settings, files=[first, second]))
    assert len(others | {key}) == 5


def test_the_key_changes_with_any_weight_wherever_it_is_from() -> None:
    def key(module: nn.Module) -> str:
        return resumption_key({}, network=module)

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(torch.bfloat16)
    before = key(module)
    assert key(module.to(memory_format=torch.channels_last)) == before
    found = {before}
    for tensor in module.state_dict().values():  # running statistics among them
        tensor += 1
        found.add(key(module))
    assert len(found) == 1 + len(module.state_dict())
    assert key(module.float()) not in found


def test_decoded_images_are_told_apart_by_their_header(inputs: tuple[Path, Path]) -> None:
    first, second = (open_decoded(str(folder / "decoded.json"), IDS) for folder in inputs)
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() == resumption_key({}, files=[inputs[0] / "decoded.json"])
