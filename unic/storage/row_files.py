"""Rows of bytes in one raw file that is mapped to memory, with checksums in a header."""

import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from unic.storage.digests import json_digest
from unic.storage.files import flush, read_json, write_json

logger = logging.getLogger(__name__)

BLOCK_ROWS = 512  # rows between two checksums, after which a writing can be taken up


def write_rows(
    header: str | Path,
    compute: Callable[[range], Iterable[bytes]],
    *,
    n_rows: int,
    row_bytes: int,
    about: Mapping[str, Any],
    key: str,
    need: str,
) -> None:
    """Write rows block by block.

    The file appears beside the header under its name with ``.bin``, whole or not at all, the
    header last. A writing that was killed goes on at the block it was in.

    Args:
        header: A ``.json`` file to be written.
        compute: Gives the bytes of a range of rows, in parts.
        n_rows: Number of rows.
        row_bytes: Bytes of a row.
        about: What the rows depend on, becomes the header; must be JSON.
        key: Of the rows and what they are made from, see
            :func:`unic.storage.resumption.resumption_key`. An interrupted writing is taken up where
            it and ``about`` are the same.
        need: What needs the room, and what to do where there is too little.

    Raises:
        OSError: If the disk has no room for the file; says how much it needs.
    """
    header = Path(header)
    target, part = header.with_suffix(".bin"), header.with_name(f".{header.stem}.part.bin")
    progress = part.with_suffix(".json")
    meaning = dict(about) | {"key": key}
    checksums = _resume(part, progress, meaning)
    _check_disk(part, n_rows * row_bytes, need)
    blocks = list(_blocks(n_rows))
    if checksums:
        logger.info("%d of %d blocks are there already", len(checksums), len(blocks))
    with part.open("r+b" if checksums else "w+b") as file:
        file.truncate(n_rows * row_bytes)
        todo = blocks[len(checksums) :]
        for block in tqdm(todo, header.stem, len(blocks), initial=len(checksums), disable=None):
            file.seek(block.start * row_bytes)
            checksum = 0
            for rows in compute(block):
                file.write(rows)
                checksum = zlib.crc32(rows, checksum)
            file.flush()
            flush(part)
            checksums.append(checksum)
            write_header(progress, meaning | {"checksums": checksums})
    header.unlink(missing_ok=True)
    part.replace(target)
    write_header(header, dict(about) | {"checksums": checksums})
    progress.unlink(missing_ok=True)  # of no rows there is none


def write_header(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a header with a digest of itself, whole or not at all."""
    write_json(path, dict(content) | {"digest": json_digest(content)})


def read_header(path: str | Path) -> dict[str, Any]:
    """Read what :func:`write_header` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not what was written.
    """
    content = read_json(path)
    if content.pop("digest", None) != json_digest(content):
        raise ValueError(
            f"{path} is damaged: its digest differs; delete it and run the workflow again"
        )
    return content


def find_rows(header: str | Path, n_bytes: int) -> Path:
    """The file of a header.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it has another size.
    """
    path = Path(header).with_suffix(".bin")
    if not path.is_file():
        raise FileNotFoundError(f"{header} must have its rows beside it, there is no {path}")
    if path.stat().st_size != n_bytes:
        raise ValueError(f"{path} must have {n_bytes} bytes, got {path.stat().st_size}")
    return path


def map_rows(
    header: str | Path, checksums: Sequence[int], *, n_rows: int, row_bytes: int
) -> "Rows":
    """Map the file of a header to memory, to be checked as rows are asked for.

    Args:
        header: The ``.json`` file beside it.
        checksums: Of the blocks, from the header.
        n_rows: Number of rows, which may be 0.
        row_bytes: Bytes of a row.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it has another size.
    """
    path = find_rows(header, n_rows * row_bytes)
    if n_rows == 0:  # which cannot be mapped
        return Rows(path, np.empty((0, row_bytes), dtype=np.uint8), checksums)
    mapped = np.asarray(np.memmap(path, mode="r")).reshape(n_rows, row_bytes)
    return Rows(path, mapped, checksums)


class Rows:
    """Rows of a file that is mapped to memory, to be checked before they are used.

    A block is compared to its checksum when a row of it is first asked for, in the thread that
    asks; so a large file is opened at once, and checked once.

    Args:
        path: The file.
        array: What is mapped, shape ``(n, row_bytes)``, uint8.
        checksums: Of the blocks, from the header.
    """

    def __init__(self, path: Path, array: NDArray[np.uint8], checksums: Sequence[int]):
        self.path, self.array, self.checksums = path, array, checksums
        self._is_checked = np.zeros(len(checksums), dtype=np.bool_)
        self._lock = Lock()

    def check(self, rows: NDArray[np.int64]) -> None:
        """Compare the blocks of some rows to their checksums, those that are not checked yet.

        Args:
            rows: Shape ``(r,)``, int64, in [0, n).

        Raises:
            ValueError: If they differ; names the first block that does.
        """
        blocks = rows // BLOCK_ROWS
        if self._is_checked[blocks].all():
            return
        with self._lock:
            for block in np.unique(blocks[~self._is_checked[blocks]]).tolist():
                self._check_block(block)
                self._is_checked[block] = True

    def take(self, rows: range) -> NDArray[np.uint8]:
        """Neighboring rows, checked: a view of shape ``(r, row_bytes)``.

        Raises:
            ValueError: If a block of them is damaged.
        """
        self.check(np.arange(rows.start, rows.stop))
        return self.array[rows.start : rows.stop]

    def _check_block(self, block: int) -> None:
        rows = self.array[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
        if zlib.crc32(rows.data) != self.checksums[block]:
            first = block * BLOCK_ROWS
            raise ValueError(
                f"{self.path} is damaged: its checksum differs at images {first} to "
                f"{first + len(rows) - 1}; delete it and run the workflow again"
            )


def _blocks(n_rows: int) -> Iterator[range]:
    for start in range(0, n_rows, BLOCK_ROWS):
        yield range(start, min(start + BLOCK_ROWS, n_rows))


def _resume(part: Path, progress: Path, meaning: Mapping[str, Any]) -> list[int]:
    """Checksums of the blocks that an interrupted writing of the same rows has written."""
    if not (part.is_file() and progress.is_file()):
        return []
    found = read_header(progress)
    checksums: list[int] = found.pop("checksums")
    if found != json.loads(json.dumps(meaning)):
        logger.info("%s is of other settings or inputs, the writing starts anew", part)
        return []
    return checksums


def _check_disk(part: Path, n_bytes: int, need: str) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    held = part.stat().st_blocks * 512 if part.is_file() else 0
    free = shutil.disk_usage(part.parent).free + held
    logger.info("%.2f GB of disk are needed, %.2f GB are free", n_bytes / 1e9, free / 1e9)
    if n_bytes > free:
        raise OSError(
            f"{n_bytes / 1e9:.1f} GB must be free in {part.parent}, got {free / 1e9:.1f}: {need}"
        )
