import logging
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unic.storage.row_files
from unic.storage.files import read_json
from unic.storage.row_files import Rows, find_rows, map_rows, read_header, write_rows

ROWS = np.random.default_rng(0).integers(256, size=(10, 5), dtype=np.uint8)


class StoppedError(Exception):
    pass


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unic.storage.row_files, "BLOCK_ROWS", 4)


def write(
    header: Path, *, n_parts: int = 100, start: int = 0, key: str = "key", **about: Any
) -> None:
    """Write all rows one by one, or stop after some."""

    def compute(block: range) -> Iterator[bytes]:
        nonlocal n_parts
        for row in block:
            assert row >= start
            if n_parts == 0:
                raise StoppedError
            n_parts -= 1
            yield ROWS[row].tobytes()

    write_rows(header, compute, n_rows=10, row_bytes=5, about=about, key=key, need="ten rows")


def test_rows_are_written_whole_with_what_they_depend_on(tmp_path: Path) -> None:
    header = tmp_path / "new" / "rows.json"
    write(header, seed=3)
    content = read_header(header)
    assert len(content.pop("checksums")) == 3
    assert content == {"seed": 3}
    path = find_rows(header, 50)
    assert path.read_bytes() == ROWS.tobytes()
    Rows(path, ROWS, read_json(header)["checksums"]).check(np.arange(10))
    assert sorted(p.name for p in header.parent.iterdir()) == ["rows.bin", "rows.json"]


def test_rows_are_mapped_and_checked_where_there_are_some(tmp_path: Path) -> None:
    header = tmp_path / "rows.json"
    write(header, seed=3)
    rows = map_rows(header, read_header(header)["checksums"], n_rows=10, row_bytes=5)
    np.testing.assert_array_equal(rows.take(range(2, 9)), ROWS[2:9])
    write_rows(header, lambda _: [], n_rows=0, row_bytes=5, about={}, key="none", need="no rows")
    assert map_rows(header, [], n_rows=0, row_bytes=5).take(range(0)).shape == (0, 5)
    with pytest.raises(ValueError, match=r"rows\.bin must have 10 bytes, got 0"):
        map_rows(header, [], n_rows=2, row_bytes=5)


def test_a_stopped_writing_goes_on_at_its_block(tmp_path: Path) -> None:
    header = tmp_path / "rows.json"
    with pytest.raises(StoppedError):
        write(header, n_parts=6, seed=3)
    assert not header.exists()
    assert not header.with_suffix(".bin").exists()
    write(header, start=4, seed=3)
    assert find_rows(header, 50).read_bytes() == ROWS.tobytes()


@pytest.mark.parametrize("other", [{"seed": 4}, {"key": "other"}])
def test_other_rows_start_anew_and_the_log_says_so(
    other: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header = tmp_path / "rows.json"
    with pytest.raises(StoppedError):
        write(header, n_parts=6, seed=3)
    with caplog.at_level(logging.INFO, "unic"), pytest.raises(AssertionError):
        write(header, start=4, **{"seed": 3} | other)
    assert "is of other settings or inputs, the writing starts anew" in caplog.text


def test_refuses_rows_that_do_not_fit_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=49))
    with pytest.raises(OSError, match=f"must be free in {tmp_path}, got 0.0: ten rows"):
        write(tmp_path / "rows.json")
    assert list(tmp_path.iterdir()) == []


def test_refuses_rows_that_are_missing_short_or_damaged(tmp_path: Path) -> None:
    header = tmp_path / "rows.json"
    with pytest.raises(FileNotFoundError):
        find_rows(header, 50)
    write(header)
    with pytest.raises(ValueError, match="must have 51 bytes, got 50"):
        find_rows(header, 51)


def open_damaged(folder: Path) -> Rows:
    """Rows of three blocks, the second of them damaged."""
    write(folder / "rows.json")
    damaged = ROWS.copy()
    damaged[5, 2] ^= 1
    return Rows(folder / "rows.bin", damaged, read_json(folder / "rows.json")["checksums"])


@pytest.mark.parametrize("asked", [[4], [9, 0, 7], list(range(10))])
def test_a_damaged_block_is_refused_when_a_row_of_it_is_asked_for(
    asked: list[int], tmp_path: Path
) -> None:
    rows = open_damaged(tmp_path)
    for start in (0, 8):
        np.testing.assert_array_equal(rows.take(range(start, start + 2)), ROWS[start : start + 2])
    message = f"{tmp_path}/rows.bin is damaged: its checksum differs at images 4 to 7; delete it"
    for _ in range(2):  # also the second time
        with pytest.raises(ValueError, match=re.escape(message)):
            rows.check(np.array(asked))
    with pytest.raises(ValueError, match=re.escape(message)):
        rows.take(range(3, 5))


def test_a_block_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rows.json")
    rows = Rows(tmp_path / "rows.bin", ROWS, read_json(tmp_path / "rows.json")["checksums"])
    checked: list[int] = []
    check_block = rows._check_block
    monkeypatch.setattr(rows, "_check_block", lambda n: checked.append(n) or check_block(n))
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda row: rows.take(range(row, row + 1)), [9, 8, *range(10)] * 20):
            assert found.shape == (1, 5)
    assert sorted(checked) == [0, 1, 2]
