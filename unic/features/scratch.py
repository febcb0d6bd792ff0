"""Features that are written as they are computed, so that a killed extraction goes on."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unic.features.extraction import embed_batches
from unic.features.frozen import FrozenBackbone
from unic.images.images import Images
from unic.images.loaders import split_rows
from unic.images.views import View
from unic.runtime.shards import Shard
from unic.storage.digests import image_digest
from unic.storage.resumption import resumption_key
from unic.storage.row_files import BLOCK_ROWS, map_rows, read_header, write_rows

Splits = tuple[dict[str, NDArray[np.float32]], dict[str, Sequence[str]]]


@contextmanager
def extract_splits(
    images: Mapping[str, Images],
    frozen: FrozenBackbone,
    view: View,
    *,
    shard: Shard,
    batch_size: int,
    store: Path,
    parameters: Mapping[str, Any],
    n_workers: int = 1,
) -> Iterator[Splits]:
    """Embed a shard of every split, see :func:`unic.features.extraction.extract_features`.

    The rows are kept in a hidden folder beside the store to come, 512 by 512, and deleted when the
    context is left without an error. Those that a killed or failed extraction has left are taken
    up where it had the same settings, images and weights.

    Args:
        images: By split.
        frozen: The backbone.
        view: Evaluation view.
        shard: Which rows.
        batch_size: Images a batch; no batch goes beyond a multiple of 512 rows.
        store: Folder of the store that is written within the context.
        parameters: What the features depend on beside images and weights; must be JSON.
        n_workers: Threads that decode.

    Yields:
        Features ``(n, d)``, float32, mapped from disk, and the ids of their images, by split.

    Raises:
        ValueError: If an image cannot be decoded (names the file), or a feature is not finite
            (names the image).
        OSError: If the disk has no room for the features.
    """
    folder = store.with_name(f".{store.name}.rows")
    features: dict[str, NDArray[np.float32]] = {}
    held: dict[str, Sequence[str]] = {}
    for split, part in images.items():
        rows = shard.rows(len(part), multiple=BLOCK_ROWS)
        held[split] = part.ids[rows.start : rows.stop]
        about = {
            "kind": "features",
            "images": image_digest(held[split]),
            "n_dims": frozen.backbone.n_dims,
            "parameters": dict(parameters) | {"engine": frozen.engine.describe()},
        }
        about["key"] = resumption_key(about, images=[part], network=frozen.backbone.model)
        batches = _Batches(part, frozen, view, rows, batch_size, n_workers)
        features[split] = _write(folder / f"{split}.json", batches, about)
    yield features, held
    shutil.rmtree(folder, ignore_errors=True)


class _Batches:
    """Features of neighboring images, computed in one go from the first block that is asked for."""

    def __init__(
        self,
        images: Images,
        frozen: FrozenBackbone,
        view: View,
        rows: range,
        batch_size: int,
        n_workers: int,
    ) -> None:
        self.images, self.frozen, self.view, self.rows = images, frozen, view, rows
        self._batch_size, self._n_workers = batch_size, n_workers
        self._found: Iterator[NDArray[np.float32]] | None = None

    def compute(self, block: range) -> Iterator[bytes]:
        """The bytes of a block of these images, which is followed by the next."""
        if self._found is None:
            blocks = range(block.start, len(self.rows), BLOCK_ROWS)
            cut = [rows for start in blocks for rows in self._cut(start)]
            self._found = embed_batches(
                self.images, self.frozen, self.view, cut, n_workers=self._n_workers
            )
        for _ in self._cut(block.start):
            yield next(self._found).tobytes()

    def _cut(self, start: int) -> list[NDArray[np.int64]]:
        """Rows among all images of the batches of the block that starts at one of these."""
        n_rows = min(BLOCK_ROWS, len(self.rows) - start)
        return [self.rows[start] + part for part in split_rows(n_rows, self._batch_size)]


def _write(header: Path, batches: _Batches, about: Mapping[str, Any]) -> NDArray[np.float32]:
    """Compute the rows of a split, or those that are missing, and map them."""
    n_rows, row_bytes = len(batches.rows), 4 * batches.frozen.backbone.n_dims
    content = read_header(header) if header.is_file() else {}
    if any(content.get(name) != value for name, value in about.items()):
        write_rows(
            header,
            batches.compute,
            n_rows=n_rows,
            row_bytes=row_bytes,
            about=about,
            key=str(about["key"]),
            need=f"features of {n_rows} images, until they are stored",
        )
        content = read_header(header)
    rows = map_rows(header, content["checksums"], n_rows=n_rows, row_bytes=row_bytes)
    return rows.take(range(n_rows)).view(np.float32)
