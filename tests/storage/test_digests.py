import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.closures import list_closures, modules_of
from unic.storage import digests
from unic.storage.digests import code_digest, file_digest, image_digest, imported_modules

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that may be edited."""
    copy = tmp_path / "unic"
    shutil.copytree(ROOT / "unic", copy, ignore=shutil.ignore_patterns("__pycache__", "bundled"))
    monkeypatch.setattr(digests, "PACKAGE", copy)
    digests._imports.cache_clear()
    yield copy
    digests._imports.cache_clear()


def edit(path: Path, text: str = "\n# edited\n") -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    digests._imports.cache_clear()


def copy_script(folder: Path, name: str = "training/finetune.py") -> Path:
    return Path(shutil.copy(SCRIPTS / name, folder))


# Which modules count


@pytest.mark.parametrize(
    "statement",
    [
        "import unic.training.losses",
        "import numpy, unic.training.losses as losses",
        "from unic.training import losses",
        "from unic.training.losses import entropy_loss",
        "def f():\n    from unic.training.losses import entropy_loss",
    ],
)
def test_every_form_of_import_counts(tmp_path: Path, statement: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(statement)
    assert imported_modules(script) == ["unic/training/losses.py"]


@pytest.mark.parametrize(
    "statement",
    [
        "from .losses import entropy_loss",
        "from . import losses",
        "from ..training import losses",
        "from ...unic.training import losses",
    ],
)
def test_relative_imports_count(package: Path, statement: str) -> None:
    (package / "training" / "new.py").write_text(statement)
    script = package.parent / "script.py"
    script.write_text("import unic.training.new")
    assert imported_modules(script) == ["unic/training/losses.py", "unic/training/new.py"]


def test_other_packages_do_not_count(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import numpy\nimport unicorn.losses\nfrom os import path\n")
    assert imported_modules(script) == []


# What each stage is built on


def test_each_script_is_built_on_the_modules_that_are_listed() -> None:
    listed = Path(__file__).with_name("closures.txt").read_text(encoding="utf-8")
    renew = "python -m tests.closures > tests/storage/closures.txt"
    assert list_closures() == listed, f"if the change is meant: {renew}"


@pytest.mark.parametrize(
    ("script", "most"),
    [
        ("neighbors/clean_neighbors.py", 8),
        ("neighbors/mine_neighbors.py", 21),
        ("baselines/cluster_features.py", 13),
        ("report/summarize.py", 27),
    ],
)
def test_a_stage_is_built_on_few_modules(script: str, most: int) -> None:
    assert len(modules_of(script)) <= most


@pytest.mark.parametrize(
    ("script", "strangers"),
    [
        ("neighbors/mine_neighbors.py", {"images", "models", "features", "training"}),
        ("neighbors/clean_neighbors.py", {"images", "models", "features", "training"}),
        ("baselines/cluster_features.py", {"images", "models", "features", "training"}),
        ("features/extract_features.py", {"neighbors", "training", "evaluation"}),
        ("training/finetune.py", {"baselines", "evaluation", "report"}),
        ("evaluation/evaluate.py", {"models", "features", "neighbors", "training"}),
        ("report/summarize.py", {"models", "features", "neighbors", "inspection"}),
    ],
)
def test_a_stage_is_built_on_no_package_of_another(script: str, strangers: set[str]) -> None:
    assert not {module.parts[0] for module in modules_of(script)} & strangers


def test_jobs_of_seconds_import_nothing_that_takes_seconds() -> None:
    scripts = [
        *("images/index_images.py", "images/split_labels.py", "evaluation/evaluate.py"),
        *("report/summarize.py", "report/collect_table.py"),
    ]
    imports = "\n".join(map(import_statements, scripts))
    slow = "{'torch', 'torchvision', 'timm', 'numba', 'sklearn', 'snakemake'}"
    command = f"{imports}\nimport sys\nassert not {slow} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, check=True)


def import_statements(script: str) -> str:
    tree = ast.parse((SCRIPTS / script).read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join(map(ast.unparse, found))


# What changes a digest


@pytest.mark.parametrize(
    "module",
    [
        "training/losses.py",
        "storage/files.py",
        "neighbors/mining.py",
        "neighbors/exact/panels.py",
        "images/views.py",
        "images/augmentations.py",
        "report/page.py",
    ],
)
def test_an_edited_module_changes_the_digests_of_its_users_alone(
    package: Path, tmp_path: Path, module: str
) -> None:
    names = sorted(path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*.py"))
    scripts = [copy_script(tmp_path, name) for name in names]
    before = {script: code_digest(script) for script in scripts}
    users = {script for script in scripts if f"unic/{module}" in imported_modules(script)}
    edit(package / module)
    changed = {script for script in scripts if code_digest(script) != before[script]}
    assert changed == users
    assert changed


def test_a_package_without_code_changes_nothing(package: Path, tmp_path: Path) -> None:
    script = copy_script(tmp_path)
    before = code_digest(script)
    for path in package.rglob("__init__.py"):
        edit(path)
    assert code_digest(script) == before


def test_packages_hold_no_code() -> None:
    root = {"from importlib import import_module", "from typing import Any", "__version__"}
    for path in (ROOT / "unic").rglob("__init__.py"):
        docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
        assert isinstance(docstring, ast.Expr), path
        is_root = path.parent == ROOT / "unic"
        loading = [node for node in rest if isinstance(node, ast.FunctionDef)]
        assert [node.name for node in loading] == ["__getattr__"] * is_root  # `unic.load`
        others = {ast.unparse(node).split(" = ")[0] for node in rest if node not in loading}
        assert others == (root if is_root else set())


def test_an_edited_script_changes_its_digest(package: Path, tmp_path: Path) -> None:
    del package
    script = copy_script(tmp_path)
    before = code_digest(script)
    edit(script)
    assert code_digest(script) != before


def test_a_new_import_is_followed(package: Path, tmp_path: Path) -> None:
    script = copy_script(tmp_path, "neighbors/mine_neighbors.py")
    edit(package / "neighbors/mining.py", "\nimport unic.training.losses\n")
    before = code_digest(script)
    edit(package / "training/losses.py")
    assert code_digest(script) != before


def test_modules_that_import_each_other_end(package: Path, tmp_path: Path) -> None:
    edit(package / "training/losses.py", "\nimport unic.training.finetuning\n")
    assert "unic/training/losses.py" in imported_modules(copy_script(tmp_path))


def test_touching_changes_nothing(package: Path, tmp_path: Path) -> None:
    script = copy_script(tmp_path)
    before = code_digest(script)
    for path in [script, *package.rglob("*.py")]:
        os.utime(path, (0, 0))
    digests._imports.cache_clear()
    assert code_digest(script) == before


def test_where_the_code_lies_changes_nothing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = code_digest(copy_script(tmp_path))
    (tmp_path / "deep").mkdir()
    monkeypatch.setattr(digests, "PACKAGE", package.rename(tmp_path / "deep" / "unic"))
    assert code_digest(copy_script(tmp_path / "deep")) == here


def test_digests_are_16_hexadecimal_digits() -> None:
    for digest in (code_digest(SCRIPTS / "training/finetune.py"), image_digest(["a"])):
        assert len(digest) == 16
        int(digest, 16)


# Files


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path, copy = tmp_path / "weights", tmp_path / "copy"
    assert file_digest(path) is None
    assert file_digest(tmp_path) is None
    path.write_bytes(b"first")
    copy.write_bytes(b"first")
    before = file_digest(path)
    assert before == file_digest(copy) == file_digest(str(path))
    path.touch()
    assert file_digest(path) == before
    state = path.stat()
    copy.write_bytes(b"other")
    os.utime(copy, ns=(state.st_atime_ns, state.st_mtime_ns))
    copy.replace(path)
    assert file_digest(path) not in (before, None)


def test_a_file_is_read_once_in_a_process(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"first")
    hits = digests._content_digest.cache_info().hits
    assert file_digest(path) == file_digest(path)
    assert digests._content_digest.cache_info().hits == hits + 1


# Images


def test_equal_images_have_equal_digests() -> None:
    assert image_digest(["a", "ü", "日本"]) == image_digest(iter(["a", "ü", "日本"]))


@pytest.mark.parametrize("other", [["b", "a"], ["a"], ["ab"], ["a", "b", ""], ["", "a", "b"], []])
def test_other_images_have_other_digests(other: list[str]) -> None:
    assert image_digest(other) != image_digest(["a", "b"])
