"""The how-to on extending: its examples, made to a copy, pass the tests that they name."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/howto/extend.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
NEW = "unic/images/readers/leaves.py"
PATHS = set(re.findall(r"`((?:\w+/)+[\w.]*|\w+\.(?:md|toml))`", TEXT)) - {NEW, "train/", "leaves/"}


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the data set and the setting of the examples."""
    copy = tmp_path_factory.mktemp("extended")
    (reader,) = (block for language, block in BLOCKS if language == "python")
    diffs = [block for language, block in BLOCKS if language == "diff"]
    assert len(diffs) == 2
    for folder in ("config", "docs", "tests", "unic", "workflow"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / NEW).write_text(reader, encoding="utf-8")
    for diff in diffs:
        done = subprocess.run(
            ["git", "apply", "-"],
            input=diff,
            cwd=copy,
            env=os.environ | {"GIT_CEILING_DIRECTORIES": str(copy.resolve().parent)},  # no checkout
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return copy


@pytest.mark.slow
def test_the_examples_pass_the_tests_that_they_name(extended: Path) -> None:
    files = (
        *("tests/images/readers/test_layouts.py", "tests/images/test_checks.py"),
        *("tests/experiments", "tests/baselines/test_comparison.py", "tests/docs/test_howto.py"),
    )
    chosen = "leaves or max_iter or every_data_set or stages_depend or in_the_cluster_of"
    finished = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider"), "-k", chosen, *files],
        cwd=extended,
        env=os.environ | {"PYTHONPATH": str(extended)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout
    for test in (
        "to_known_labels[leaves]",
        "the_whole[leaves]",
        "kmeans.max_iter-3",
        "schema_knows",
    ):
        assert test in finished.stdout


def test_the_examples_are_styled_as_the_rest(extended: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        finished = subprocess.run(
            [ruff, *command, "unic", "tests"],
            cwd=extended,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("path", sorted(PATHS))
def test_names_files_that_exist(path: str) -> None:
    folders = (ROOT, ROOT / "unic/images/readers", ROOT / "unic/images/readers/class_lists")
    assert any((folder / path).exists() for folder in folders)


def test_names_what_the_code_has() -> None:
    code = "".join(
        path.read_text("utf-8")
        for folder in ("tests", "unic", "workflow")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".smk")
    )
    names = set(re.findall(r"`(_?[A-Z][A-Z_]+|[a-z]+(?:_[a-z]+)+)`", TEXT)) - {"max_iter"}
    assert len(names) > 40
    assert not {name for name in names if not re.search(rf"\b{name}\b", code)}
