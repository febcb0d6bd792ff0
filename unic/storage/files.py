"""Files and folders that appear whole or not at all."""

import csv
import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pandas takes a second to import, and most users of this module need none
    import pandas as pd


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside a path, and move it there once its writing has succeeded.

    The disk has the content before the name, so that a loss of power leaves no part of a file.
    """
    path = Path(path)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers make private files
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside a path, and move it there once its filling has succeeded.

    The disk has all files before the folder has its name.
    """
    path = Path(path)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for written in [*temporary.rglob("*"), temporary]:
            flush(written)
        if path.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # not every file system can
            raise
    finally:
        os.close(descriptor)


def check_room(path: str | Path, n_bytes: int) -> None:
    """Check that a folder's disk has room for what is to be written there.

    Raises:
        OSError: If it has too little.
    """
    free = shutil.disk_usage(path).free
    if free < n_bytes:
        why = f"No space left: {n_bytes:,} bytes must be free, got {free:,}"
        raise OSError(errno.ENOSPC, why, str(path))


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read JSON that :func:`write_json` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON in UTF-8, it is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {str(content)[:60]}")
    return content


def read_csv(path: str | Path, *, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the lines of a CSV file as texts by column, empty where a line ends early.

    Args:
        path: A file in UTF-8, with or without the mark that spreadsheets write.
        columns: Those that must be there.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, lacks a column or has one twice, or a line has more
            fields than the first; names the line.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            found, rows, ends = list(reader.fieldnames or ()), [], []
            for row in reader:
                rows.append(row)
                ends.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be a CSV file in UTF-8, cannot read it: {error}") from None
    if not set(columns) <= set(found):
        named = f"column{'s' * (len(columns) > 1)} {' and '.join(columns)}"
        raise ValueError(f"{path} must have the {named}, got {found or None}")
    if len(set(found)) < len(found):
        raise ValueError(f"{path} must have each column once, got {found}")
    long = next((end for row, end in zip(rows, ends, strict=True) if None in row), None)
    if long is not None:
        raise ValueError(f"{path} must have {len(found)} fields a line, line {long} has more")
    return rows


def read_parquet(path: str | Path, *, columns: list[str] | None = None) -> "pd.DataFrame":
    """Read a Parquet file, with all its columns or some.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or lacks a column.
    """
    import pandas as pd

    if not Path(path).is_file():
        raise FileNotFoundError(f"no Parquet file at {path}")
    try:
        return pd.read_parquet(path, columns=columns, page_checksum_verification=True)
    except Exception as error:  # Arrow and pandas raise all sorts on damaged files
        wanted = f" with the columns {', '.join(columns)}" if columns else ""
        raise ValueError(
            f"{path} must be a Parquet file{wanted}, cannot read it: {first_line(error)}"
        ) from None


def write_parquet(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as Parquet with checksums, whole or not at all."""
    with whole_file(path) as temporary:
        table.to_parquet(temporary, write_page_checksum=True)


def first_line(error: BaseException) -> str:
    """Kind of an error of another library, and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as CSV without its index, whole or not at all."""
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False)


def temporary_sibling(path: Path) -> Path:
    """A fresh name beside a path for writing; removes what dead writers left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.tmp-{socket.gethostname()}-"
    for left in path.parent.glob(f"{escape(prefix)}*"):
        pid = left.name.removeprefix(prefix).partition(".")[0]
        if pid.isdecimal() and not _is_other_process(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.parent / f"{prefix}{os.getpid()}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_other_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
