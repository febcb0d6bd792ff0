"""Finished rows of a pass on disk, so that a killed one goes on where it was."""

import hashlib
import io
import json
import logging
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unic.neighbors.exact.ranking import Ranked
from unic.storage.files import check_room, read_json, whole_file

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_ROOM = 1.1  # over the bytes of the arrays: headers, and blocks of the file system
# Products of entries in about a minute: of one thread (n = 64,000, d = 768), and of a GPU.
_LONG = {"cpu": 3e12, "cuda": 1e15}


class FinishedRows:
    """A folder of finished rows, a whole ``.npy`` file named with its checksum for each block."""

    def __init__(
        self,
        path: Path,
        features: NDArray[np.float32],
        *,
        n_neighbors: int,
        far_rank: int | None,
        is_bound: bool,
        code: str,
    ) -> None:
        """Open or start the folder, and check that the rest will fit the disk.

        Args:
            path: The folder; it need not exist.
            features: Shape ``(n, d)``, those that are mined.
            n_neighbors: Of each row.
            far_rank: Of each row, None where no far radius is sought.
            is_bound: Whether the far radius is a bound.
            code: Digest of what ranks the rows.

        Rows of other features, parameters or code are deleted: nothing can use them.

        Raises:
            ValueError: If the folder holds rows of which nothing says what they are.
            OSError: If the disk has too little room for the rows to come, which are there twice
                when the result is stored.
        """
        self._path = Path(path)
        self._row = np.dtype(
            [
                ("rows", np.int64),
                ("indices", np.int64, (n_neighbors,)),
                ("distances", np.float32, (n_neighbors,)),
                ("far_radius", np.float32),
                ("attempt", np.uint8),
            ]
        )
        meaning = {
            "features": _digest(features),
            "shape": list(features.shape),
            "n_neighbors": n_neighbors,
            "far_rank": far_rank,
            "is_bound": is_bound,
            "code": code,
        }
        self._path.mkdir(parents=True, exist_ok=True)
        self._clear_others(meaning)
        self._parts = sorted(self._path.glob("rows-*.npy"))
        self._check_room(len(features))
        with whole_file(self._path / _MANIFEST) as temporary:
            temporary.write_text(json.dumps(meaning, indent=2))

    def read(self) -> NDArray[np.void]:
        """All finished rows ``(m,)``, with the fields of Ranked and the attempt that settled it."""
        return np.concatenate([np.empty(0, dtype=self._row), *map(self._read_part, self._parts)])

    def write(self, ranked: Ranked, attempt: int) -> None:
        """Add a block of finished rows; it is on disk whole or not at all."""
        if not len(ranked.rows):
            return
        part = np.zeros(len(ranked.rows), dtype=self._row)
        part["rows"], part["indices"], part["distances"] = ranked[:3]
        part["far_radius"] = ranked.far_radius if len(ranked.far_radius) else np.nan
        part["attempt"] = attempt
        content = io.BytesIO()
        np.save(content, part)
        checksum = zlib.crc32(content.getbuffer())
        path = self._path / f"rows-{len(self._parts):06d}-{checksum:08x}.npy"
        with whole_file(path) as temporary:
            temporary.write_bytes(content.getbuffer())
        self._parts.append(path)

    def _read_part(self, path: Path) -> NDArray[np.void]:
        content = path.read_bytes()
        if f"{zlib.crc32(content):08x}" != path.stem.rpartition("-")[2]:
            raise ValueError(f"{path} is damaged: its checksum differs; delete {self._path}")
        part = np.load(io.BytesIO(content))
        if part.dtype != self._row:
            raise ValueError(f"{path} must hold rows of {self._row}, got {part.dtype}")
        return part

    def _clear_others(self, meaning: dict[str, object]) -> None:
        manifest = self._path / _MANIFEST
        parts = list(self._path.glob("rows-*.npy"))
        if not parts:
            return
        if not manifest.exists():
            raise ValueError(f"{self._path} must hold {manifest.name} beside its rows")
        found = read_json(manifest)
        others = [name for name, value in meaning.items() if found.get(name) != value]
        if others:
            logger.warning(
                "the finished rows in %s are of other %s and start anew",
                self._path,
                " and ".join(others),
            )
            for part in parts:
                part.unlink()

    def _check_room(self, n_rows: int) -> None:
        present = sum(part.stat().st_size for part in self._parts)
        check_room(self._path, max(0, int(2 * _ROOM * n_rows * self._row.itemsize) - present))


@contextmanager
def finished_rows_beside(
    store: Path, features: NDArray[np.float32], device: torch.device
) -> Iterator[Path | None]:
    """Give a folder to keep the rows of a pass in until its store is written.

    It is hidden beside the store, so that it outlives a job that is killed or fails. Where the
    pass takes less than about a minute, it costs more than it saves, and None is given.

    Args:
        store: Folder of the store to be written.
        features: Shape ``(n, d)``.
        device: Where the pass runs.
    """
    folder = store.with_name(f".{store.name}.checkpoint")
    n_images, n_dims = features.shape
    yield folder if n_images**2 * n_dims >= _LONG[device.type] else None
    shutil.rmtree(folder, ignore_errors=True)


def _digest(features: NDArray[np.float32]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(features), 8192):
        digest.update(np.ascontiguousarray(features[start : start + 8192]).data)
    return digest.hexdigest()
