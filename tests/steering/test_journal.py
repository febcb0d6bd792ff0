import errno
import logging
import os
from pathlib import Path

import pytest

from unic.steering.journal import Journal


def write(path: Path, *lines: dict[str, object]) -> None:
    journal = Journal(path)
    with journal.alone():
        journal.append(lines)


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    lines = [{"do": "name", "name": 'Frösche\u2028, "grün"'}, {"do": "undo", "n": [1, 2]}]
    write(path, lines[0])
    write(path, lines[1])
    assert Journal(path).read() == lines


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Journal(tmp_path / "marks.jsonl").read() == []
    assert not (tmp_path / "marks.jsonl").exists()


def test_each_reading_gives_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    journal = Journal(path)
    write(path, {"do": 1})
    assert journal.read() == [{"do": 1}]
    write(path, {"do": 2}, {"do": 3})
    with journal.alone() as others:
        assert others == [{"do": 2}, {"do": 3}]
        journal.append([{"do": 4}])
    assert journal.read() == []
    assert len(Journal(path).read()) == 4


@pytest.mark.parametrize("torn", [b"{", b'{"do": 2', b'{"do": 2}', b"\0\0\0", b'{"do": \n', b"7\n"])
def test_a_torn_end_loses_nothing_before_it(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "marks.jsonl"
    write(path, {"do": 1})
    path.write_bytes(path.read_bytes() + torn)
    journal = Journal(path)
    with caplog.at_level(logging.WARNING):
        assert journal.read() == [{"do": 1}]
    assert "ends in part of a line, which is dropped" in caplog.text
    with journal.alone():
        journal.append([{"do": 3}])
    assert Journal(path).read() == [{"do": 1}, {"do": 3}]


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "marks.jsonl"
    write(path, {"do": 1})
    journal = Journal(path)
    write_part = os.write

    def fill(file: int, content: bytes) -> int:
        if len(content) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_part(file, content[:5])

    with journal.alone() as others, monkeypatch.context() as patched:
        assert others == [{"do": 1}]
        patched.setattr(os, "write", fill)
        with pytest.raises(OSError, match="No space left"):
            journal.append([{"do": "a longer line"}])
    assert Journal(path).read() == [{"do": 1}]
    with journal.alone():
        journal.append([{"do": 2}])
    assert Journal(path).read() == [{"do": 1}, {"do": 2}]


# Refusals


@pytest.mark.parametrize("damage", [b"{\n", b"7\n", b"[]\n", b"\xff\n", b"\n"])
def test_refuses_damage_before_the_end(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_bytes(b'{"do": 1}\n' + damage + b'{"do": 2}\n')
    with pytest.raises(ValueError, match=r"must hold a JSON object a line, line 2 is none"):
        Journal(path).read()


def test_refuses_a_file_that_lost_something(tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    write(path, {"do": 1}, {"do": 2})
    journal = Journal(path)
    journal.read()
    path.write_bytes(b'{"do": 1}\n')
    with pytest.raises(ValueError, match="must only be added to, it has become shorter"):
        journal.read()
    path.unlink()
    with pytest.raises(ValueError, match="must stay while it is open, it is gone"):
        journal.read()


def test_refuses_to_write_what_is_not_held(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be held to be written"):
        Journal(tmp_path / "marks.jsonl").append([{"do": 1}])
