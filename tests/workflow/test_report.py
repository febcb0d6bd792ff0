"""The figures of the paper of an experiment, and the report of Snakemake: one file tells all."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.project import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
FIGURES = "results/tiny/paper_figures/index.md"
METRICS = "results/tiny/metrics.json"


@pytest.fixture(scope="module")
def drawn(finished_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished experiment with its figures, in a folder of its own."""
    folder = tmp_path_factory.mktemp("reported") / "project"
    shutil.copytree(finished_project.folder, folder)
    project = Project(folder)
    drawing = {"draw_neighbors", "draw_cleaning", "draw_examples", "list_figures"}
    assert set(project.plan(FIGURES)) == {"measure_neighbors"} | drawing  # nothing is trained
    project.run(FIGURES)
    return project


def read_variable(page: str, name: str) -> Any:
    script = rf'<script id="{name}">\s*var {name} = (.*?);\s*</script>'
    found = re.search(script, page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_figures_have_images_paths_and_data(drawn: Project) -> None:
    folder = (drawn.folder / FIGURES).parent
    names = {path.name for path in folder.iterdir()} - {"index.md", "neighbors.json"}
    numbers = ("4", "8", "9", "10", "12", "13")
    assert names == {f"figure{n}.{kind}" for n in numbers for kind in ("png", "svg", "csv")}
    shown = re.findall(r"\((figure\d+\.(?:png|csv))\)", (folder / "index.md").read_text())
    assert set(shown) <= names


def test_a_figure_that_is_not_there_is_refused(drawn: Project) -> None:
    refused = drawn.snakemake("--cores", "1", "results/tiny/paper_figures/figure14.png")
    assert refused.returncode != 0
    assert "a class that is old (GCD), none is" in refused.stderr
    unknown = drawn.snakemake("--dry-run", "results/figures/figure99.png")
    assert "unknown figure figure99, known are figure5" in unknown.stderr + unknown.stdout


def test_curves_need_snapshots(drawn: Project) -> None:
    figures = "figures: {own: {title: Own, x: epoch, panels: {a: {b: tiny}}}}\n"
    (drawn.folder / "config/own.yaml").write_text(figures)
    command = ["--dry-run", "results/figures/own.png", "--configfile", "config/own.yaml"]
    refused = drawn.snakemake(*command, "config/tiny.yaml")
    said = "figure own: tiny must keep snapshots to be drawn over epochs"
    assert said in refused.stderr + refused.stdout


def test_the_report_tells_the_experiment_in_one_file(drawn: Project) -> None:
    finished = drawn.snakemake("--report", "report.html", METRICS, FIGURES)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    page = (drawn.folder / "report.html").read_text(encoding="utf-8")
    results = read_variable(page, "results")
    by_label = {tuple(found["labels"].values()): found for found in results.values()}
    assert {("all scores",), ("page of the experiment",), ("losses, seed 0",)} <= set(by_label)
    assert {("figure losses",), ("figure confusion",), ("scores by seed",)} <= set(by_label)
    assert {("04", "thresholds"), ("08", "ranks"), ("13", "neighborhoods")} <= set(by_label)
    assert ("12", "examples") in by_label
    for found in results.values():
        assert found["caption"]
        assert found["data_uri"].startswith(("data:", "window."))
    about = unescape(by_label[("page of the experiment",)]["caption"])
    assert "The page of tiny, seeds 0" in about
    categories = read_variable(page, "categories")
    assert set(categories) == {"Experiment", "Figures of the paper"}
    assert all(list(found) == ["tiny"] for found in categories.values())
    assert "UNIC turns images into classes" in page
    # Nothing is loaded from elsewhere when the file is opened.
    assert not re.search(r"<script[^>]*\ssrc=|<link\s[^>]*href=", page)
    assert drawn.plan(METRICS, FIGURES) == {}  # and nothing runs again for it


def test_every_caption_is_used() -> None:
    root = Path(__file__).parents[2] / "workflow"
    rules = "".join(path.read_text() for path in (root / "rules").glob("*.smk"))
    used = set(re.findall(r"\.\./report/(\w+\.rst)", rules)) | {"workflow.rst"}
    assert used == {path.name for path in (root / "report").iterdir()}
