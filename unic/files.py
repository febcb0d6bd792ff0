"""Files and folders that appear whole or not at all."""

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pandas takes a second to import, and most users of this module need none
    import pandas as pd


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside a path, and move it there once its writing has succeeded."""
    path = Path(path)
    temporary = temporary_sibling(path)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some writers make private files
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a temporary folder beside a path, and move it there once its filling has succeeded."""
    path = Path(path)
    temporary = temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_room(path: str | Path, n_bytes: int) -> None:
    """See to it that a folder's disk has room for what is to be written there.

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
    """Read JSON that :func:`write_json` wrote."""
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


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
