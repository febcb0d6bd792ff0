"""The tutorial runs as it is written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
BLOCKS = re.findall(r"```(python)?\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.workflow
def test_the_tutorial_goes_from_a_folder_to_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    accuracies = []
    for language, block in BLOCKS:
        if language:
            exec(block, names)
            continue
        for command in re.findall(r"^\$ unic (.*)$", block, re.MULTILINE):
            finished = subprocess.run(
                [sys.executable, "-m", "unic.cli", *shlex.split(command)],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert finished.returncode == 0, finished.stderr
            if command.startswith("cluster"):
                accuracies.append(share_of_majorities(names["digits"]))
    table = pd.read_csv("results/photos/predictions.csv")
    assert table["name"].str.startswith("digit ").sum() > 100
    assert Path("sorted").is_dir()
    assert len(pd.read_csv("new.csv")) == 40
    assert len(accuracies) == 3
    assert min(accuracies) > 0.85


def share_of_majorities(digits: object) -> float:
    """Share of the images that are of the commonest digit of their cluster."""
    table = pd.read_csv("results/photos/predictions.csv")
    truth = [digits.target[int(Path(path).stem)] for path in table["path"]]  # type: ignore[attr-defined]
    counts = pd.crosstab(table["cluster"], pd.Series(truth))
    return float(counts.max(axis=1).sum() / len(table))
