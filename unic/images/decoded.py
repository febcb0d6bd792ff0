"""Decoded images: squares of one size in one file that is mapped to memory, a row each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unic.images.images import Images
from unic.images.views import crop_square
from unic.storage.digests import image_digest
from unic.storage.resumption import resumption_key
from unic.storage.row_files import Rows, map_rows, read_header, write_rows

logger = logging.getLogger(__name__)


def decode_images(
    header: str | Path,
    images: Mapping[str, Images],
    *,
    size: int,
    n_workers: int,
    parameters: Mapping[str, Any],
) -> None:
    """Decode every image, resize its shorter side and keep the central square.

    Args:
        header: A ``.json`` file to be written; the pixels lie beside it, see
            :func:`unic.storage.row_files.write_rows`.
        images: Images by split.
        size: Side of the squares, pixels.
        n_workers: Threads that decode.
        parameters: What the pixels depend on; must be JSON. Decoding that was interrupted is taken
            up where they and the images are the same.

    Raises:
        OSError: If the disk has no room for the file; says how much it needs.
        ValueError: If an image cannot be decoded; names the file.
    """
    rows = [(split, row) for split in images for row in range(len(images[split]))]
    about = {
        "kind": "decoded",
        "size": size,
        "splits": [[len(part), image_digest(part.ids)] for part in images.values()],
        "parameters": dict(parameters),
    }

    def square(place: tuple[str, int]) -> bytes:
        split, row = place
        return crop_square(images[split][row], size).tobytes()

    with ThreadPoolExecutor(n_workers) as pool:

        def compute(block: range) -> Iterator[bytes]:
            return pool.map(square, rows[block.start : block.stop])

        write_rows(
            header,
            compute,
            n_rows=len(rows),
            row_bytes=3 * size**2,
            about=about,
            key=resumption_key(about, images=images.values()),
            need=f"{len(rows)} images of {size} x {size} pixels; lower data.decoded",
        )
    logger.info("%d images of %d x %d pixels", len(rows), size, size)


@dataclass(frozen=True)
class DecodedImages:
    """Images of a split in a file of :func:`decode_images`."""

    ids: Sequence[str]
    rows: Rows
    first: int  # row of the first image
    size: int
    digest: str  # of the header, which has checksums of all pixels

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def __getitem__(self, row: int) -> NDArray[np.uint8]:
        """Pixels of an image: uint8, shape ``(size, size, 3)``.

        Raises:
            ValueError: If it lies in a block that is damaged.
        """
        place = self.first + range(len(self))[row]
        return self.rows.take(range(place, place + 1)).reshape(self.size, self.size, 3)

    def fingerprint(self) -> str:
        """Digest of the pixels."""
        return self.digest


def open_decoded(header: str, ids: Sequence[str]) -> DecodedImages:
    """Open the decoded images of a split.

    Args:
        header: Of :func:`decode_images`.
        ids: All ids of the split, in order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of other images, or its header is damaged.
    """
    content = read_header(header)
    size, splits = content["size"], content["splits"]
    wanted = [len(ids), image_digest(ids)]
    if wanted not in splits:
        raise ValueError(
            f"{header} must hold the {len(ids)} images of the split, it holds others; delete it "
            "and run the workflow again"
        )
    n_images = sum(n_split for n_split, _ in splits)
    rows = map_rows(header, content["checksums"], n_rows=n_images, row_bytes=3 * size**2)
    first = sum(n_split for n_split, _ in splits[: splits.index(wanted)])
    return DecodedImages(ids, rows, first, size, digest=resumption_key({}, files=[header]))
