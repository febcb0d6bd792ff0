"""Which rules run again after an edit of the package: those built on it, and what follows."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.project import Project, copy_project

pytestmark = pytest.mark.workflow
REPORTED = {"summarize", "collect_table"}
SCORED = {"evaluate"} | REPORTED
PREDICTED = {"predict", "cluster_features", "follow_training"} | SCORED
MINED = {"map_images", "clean_neighbors", "index_negatives", "finetune"} | PREDICTED
CACHED = {"extract_tokens", "extract_views"}
EMBEDDED = {"decode_images", "extract_features", "extract_pixels"}
EDITS = {  # module to the first rules that are built on it, and those that run after these
    "images/readers/folders.py": (
        {"index_images"},
        {"split_labels", "mine_neighbors"} | EMBEDDED | CACHED | MINED,
    ),
    "images/augmentations.py": (CACHED | {"finetune"}, PREDICTED),
    "images/views.py": (
        EMBEDDED | {"extract_views"},
        {"extract_tokens", "mine_neighbors"} | MINED,
    ),
    "features/token_layout.py": (CACHED | {"finetune"}, PREDICTED),
    "models/heads.py": ({"finetune"}, PREDICTED),
    "neighbors/exact/panels.py": ({"mine_neighbors"}, MINED),
    "neighbors/cleaning.py": ({"clean_neighbors"}, {"finetune"} | PREDICTED),
    "maps/layout.py": ({"map_images"}, set()),
    "training/losses.py": ({"finetune"}, PREDICTED),
    "baselines/kmeans.py": ({"cluster_features", "follow_training"}, SCORED),
    "evaluation/scores.py": ({"evaluate"}, REPORTED),
    "report/page.py": ({"summarize"}, {"collect_table"}),
    "report/paper_tables.py": ({"collect_table"}, set()),
    "storage/stores.py": (
        {"split_labels", "extract_features", "extract_pixels"},
        {"mine_neighbors"} | MINED,
    ),
    "runtime/shards.py": (
        {"extract_features"} | CACHED,
        {"mine_neighbors"} | MINED,
    ),
}
NO_STAGE = ("cli.py", "inspection/text.py", "experiments/stages.py", "runtime/forking.py")
EXPERIMENTS = """\
experiments:
  tiny:
    base: digits
    seeds: [0]
  cached:
    base: tiny
    data: {decoded: 32}
    views: {n_views: 2}
    finetuning: {snapshot_every: 1}
  frozen:
    base: tiny
    views: {n_views: 2}
    finetuning: {trainable: null}
tables:
  own:
    title: Own
    columns: {ACC: acc}
    rows: [{name: tiny, experiment: tiny}]
"""
TARGETS = (
    *(f"results/{name}/metrics.json" for name in ("tiny", "cached", "frozen")),
    *("results/cached/seed0/progress.csv", "results/tables/own.md"),
    "results/tiny/map.zarr/zarr.json",
)


@pytest.fixture(scope="module")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A job of every rule, all done as far as Snakemake can tell: the files are made up."""
    project = copy_project(tmp_path_factory.mktemp("reruns") / "project")
    (project.folder / "config/tiny.yaml").write_text(EXPERIMENTS)
    for rules in (project.folder / "workflow/rules").glob("*.smk"):  # a plan then names the rules
        rules.write_text(re.sub(r"    message:\n        .*\n", "", rules.read_text()))
    planned = project.snakemake("--summary", *TARGETS)
    _, *lines = planned.stdout.splitlines()
    for path in (project.folder / line.partition("\t")[0] for line in lines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name) if path.suffix else path.mkdir()
    project.run("--touch", "--forceall", *TARGETS)
    return project


@pytest.fixture
def package(finished_project: Project) -> Iterator[Path]:
    """The package of the finished project, which a test may edit; it is put back."""
    package = finished_project.folder / "unic"
    kept = {path: path.read_bytes() for path in package.rglob("*.py")}
    yield package
    for path, content in kept.items():
        path.write_bytes(content)


def find_reruns(project: Project) -> tuple[set[str], set[str]]:
    """Names of the rules that run for their code alone, and of those whose input these make."""
    finished = project.snakemake("--dry-run", *TARGETS)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    jobs = re.findall(r"^rule (\w+):$.*?^    reason: ([^\n]*)$", finished.stdout, re.M | re.S)
    changed = {rule for rule, reason in jobs if "Params have changed" in reason}
    return changed, {rule for rule, _ in jobs} - changed


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")


@pytest.mark.parametrize("module", EDITS)
def test_an_edit_reruns_what_is_built_on_it(
    module: str, package: Path, finished_project: Project
) -> None:
    edit(package / module)
    changed, after = find_reruns(finished_project)
    assert (changed, after) == EDITS[module]


def test_an_edit_of_what_no_stage_is_built_on_reruns_nothing(
    package: Path, finished_project: Project
) -> None:
    for path in [*package.rglob("__init__.py"), *(package / module for module in NO_STAGE)]:
        edit(path)
    assert find_reruns(finished_project) == (set(), set())
