import re
from pathlib import Path

import pandas as pd
import pytest

from tests.tiny import write_manifest, write_picture
from unic.images.readers.manifests import read_manifest


def write_list(folder: Path, text: str) -> Path:
    for number in range(4):
        write_picture(folder / f"{number}.jpg", number)
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_images_without_labels(suffix: str, tmp_path: Path) -> None:
    tiny = write_manifest(tmp_path, suffix=suffix, labeled=False)
    catalog = read_manifest(Path(str(tiny.manifest)), tmp_path)
    assert catalog.annotations is None
    assert {s: len(ids) for s, ids in catalog.ids.items()} == {"train": 30, "test": 10}


@pytest.mark.parametrize("column", [",label\n{},\n{},\n", "\n{}\n{}\n"])
def test_a_path_is_enough(column: str, tmp_path: Path) -> None:
    path = write_list(tmp_path, "path" + column.format("2.jpg", "0.jpg"))
    catalog = read_manifest(path, tmp_path)
    assert catalog.ids == {"train": ["2.jpg", "0.jpg"]}
    assert catalog.annotations is None


def test_numbers_are_names_of_classes(tmp_path: Path) -> None:
    write_list(tmp_path, "")
    path = tmp_path / "list.parquet"
    paths = [f"{number}.jpg" for number in range(4)]
    pd.DataFrame({"label": [7, 10, 7, 9], "path": paths}).to_parquet(path)
    annotations = read_manifest(path, tmp_path).annotations
    assert annotations is not None
    assert annotations.class_names == ["10", "7", "9"]
    assert annotations.labels["train"].tolist() == [1, 0, 1, 2]


def test_spreadsheets_may_leave_a_mark(tmp_path: Path) -> None:
    path = write_list(tmp_path, "\ufeffpath,label\n1.jpg,a\n")
    assert read_manifest(path, tmp_path).ids == {"train": ["1.jpg"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n../1.jpg\n0.jpg\n", "stay below data.root, 1 do not (first ../1.jpg)"),
        ("path\na/../../1.jpg\n", "stay below data.root, 1 do not (first a/../../1.jpg)"),
        ("path\n/etc/passwd\n", "stay below data.root, 1 do not (first /etc/passwd)"),
        ('path,label\n"",a\n', "stay below data.root, 1 do not (first )"),
        ("path\n1.jpg\n0.jpg\n1.jpg\n", "1 are named more than once (first 1.jpg)"),
        ("file\n1.jpg\n", "must have the column path, got ['file']"),
        ("path,split\n1.jpg,train\n2.jpg,valid\n", "the splits train and test, got 'valid'"),
        ("path,split\n1.jpg,train\n2.jpg,\n", "the splits train and test, got ''"),
        ("path,split\n1.jpg,test\n", "must list training images, it has none"),
        ("path,label\n1.jpg,a\n2.jpg,\n", "all images or none, 1 of 2 have no label (first 2.jpg)"),
        (
            "path,label,split\n1.jpg,a,train\n2.jpg,b,test\n",
            "test split must have training images, 1 have none (first b)",
        ),
    ],
)
def test_refuses_lists_that_cannot_be(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_manifest(write_list(tmp_path, text), tmp_path)


def test_names_an_image_that_is_missing(tmp_path: Path) -> None:
    path = write_list(tmp_path, "path\n1.jpg\n8.jpg\n9.jpg\n")
    with pytest.raises(FileNotFoundError, match=r"2 are not there \(first 8\.jpg\)"):
        read_manifest(path, tmp_path)


def test_names_a_missing_list_and_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none is at .*absent\.csv"):
        read_manifest(tmp_path / "absent.csv", tmp_path)
    (tmp_path / "list.xlsx").touch()
    with pytest.raises(ValueError, match=r"must end in \.csv or \.parquet, got .*list\.xlsx"):
        read_manifest(tmp_path / "list.xlsx", tmp_path)
