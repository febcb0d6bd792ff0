import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from unic.storage.files import read_json, temporary_sibling, whole_file, whole_folder, write_json

HOST = socket.gethostname()


def dead_pid() -> int:
    """The id of a process that has ended."""
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")


def fill_and_fail(path: Path) -> None:
    with whole_folder(path) as temporary:
        (temporary / "new.svg").write_text("half")
        raise RuntimeError("disk full")


# Files


def test_a_file_appears_when_its_writing_has_succeeded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.json"
    with whole_file(path) as temporary:
        temporary.write_text("1")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "1"
    assert names(path.parent) == ["scores.json"]


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("old")
    with whole_file(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("has_old", [True, False])
def test_a_failure_leaves_the_old_file(tmp_path: Path, has_old: bool) -> None:
    path = tmp_path / "scores.json"
    if has_old:
        path.write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        write_and_fail(path)
    assert names(tmp_path) == (["scores.json"] if has_old else [])
    assert not has_old or path.read_text() == "old"


def test_a_file_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass
    assert path.read_text() == "old"


# Folders


@pytest.mark.parametrize("has_old", [True, False])
def test_a_folder_appears_when_its_filling_has_succeeded(tmp_path: Path, has_old: bool) -> None:
    path = tmp_path / "figures"
    if has_old:
        path.mkdir()
        (path / "old.svg").write_text("old")
    with whole_folder(path) as temporary:
        (temporary / "new.svg").write_text("new")
        assert path.exists() == has_old
    assert names(path) == ["new.svg"]
    assert names(tmp_path) == ["figures"]


@pytest.mark.parametrize("has_old", [True, False])
def test_a_failure_leaves_the_old_folder(tmp_path: Path, has_old: bool) -> None:
    path = tmp_path / "figures"
    if has_old:
        path.mkdir()
        (path / "old.svg").write_text("old")
    with pytest.raises(RuntimeError, match="disk full"):
        fill_and_fail(path)
    assert names(tmp_path) == (["figures"] if has_old else [])
    assert not has_old or names(path) == ["old.svg"]


# Losses of power


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What has gone to the disk so far: inode and size."""
    seen, fsync = [], os.fsync

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        seen.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", watch)
    return seen


def test_the_disk_has_a_file_before_its_name(
    tmp_path: Path, flushed: list[tuple[int, int]]
) -> None:
    path = tmp_path / "scores.json"
    write_json(path, {"acc": 0.5})
    file, folder = path.stat(), tmp_path.stat()
    assert flushed[0] == (file.st_ino, file.st_size)
    assert [inode for inode, _ in flushed[1:]] == [folder.st_ino]


def test_the_disk_has_all_of_a_folder_before_its_name(
    tmp_path: Path, flushed: list[tuple[int, int]]
) -> None:
    path = tmp_path / "store.zarr"
    with whole_folder(path) as temporary:
        (temporary / "train").mkdir()
        (temporary / "train" / "c0").write_bytes(bytes(5000))
        (temporary / "zarr.json").write_text("{}")
    inside = {written.stat().st_ino for written in [path, *path.rglob("*")]}
    assert {inode for inode, _ in flushed[:-1]} == inside
    assert ((path / "train" / "c0").stat().st_ino, 5000) in flushed
    assert flushed[-1][0] == tmp_path.stat().st_ino


# What dead writers leave


def test_leftovers_of_dead_writers_are_removed(tmp_path: Path) -> None:
    pid = dead_pid()
    (tmp_path / f".figures.tmp-{HOST}-{pid}").mkdir()
    (tmp_path / f".figures.tmp-{HOST}-{pid}.old").mkdir()
    (tmp_path / f".figures.tmp-{HOST}-{pid}" / "half.svg").write_text("half")
    (tmp_path / f".scores.json.tmp-{HOST}-{pid}").write_text("half")
    with whole_folder(tmp_path / "figures"), whole_file(tmp_path / "scores.json") as temporary:
        temporary.write_text("1")
    assert names(tmp_path) == ["figures", "scores.json"]


def test_leftovers_of_others_are_kept(tmp_path: Path) -> None:
    kept = [
        f".scores.json.tmp-{HOST}-{os.getppid()}",  # a process that lives
        f".scores.json.tmp-elsewhere-{dead_pid()}",  # of another machine
        f".scores.json.tmp-{HOST}-2-{dead_pid()}",  # of a machine whose name starts like ours
        f".others.json.tmp-{HOST}-{dead_pid()}",  # of another file
    ]
    for name in kept:
        (tmp_path / name).write_text("half")
    with whole_file(tmp_path / "scores.json") as temporary:
        temporary.write_text("1")
    assert names(tmp_path) == sorted([*kept, "scores.json"])


def test_temporary_names_are_hidden_siblings(tmp_path: Path) -> None:
    temporary = temporary_sibling(tmp_path / "deep" / "scores[1].json")
    assert temporary.parent == tmp_path / "deep"
    assert temporary.name == f".scores[1].json.tmp-{HOST}-{os.getpid()}"
    (tmp_path / "deep" / f".scores[1].json.tmp-{HOST}-{dead_pid()}").write_text("half")
    temporary_sibling(tmp_path / "deep" / "scores[1].json")
    assert names(tmp_path / "deep") == []


def test_json_comes_back_and_has_no_times(tmp_path: Path) -> None:
    content = {"b": [0.1, 2], "a": {"name": "ü", "none": None}}
    write_json(tmp_path / "one.json", content)
    write_json(tmp_path / "two.json", content)
    assert read_json(tmp_path / "one.json") == content
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
