"""Finished rows of a pass on disk, so that a killed one goes on where it was."""

import errno
import hashlib
import json
import logging
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unic.files import whole_file

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_ROOM = 1.1  # over the bytes of the arrays: headers, and blocks of the file system


class Checkpoint:
    """A folder of finished rows, one whole ``.npy`` file for each block of them."""

    def __init__(
        self,
        path: Path,
        features: NDArray[np.float32],
        *,
        n_neighbors: int,
        far_rank: int | None,
        engine: str,
    ) -> None:
        """Open or start the folder, and see to it that the rest will fit the disk.

        Raises:
            ValueError: If the folder holds rows of other features or parameters.
            OSError: If the disk has too little room for the rows to come.
        """
        self._path = Path(path)
        self._row = np.dtype(
            [
                ("row", np.int64),
                ("indices", np.int64, (n_neighbors,)),
                ("distances", np.float32, (n_neighbors,)),
                ("far_radius", np.float32),
            ]
        )
        meaning = {
            "features": _digest(features),
            "shape": list(features.shape),
            "n_neighbors": n_neighbors,
            "far_rank": far_rank,
            "engine": engine,
        }
        self._path.mkdir(parents=True, exist_ok=True)
        self._check_meaning(meaning)
        self._parts = sorted(self._path.glob("rows-*.npy"))
        self._check_room(len(features))
        with whole_file(self._path / _MANIFEST) as temporary:
            temporary.write_text(json.dumps(meaning, indent=2))

    def read(self) -> NDArray[np.void]:
        """All finished rows ``(m,)``, with fields row, indices, distances and far_radius."""
        parts = [np.load(part) for part in self._parts]
        for path, part in zip(self._parts, parts, strict=True):
            if part.dtype != self._row:
                raise ValueError(f"{path} must hold rows of {self._row}, got {part.dtype}")
        return np.concatenate([np.empty(0, dtype=self._row), *parts])

    def write(
        self,
        rows: NDArray[np.int64],
        indices: NDArray[np.int64],
        distances: NDArray[np.float32],
        far_radius: NDArray[np.float32],
    ) -> None:
        """Add a block of finished rows; it is on disk whole or not at all."""
        if not len(rows):
            return
        part = np.zeros(len(rows), dtype=self._row)
        part["row"], part["indices"], part["distances"] = rows, indices, distances
        part["far_radius"] = far_radius if len(far_radius) else np.nan
        path = self._path / f"rows-{len(self._parts):06d}.npy"
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, part)
        self._parts.append(path)

    def _check_meaning(self, meaning: dict[str, object]) -> None:
        manifest = self._path / _MANIFEST
        if not manifest.exists():
            if any(self._path.glob("rows-*.npy")):
                raise ValueError(f"{self._path} must hold {manifest.name} beside its rows")
            return
        found = json.loads(manifest.read_text())
        for name, value in meaning.items():
            if found.get(name) != value:
                raise ValueError(
                    f"checkpoint {self._path} must be of the same features and parameters, "
                    f"got {name} {found.get(name)} instead of {value}; delete it to start anew"
                )

    def _check_room(self, n_rows: int) -> None:
        present = sum(part.stat().st_size for part in self._parts)
        needed = max(0, int(_ROOM * n_rows * self._row.itemsize) - present)
        free = shutil.disk_usage(self._path).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"{needed} bytes must be free for the rows to come, got {free}",
                str(self._path),
            )


def _digest(features: NDArray[np.float32]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(features), 8192):
        digest.update(np.ascontiguousarray(features[start : start + 8192]).data)
    return digest.hexdigest()
