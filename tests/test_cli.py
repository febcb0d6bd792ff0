import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.experiment import N_IMAGES, write_experiment, write_run
from unic.cli import describe_results, main
from unic.evaluation.summary import summarize_seeds


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
    assert ["kmeans_features", "75.00 ± 0.00", "60.00 ± 14.14", "10"] in lines
    assert [f"report: {tmp_path / 'digits' / 'report.html'}"] in lines


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    path = write_metrics(tmp_path) / "metrics.json"
    metrics = json.loads(path.read_text())
    scores = {"7": {"test": {"acc": 0.25, "nmi": 0.5, "used_clusters": 3.0}}}
    metrics["methods"]["simgcd"] = summarize_seeds(scores, [7])
    path.write_text(json.dumps(metrics))
    line = next(line for line in describe_results(tmp_path).splitlines() if "simgcd" in line)
    assert line.split() == ["simgcd", "25.00", "50.00", "3"]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "show"),
        (["show"], "results"),
        (["predict", "results/small"], "NEW"),
        (["predict", "results/small", "new", "--batch-size", "0"], "at least 1, got 0"),
        (["predict", "results/small", "new", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["export", "results/small"], "--format"),
        (["export", "results/small", "--format", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_an_incomplete_or_wrong_command_shows_how_to_use_it(
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


# inspect neighbors


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_experiment(tmp_path / "results" / "toy", images=True)


def inspect(*arguments: object) -> int:
    return main(["inspect", "neighbors", *map(str, arguments)])


def test_inspects_images_by_row_and_id(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(toy, "--image", 12, "train/b/3.png", "--image", 5, "--negatives", 1) == 0
    shown = capsys.readouterr()
    assert re.findall(r"^image (\d+)", shown.out, re.MULTILINE) == ["12", "3", "5"]
    assert shown.out.count("negatives, 1 of 5") == 3
    assert shown.err == ""


def test_a_summary_is_what_is_shown_of_no_image(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(toy) == 0
    plain = capsys.readouterr().out
    assert plain.startswith("toy: 6 neighbors")
    assert inspect(toy, "--summary") == 0
    assert capsys.readouterr().out == plain


@pytest.mark.parametrize("arguments", [[], ["--image", "12", "3"]])
def test_formats_for_programs_are_alone_on_stdout(
    arguments: list[str], toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--save", str(toy / "sheet.png")] if arguments else []
    assert inspect(toy, *arguments, *extra, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)
    assert inspect(toy, *arguments, *extra, "--format", "csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.count(",") for line in lines}) == 1


def test_saves_and_opens_a_sheet(
    toy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda uri: opened.append(uri) or True)
    sheet = toy / "sheets" / "one.PNG"
    assert inspect(toy, "--image", 12, "--save", sheet) == 0
    assert sheet.is_file()
    assert capsys.readouterr().err == f"contact sheet: {sheet}\n"
    assert opened == []
    assert inspect(toy, "--image", 12, "--open") == 0
    (uri,) = opened
    assert uri.startswith("file://")
    assert Path(uri.removeprefix("file://")).read_bytes() == sheet.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "40"], "image must be from 0 to 39, got 40"),
        (["--image", "-1"], "image must be from 0 to 39, got -1"),
        (["--image", "train/a/12.jpg"], "did you mean train/a/12.png?"),
        (["--image", "1", "--negatives", "-1"], "n_negatives must be at least 0, got -1"),
        (["--open"], "a contact sheet shows single images: name them with --image"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: list[str], message: str, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(toy, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("unic: error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_a_sheet_must_be_a_png(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        inspect(toy, "--image", 1, "--save", "sheet.jpg")
    assert raised.value.code == 2
    assert "--save: must be FILE.png, got sheet.jpg" in capsys.readouterr().err


def test_images_that_moved_away_leave_the_table(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert inspect(toy, "--image", 12, "--save", tmp_path / "sheet.png") == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("image 12: ")
    assert re.search(r"^unic: error: .*photos/train/a/\d+\.png is missing\n$", shown.err)
    assert not (tmp_path / "sheet.png").exists()


def test_a_damaged_store_is_one_line(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (chunk,) = (path for path in (toy / "neighbors.zarr/train/indices/c").rglob("*0/0"))
    chunk.write_bytes(b"damaged")
    assert inspect(toy, "--image", 12) == 2
    assert "neighbors.zarr/train/indices is damaged" in capsys.readouterr().err


def test_a_reader_may_stop_early(toy: Path) -> None:
    command = [sys.executable, "-m", "unic.cli", "inspect", "neighbors", str(toy), "--summary"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


# inspect clusters, compare


@pytest.fixture
def two_runs(tmp_path: Path) -> list[Path]:
    clusters = {"train": [row % 4 for row in range(N_IMAGES)], "test": [3]}
    others = {"train": [row % 4 if row else 1 for row in range(N_IMAGES)], "test": [3]}
    return [
        write_run(tmp_path / "results" / name, {0: of})
        for name, of in (("one", clusters), ("other", others))
    ]


def test_inspects_clusters_and_the_images_of_some(
    two_runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["inspect", "clusters", str(two_runs[0])]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("one: 40 train images in 4 of 4 clusters, seed 0")
    assert main([*command, "--split", "test"]) == 0
    assert capsys.readouterr().out.startswith("one: 1 test images in 1 of 4 clusters")
    assert main([*command, "--cluster", "3", "1", "3", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [about["cluster"] for about in shown] == [3, 1]
    assert [len(about["images"]) for about in shown] == [10, 10]


def test_compares_two_experiments(
    two_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.csv"
    command = ["compare", *map(str, two_runs)]
    assert main([*command, "--moved", str(moved)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("one (seed 0) and other (seed 0): 41 images")
    assert shown.err == ""
    header, line = moved.read_text().splitlines()
    assert header.startswith("split,image_id,from,to,to_pair,confidence")
    assert line.startswith("train,train/a/0.png,0,1,1,1.0")
    assert main([*command, "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "0,1,1,1,0.1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "clusters", "{0}", "--cluster", "4"], "cluster must be from 0 to 3, got 4"),
        (["inspect", "clusters", "{0}", "--split", "val"], "split must be one of train, test"),
        (["inspect", "clusters", "{0}x"], "did you mean"),
        (["compare", "{0}", "{2}"], "must be of the same images, but the first has 41"),
        (["compare", "{0}", "{3}"], "must be the folder of an experiment"),
    ],
)
def test_a_wrong_look_at_clusters_is_one_line(
    arguments: list[str],
    message: str,
    two_runs: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fewer = {0: {"train": [0] * 20, "test": [0]}}
    folders = [*two_runs, write_run(tmp_path / "results" / "small", fewer, n_images=20)]
    folders.append(tmp_path / "elsewhere")
    assert main([argument.format(*folders) for argument in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1
