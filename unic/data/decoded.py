"""Decoded images: squares of one size in one file that is mapped to memory, a row each."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unic.data.datasets import open_images
from unic.data.images import ArrayImages, Images
from unic.data.views import crop_square
from unic.provenance import image_digest
from unic.rows import check_rows, find_rows, read_header, write_rows

log = logging.getLogger(__name__)


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
            :func:`unic.rows.write_rows`.
        images: Images by split.
        size: Side of the squares, pixels.
        n_workers: Threads that decode.
        parameters: What the pixels depend on; must be JSON.

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

        def compute(shard: range) -> Iterator[bytes]:
            return pool.map(square, rows[shard.start : shard.stop])

        write_rows(
            header,
            compute,
            n_rows=len(rows),
            row_bytes=3 * size**2,
            about=about,
            need=f"{len(rows)} images of {size} x {size} pixels; lower data.decoded",
        )
    log.info("%d images of %d x %d pixels", len(rows), size, size)


def open_pixels(name: str, ids: Sequence[str], *, root: str | None, decoded: str | None) -> Images:
    """Open the images of a split, decoded ones where there are such.

    Args:
        name: Data set, see :func:`unic.data.datasets.open_images`.
        ids: All ids of the split, in order.
        root: Folder of the files.
        decoded: Header of :func:`decode_images`, None to decode the images each time.

    Raises:
        FileNotFoundError: If there is no file of decoded images.
        ValueError: If it is damaged, or of other images.
    """
    if decoded is None:
        return open_images(name, ids, root=root)
    return ArrayImages(ids, _map_pixels(decoded, ids))


def _map_pixels(header: str, ids: Sequence[str]) -> NDArray[np.uint8]:
    content = read_header(header)
    size, splits = content["size"], content["splits"]
    wanted = [len(ids), image_digest(ids)]
    if wanted not in splits:
        raise ValueError(
            f"{header} must hold the {len(ids)} images of the split, it holds others; delete it "
            "and run the workflow again"
        )
    n_images = sum(n_split for n_split, _ in splits)
    path = find_rows(header, n_images * 3 * size**2)
    rows = np.asarray(np.memmap(path, mode="r")).reshape(n_images, -1)
    check_rows(path, rows, content["checksums"])
    first = sum(n_split for n_split, _ in splits[: splits.index(wanted)])
    return rows[first : first + len(ids)].reshape(-1, size, size, 3)  # (n, s, s, 3)
