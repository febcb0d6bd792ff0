"""A journal: lines of JSON that are only ever added to, and are on the disk once they are told."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unic.storage.files import flush

logger = logging.getLogger(__name__)

Line = dict[str, Any]


class Journal:
    """Lines of a file, read in their order, as far as they are whole.

    A line counts once its end is written: what a writer that was killed left without one was
    told to nobody. It is passed over with a warning, and cut off by the next who writes. Several
    processes may have it open: they write one at a time, and read first what others have added.
    """

    def __init__(self, path: Path):
        self.path = path
        self._end = 0  # bytes that have been read
        self._n_lines = 0
        self._held: int | None = None  # the open file, within `alone`

    def read(self) -> list[Line]:
        """The lines that were added since the last reading.

        Raises:
            ValueError: If a line is no JSON object, or the file is shorter than it was.
        """
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            if self._end:
                raise ValueError(f"{self.path} must stay while it is open, it is gone") from None
            return []
        try:
            fcntl.flock(file, fcntl.LOCK_SH)  # nobody is in the middle of a line
            return self._read(file)
        finally:
            os.close(file)

    @contextmanager
    def alone(self) -> Iterator[list[Line]]:
        """Hold the file for writing; gives the lines that others have added, as :meth:`read`."""
        is_new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_new:
                flush(self.path.parent)
            self._held = file
            yield self._read(file)
        finally:
            self._held = None
            os.close(file)

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines, all or none, within :meth:`alone`; the disk has them when this returns.

        Raises:
            OSError: If it cannot, such as where the disk is full.
            ValueError: If the file is not held.
        """
        if self._held is None:
            raise ValueError(f"{self.path} must be held to be written, it is not")
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        os.ftruncate(self._held, self._end)  # without what a killed writer left
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(self._held, left) :]
            os.fsync(self._held)
        except OSError:
            os.ftruncate(self._held, self._end)
            raise
        self._end += len(text)
        self._n_lines += len(lines)

    def _read(self, file: int) -> list[Line]:
        size = os.fstat(file).st_size
        if size < self._end:
            raise ValueError(f"{self.path} must only be added to, it has become shorter")
        content = b""
        while block := os.pread(file, size - self._end - len(content), self._end + len(content)):
            content += block
        *texts, torn = content.split(b"\n")
        if texts and not torn and _parse(texts[-1]) is None:  # the end of it alone was written
            torn = texts.pop()
        lines: list[Line] = []
        for text in texts:
            line = _parse(text)
            if line is None:
                where = f"line {self._n_lines + len(lines) + 1}"
                raise ValueError(f"{self.path} must hold a JSON object a line, {where} is none")
            lines.append(line)
        if torn:
            logger.warning("%s ends in part of a line, which is dropped: %.60r", self.path, torn)
        self._end += sum(len(text) + 1 for text in texts)
        self._n_lines += len(lines)
        return lines


def _parse(text: bytes) -> Line | None:
    """A JSON object; None where it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None
