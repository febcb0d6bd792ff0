"""A copy of the project that runs Snakemake as a user would, on a small experiment."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.project import COPIED, Project, copy_project


@pytest.fixture
def fresh_project(tmp_path: Path) -> Project:
    return copy_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small experiment, run to its end; tests must leave it as it is."""
    project = copy_project(tmp_path_factory.mktemp("finished") / "project")
    project.run("results/tiny/metrics.json")
    return project


@pytest.fixture
def edited_project(finished_project: Project) -> Iterator[Project]:
    """The finished experiment, whose code and settings a test may change; they are put back."""
    folder = finished_project.folder
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("results", ".snakemake", "logs"))
    yield finished_project
    for name in (*COPIED, "config"):
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        source = kept / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    shutil.rmtree(kept)
