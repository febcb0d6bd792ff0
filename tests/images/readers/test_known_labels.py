import re
from pathlib import Path

import pytest

from unic.images.readers.known_labels import read_known_labels

IDS = ["a/one.jpg", "a/two.jpg", "b/three.jpg"]


def write(path: Path, *rows: str) -> str:
    path.write_text("\n".join(["path,label", *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_several_files_label_some_images(tmp_path: Path) -> None:
    first = write(tmp_path / "first.csv", "a/one.jpg,cat", "a/two.jpg,", "b/three.jpg, dog ")
    second = write(tmp_path / "second.csv", "a/one.jpg,cat", f"{tmp_path}/a/two.jpg,fox")
    known = read_known_labels([first, second], IDS, root=str(tmp_path))
    assert known == {"a/one.jpg": "cat", "b/three.jpg": "dog", "a/two.jpg": "fox"}


def test_no_file_is_no_label() -> None:
    assert read_known_labels([], IDS, root=None) == {}


def test_skipped_images_and_tests_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", "a/one.jpg,cat", "bad.jpg,cat")
    assert read_known_labels([path], IDS, root=".", ignored=["bad.jpg"]) == {"a/one.jpg": "cat"}


def test_two_labels_are_named_with_where_they_are_from(tmp_path: Path) -> None:
    first = write(tmp_path / "first.csv", "a/one.jpg,cat")
    second = write(tmp_path / "second.csv", "a/two.jpg,cat", "a/one.jpg,dog")
    message = f"a/one.jpg must have one label, got cat ({first}, line 2) and dog ({second}, line 3)"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_known_labels([first, second], IDS, root=".")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["c/four.jpg,cat"], "1 are not among them (first c/four.jpg (line 2))"),
        (["a/one.jpg,"], "must have a label, none of its 1 rows has one"),
    ],
)
def test_refuses_labels_of_no_image_and_no_label(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_known_labels([write(tmp_path / "some.csv", *rows)], IDS, root=".")


def test_refuses_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"must be a CSV file, there is none at nowhere"):
        read_known_labels(["nowhere.csv"], IDS, root=".")
