"""Images that are read one by one, from memory or from files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unic.images.decoding import decode_image


class Images(Protocol):
    """Images that can be read one by one, in a fixed order."""

    @property
    def ids(self) -> Sequence[str]:
        """Image ids, row by row."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image: uint8, shape ``(h, w, 3)``, RGB."""

    def fingerprint(self) -> str:
        """A digest that differs where the pixels may have changed."""


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory, all of one size."""

    ids: Sequence[str]
    pixels: NDArray[np.uint8]  # (n, h, w, 3)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image: uint8, shape ``(h, w, 3)``, RGB."""
        pixels: NDArray[np.uint8] = self.pixels[row]
        return pixels

    def fingerprint(self) -> str:
        """Digest of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()


@dataclass(frozen=True)
class FileImages:
    """Image files below a root."""

    ids: Sequence[str]
    root: str

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Decode an image file: uint8, shape ``(h, w, 3)``, RGB, upright.

        Raises:
            ValueError: If the file cannot be decoded; names it.
        """
        path = Path(self.root, self.ids[row])
        try:
            return decode_image(path)
        except FileNotFoundError:
            raise
        except Exception as error:  # Pillow raises all sorts on broken files
            raise ValueError(f"images must be readable, cannot decode {path}: {error}") from None

    def fingerprint(self) -> str:
        """Digest of the files' names, sizes and times, since reading them takes too long.

        The time of a file's latest change (ctime) is among them, which no copying keeps.

        Raises:
            FileNotFoundError: If a file is missing.
        """
        digest = hashlib.sha256()
        for image_id in self.ids:
            found = Path(self.root, image_id).stat()
            known = found.st_size, found.st_mtime_ns, found.st_ctime_ns
            digest.update(f"{image_id} {known}\0".encode())
        return digest.hexdigest()

    def find_fault(self, row: int) -> str | None:
        """Why an image cannot be read, None where it can."""
        try:
            decode_image(Path(self.root, self.ids[row]))
        except Exception as error:  # Pillow raises all sorts on broken files
            return " ".join(f"{type(error).__name__}: {error}".split())
        return None
