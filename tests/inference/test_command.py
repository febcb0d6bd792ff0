import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from unic.cli import main
from unic.inference.predictor import Predictor


def test_prints_a_table(
    results: Path, photos: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(results), str(photos), "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    table = pd.read_csv(io.StringIO(shown.out), keep_default_na=False)
    pd.testing.assert_frame_equal(
        table, predictor.predict(photos).to_frame(), check_dtype=False, atol=1e-5
    )
    assert shown.err == ""


def test_writes_a_file_of_files_and_folders(
    results: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = [str(photos / "more"), str(photos / "0.png")]
    model = str(results / "model.safetensors")
    target = tmp_path / "tables/found.csv"
    assert main(["predict", model, *new, "-o", str(target), "--batch-size", "2"]) == 0
    names = [Path(path).name for path in pd.read_csv(target)["path"]]
    assert names == ["4.png", "5.png", "0.png"]
    assert capsys.readouterr().out == ""


def test_names_what_cannot_be_read_and_goes_on(
    results: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "2.png").write_bytes((photos / "2.png").read_bytes()[:60])
    assert main(["predict", str(results), str(photos)]) == 1
    shown = capsys.readouterr()
    assert len(pd.read_csv(io.StringIO(shown.out))) == 5
    assert shown.err.startswith(f"cannot read {photos / '2.png'}: ")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "absent", "new"], "there is none at absent"),
        (["predict", "results/small", "absent.png"], "there is none at absent.png"),
        (["predict", "results/small", "results"], "a folder must have images"),
        (["predict", "new", "new"], "the folder of a finished experiment"),
        (["predict", "new/0.png", "new"], "must be a safetensors file"),
        (["predict", "results/small", "new", "-o", "new"], "new"),
        (["export", "absent", "--format", "torch"], "there is none at absent"),
        (["export", "results/small", "--format", "torch", "-o", "a.pth"], "must end in .pt2"),
    ],
)
def test_wrong_inputs_are_one_line(
    arguments: list[str],
    message: str,
    results: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photos.parent)
    assert results.is_dir()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("unic: error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_exports_beside_the_model_or_elsewhere(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(results), "--format", "torch"]) == 0
    path = results / "model.pt2"
    assert capsys.readouterr().out == (
        f"{path}, and how images are prepared for it: {results / 'model.pt2.json'}\n"
    )
    clusters, _, _ = torch.export.load(path).module()(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    assert clusters.shape == (4,)
    other = tmp_path / "other.pt2"
    command = ["export", str(results), "--format", "torch", "-o", str(other), "--input", "float32"]
    assert main(command) == 0
    assert json.loads((tmp_path / "other.pt2.json").read_text())["input"]["dtype"] == "float32"
