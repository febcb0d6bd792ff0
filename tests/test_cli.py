import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unic.analysis.summary import summarize_seeds
from unic.cli import describe_results, main


def write_metrics(folder: Path) -> Path:
    scores: dict[str, Any] = {
        "unic": {
            "0": {"test": {"acc": 0.9, "nmi": 0.8, "used_clusters": 10.0}},
            "1": {"test": {"acc": 0.92, "nmi": 0.8, "used_clusters": 9.0}},
        },
        "kmeans_features": {
            "0": {"test": {"acc": 0.75, "nmi": 0.5, "used_clusters": 10.0}},
            "1": {"test": {"acc": 0.75, "nmi": 0.7, "used_clusters": 10.0}},
        },
    }
    metrics = {
        "experiment": "digits",
        "task": "clustering",
        "seeds": [0, 1],
        "methods": {name: summarize_seeds(found, [0, 1]) for name, found in scores.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return folder


def test_shows_every_method_in_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(write_metrics(tmp_path / "digits"))]) == 0
    shown = capsys.readouterr()
    lines = [re.split(r"\s{2,}", line.strip()) for line in shown.out.splitlines()]
    assert shown.err == ""
    assert ["digits (clustering, 2 seeds)"] in lines
    assert ["test", "acc", "nmi", "used_clusters"] in lines
    assert ["unic", "91.00 ± 1.41", "80.00 ± 0.00", "9.5"] in lines
    assert ["kmeans_features", "75.00 ± 0.00", "60.00 ± 14.14", "10.0"] in lines
    assert [f"report: {tmp_path / 'digits' / 'report.html'}"] in lines


def test_columns_are_aligned(tmp_path: Path) -> None:
    lines = describe_results(write_metrics(tmp_path)).splitlines()
    assert len({len(line) for line in lines if "±" in line or "acc" in line}) == 1


def test_shows_several_experiments_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(write_metrics(tmp_path / name)) for name in ("b", "a")]
    assert main(["show", *folders]) == 0
    reports = re.findall(r"report: (.*)", capsys.readouterr().out)
    assert reports == [f"{folder}/report.html" for folder in folders]


def test_a_missing_folder_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(tmp_path / "absent")]) == 2
    shown = capsys.readouterr()
    path = tmp_path / "absent" / "metrics.json"
    assert shown.out == ""
    assert shown.err.startswith("unic: error: ")
    assert f"{path} is missing; run: snakemake --cores 8 {path}" in shown.err


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"experiment": "a", "task": "b"}'])
def test_broken_scores_are_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert main(["show", str(tmp_path)]) == 2
    message = f"unic: error: {tmp_path / 'metrics.json'} must hold the scores of an experiment"
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(("arguments", "message"), [([], "show"), (["show"], "results")])
def test_an_incomplete_command_shows_how_to_use_it(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_runs_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "unic.cli", "show", str(tmp_path / "absent")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "absent" in finished.stderr
    assert "Traceback" not in finished.stderr
