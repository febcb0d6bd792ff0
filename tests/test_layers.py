"""Who imports whom in the package, and who reads the truth; the contracts are in pyproject.toml."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [LINT, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, with the contracts beside it."""
    ignored = shutil.ignore_patterns("__pycache__", "bundled")
    shutil.copytree(ROOT / "unic", tmp_path / "unic", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path / "unic"


def test_the_package_keeps_its_contracts() -> None:
    finished = lint(ROOT)
    assert finished.returncode == 0, finished.stdout
    assert ", 0 broken" in finished.stdout


@pytest.mark.parametrize(
    ("module", "statement", "broken"),
    [
        (
            "neighbors/metric.py",
            "def f():\n    from unic.images import views",
            ["Packages import those of lower layers alone"],
        ),
        (
            "storage/known_labels.py",
            "import unic.report.page",
            ["Packages import those of lower layers alone"],
        ),
        ("images/views.py", "from timm import data", ["Only models knows timm"]),
        (
            "report/figures.py",
            "import torch, yaml",
            [
                "The package knows neither Snakemake nor YAML",
                "Listing, splitting, scoring and reporting need no torch",
            ],
        ),
    ],
)
def test_a_wrong_import_breaks_them(
    package: Path, module: str, statement: str, broken: list[str]
) -> None:
    path = package / module
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")
    finished = lint(package.parent)
    assert finished.returncode == 1
    assert re.findall("^(.*) BROKEN", finished.stdout, re.MULTILINE) == broken


def test_a_package_without_a_layer_breaks_them(package: Path) -> None:
    (package / "rivals").mkdir()
    (package / "rivals" / "__init__.py").touch()
    finished = lint(package.parent)
    assert finished.returncode == 1
    assert "unic.rivals" in finished.stdout


def test_truth_is_an_input_of_evaluation_and_analysis_alone() -> None:
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    rules = re.findall(r"^rule (\w+):\n    input:\n(.*?)^    output:", text, re.M | re.S)
    assert len(rules) == len(re.findall("^rule ", text, re.MULTILINE))
    readers = {rule for rule, inputs in rules if re.search(r"\blabels\.zarr", inputs)}
    assert readers == {
        *("evaluate", "examine_images", "follow_training", "summarize"),
        *("measure_neighbors", "draw_cleaning", "draw_examples"),
    }
