"""Every data set, from a small copy of its own files to its scores."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data.tiny import WRITERS, Tiny
from tests.workflow.project import Project, copy_project
from unic.data.classes import PUBLISHED_SPLITS

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
SMALL: dict[str, Any] = {
    "n_clusters": 5,
    "seeds": [0],
    "backbone": {"name": "test_resnet", "weights": "random"},
    "neighbors": {"n_neighbors": 3, "far_rank": 12},
    "finetuning": {"epochs": 1, "head_width": 16, "batch_size": 10, "augmentation": "gcd"},
    "kmeans": {"n_restarts": 1},
    "machine": {"device": "cpu", "threads": 1},
}
VARIANTS = ["imagenet50 flat", "stanford_cars car_ims"]
LAYOUTS = [layout for layout in WRITERS if " " not in layout or layout in VARIANTS]
# Old classes of the others are listed for more classes than the small copies have.
WITH_PUBLISHED = ["cifar10", "imagenet100_gcd", "imagenet1k"]


def experiment(tiny: Tiny) -> dict[str, Any]:
    data = {"name": tiny.name, "root": tiny.root, "manifest": tiny.manifest, "image_size": 32}
    return SMALL | {"data": data}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Tiny]]:
    folder = tmp_path_factory.mktemp("every")
    tinies = {
        layout.replace(" ", "_"): WRITERS[layout](folder / layout.replace(" ", "_"))
        for layout in LAYOUTS
    }
    experiments = {name: experiment(tiny) for name, tiny in tinies.items()}
    for name in WITH_PUBLISHED:
        n_classes = len(tinies[name].class_names)
        own = {"n_clusters": n_classes, "gcd": {"old_classes": "published"}}
        experiments[f"{name}_published"] = experiments[name] | own
    project = copy_project(folder / "project")
    text = yaml.safe_dump({"experiments": experiments})
    (project.folder / "config" / "tiny.yaml").write_text(text)
    project.run(*(f"results/{name}/metrics.json" for name in experiments))
    return project, tinies


def read_metrics(folder: Path, name: str) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "results" / name / "metrics.json").read_text())
    return metrics


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_of_every_data_set(layout: str, finished: tuple[Project, dict[str, Tiny]]) -> None:
    project, _ = finished
    metrics = read_metrics(project.folder, layout.replace(" ", "_"))
    assert metrics["task"] == "clustering"
    assert 0 <= metrics["methods"]["unic"]["test"]["acc"]["mean"] <= 1
    assert set(metrics["methods"]["unic"]) == {"train", "test"}


@pytest.mark.parametrize("name", WITH_PUBLISHED)
def test_scores_of_published_splits(name: str, finished: tuple[Project, dict[str, Tiny]]) -> None:
    project, _ = finished
    assert name in PUBLISHED_SPLITS
    metrics = read_metrics(project.folder, f"{name}_published")
    assert metrics["task"] == "gcd"
    assert set(metrics["methods"]["unic"]) == {"unlabeled"}
    assert {"all", "old", "new"} <= set(metrics["methods"]["unic"]["unlabeled"])
