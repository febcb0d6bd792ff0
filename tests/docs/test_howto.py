"""What the how-tos tell users to type works, on a small experiment of the same name."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from tests.experiment import write_run
from tests.tiny import write_fashion_mnist, write_folder
from unic.cli import main
from unic.images.checks import EXPECTED
from unic.images.datasets import DATASETS

HOWTO = Path(__file__).parents[2] / "docs/howto"
TEXT = (HOWTO / "inspect_neighbors.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^\$ unic (.*)$", TEXT, re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clusters = {
        seed: {"train": [(row + seed) % 6 for row in range(42)], "test": [5]} for seed in (0, 1)
    }
    for name in ("digits", "digits_scan"):
        write_run(tmp_path / "results" / name, clusters, n_clusters=6, images=True, n_images=42)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_python_reads_the_stores() -> None:
    has_xarray = importlib.util.find_spec("xarray") is not None
    blocks = [block for block in PYTHON if has_xarray or "xarray" not in block]
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(names["pairs"]) == 42 * 6  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(
    command: str,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    assert main(shlex.split(command.replace("1243", "13"))) == 0
    assert capsys.readouterr().out
    assert (project / "sheet.png").is_file() == ("--save" in command)
    assert (project / "moved.csv").is_file() == ("--moved" in command)


DATA_COMMANDS = re.findall(
    r"^\$ unic (data .*)$", (HOWTO / "data.md").read_text("utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("command", DATA_COMMANDS)
def test_data_commands(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_fashion_mnist(tmp_path / "data")
    write_folder(tmp_path / "photos")
    (tmp_path / "birds.csv").write_text("path\nphotos/train/ant/0.jpg\nphotos/train/ant/1.jpg\n")
    is_small_copy = "fashion_mnist" in command
    assert main(shlex.split(command)) == int(is_small_copy)
    assert capsys.readouterr().out.split()[:2] == ["found", "expected"]


def test_the_data_howto_names_every_data_set() -> None:
    text = (HOWTO / "data.md").read_text("utf-8")
    assert all(f"`{name}`" in text or f"name: {name}`" in text for name in DATASETS)
    for expected in EXPECTED.values():
        assert f"{expected.n_train:,}" in text
        assert f"{expected.n_test:,}" in text
