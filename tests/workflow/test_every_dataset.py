"""Every data set, from a small copy of its own files to its scores."""

import json
from typing import Any

import pytest
import yaml

from tests.tiny import WRITERS, Tiny
from tests.workflow.project import Project, copy_project

pytestmark = [pytest.mark.workflow, pytest.mark.datasets]
SMALL: dict[str, Any] = {
    "n_clusters": 5,
    "seeds": [0],
    "backbone": {"name": "test_resnet", "weights": "random"},
    "neighbors": {"n_neighbors": 3, "far_rank": 12},
    "negatives": {"draw": "in_batch"},  # a stage less
    "views": {"augmentation": "gcd"},
    "finetuning": {"epochs": 1, "head_width": 16, "batch_size": 10},
    "kmeans": {"n_restarts": 1},
    "machine": {"device": "cpu", "threads": 1},
}
LAYOUTS = [layout for layout in WRITERS if " " not in layout]
# Old classes of the others are listed for more classes than the small copies have.
WITH_PUBLISHED = ["cifar10", "imagenet100_gcd", "imagenet1k"]


def experiment(tiny: Tiny) -> dict[str, Any]:
    data = {"name": tiny.name, "root": tiny.root, "manifest": tiny.manifest, "image_size": 32}
    is_gcd = tiny.name in WITH_PUBLISHED
    n_clusters = len(tiny.class_names) if is_gcd else SMALL["n_clusters"]
    gcd = {"old_classes": "published"} if is_gcd else None
    return SMALL | {"data": data, "gcd": gcd, "n_clusters": n_clusters}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("every")
    experiments = {f"tiny_{name}": experiment(WRITERS[name](folder / name)) for name in LAYOUTS}
    project = copy_project(folder / "project")
    text = yaml.safe_dump({"experiments": experiments})
    (project.folder / "config" / "tiny.yaml").write_text(text)
    project.run(*(f"results/{name}/metrics.json" for name in experiments))
    return project


@pytest.mark.parametrize("name", LAYOUTS)
def test_scores_of_every_data_set(name: str, finished: Project) -> None:
    text = (finished.folder / "results" / f"tiny_{name}" / "metrics.json").read_text()
    metrics: dict[str, Any] = json.loads(text)
    scores = metrics["methods"]["unic"]
    if name in WITH_PUBLISHED:
        assert metrics["task"] == "gcd"
        assert set(scores) == {"unlabeled"}
        accuracies = [scores["unlabeled"][part] for part in ("all", "old", "new")]
    else:
        assert metrics["task"] == "clustering"
        assert set(scores) == {"train", "test"}
        accuracies = [scores[split]["acc"] for split in scores]
    assert all(0 <= accuracy["mean"] <= 1 for accuracy in accuracies)
