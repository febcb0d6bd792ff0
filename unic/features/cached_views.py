"""Cached outputs of a frozen trunk: views of every image, in one file that is mapped to memory."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unic.features.frozen import FrozenBackbone
from unic.features.token_layout import TokenLayout
from unic.images.images import Images
from unic.images.loaders import ViewLoader
from unic.models.backbones import Backbone
from unic.models.trunk_output import TrunkOutput
from unic.runtime.shards import check_alike
from unic.storage.digests import image_digest
from unic.storage.resumption import resumption_key
from unic.storage.row_files import BLOCK_ROWS, Rows, find_rows, map_rows, read_header, write_rows

logger = logging.getLogger(__name__)


def extract_tokens(
    header: str | Path,
    loader: ViewLoader,
    frozen: FrozenBackbone,
    *,
    n_views: int,
    dtype: str,
    batch_size: int,
    seed: int,
    parameters: Mapping[str, Any],
    rows: range | None = None,
) -> TokenLayout:
    """Run the trunk once over views of every image and keep what it gives.

    The file appears beside the header under its name with ``.bin``, whole or not at all, the
    header last. An extraction that was killed goes on at the block it was in.

    Args:
        header: A ``.json`` file to be written.
        loader: Augmented views of the images.
        frozen: The backbone, whose trunk is used, and its normalization where the class token
            suffices.
        n_views: V, views of an image, at least 1.
        dtype: ``float16`` or ``int8``.
        batch_size: Images a batch, ``n_views`` views of each; the views are the same with any.
        seed: Of the views.
        parameters: What the tokens depend on; must be JSON. An interrupted extraction is taken up
            where they, the images and the weights are the same.
        rows: Neighboring images, from a multiple of ``BLOCK_ROWS`` on; all by default.

    Raises:
        OSError: If the disk has no room for the file; says how much it needs.
    """
    rows = range(len(loader.images)) if rows is None else rows
    layout = _layout(frozen, len(rows), n_views, dtype)
    about = {
        "kind": "tokens",
        "layout": asdict(layout),
        "images": image_digest(loader.images.ids[rows.start : rows.stop]),
        "parameters": dict(parameters) | {"seed": seed, "engine": frozen.engine.describe()},
    }

    def compute(block: range) -> Iterator[bytes]:
        block = range(rows.start + block.start, rows.start + block.stop)
        generator = np.random.default_rng([seed, block.start // BLOCK_ROWS])
        return _compute(block, loader, frozen, layout, batch_size, generator)

    write_rows(
        header,
        compute,
        n_rows=layout.n_images,
        row_bytes=layout.n_views * layout.record_bytes,
        about=about,
        key=resumption_key(about, images=[loader.images], network=frozen.backbone.model),
        need=f"{n_views} views of {layout.n_images} images take {layout.record_bytes} bytes each; "
        "lower finetuning.views",
    )
    logger.info("%d views of %d images, %.2f GB", n_views, layout.n_images, layout.n_bytes / 1e9)
    return layout


class CachedViews:
    """Gives cached trunk outputs of chosen images, batch by batch.

    The file is mapped to memory, where the system keeps it if it fits; on a GPU it is held in the
    device's memory if it fits there. Blocks are checked when an image of them is first asked for,
    and all of them before they are copied to a GPU.

    Args:
        header: Of :func:`extract_tokens`.
        device: Where the outputs are wanted.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file has another size than was written, its header is damaged, or, on
            being copied or asked for images, a block is.
    """

    images: Sequence[Images] = ()  # none is read
    has_gradient = False

    def __init__(self, header: str | Path, *, device: torch.device):
        content = read_header(header)
        self.layout = TokenLayout.read(content)
        self.image_digest: str = content["images"]
        self.device = device
        path = find_rows(header, self.layout.n_bytes)
        mapped = torch.from_file(str(path), size=self.layout.n_bytes // 8, dtype=torch.int64)
        rows = mapped.view(torch.uint8).view(self.layout.n_images, -1).numpy()  # (n, V r)
        self._rows = Rows(path, rows, content["checksums"])
        records = mapped.view(-1, self.layout.record_bytes // 8)  # (n V, r / 8)
        if _fits(device, self.layout.n_bytes):
            self._rows.check(np.arange(self.layout.n_images))
            records = records.to(device)
        self._records = records

    def batches(
        self,
        rows: Iterable[NDArray[np.int64]],
        generator: np.random.Generator,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> Iterator[TrunkOutput]:
        """Outputs of one random view of each image; the views of an image in a column differ.

        Args:
            rows: Arrays of image rows of shape ``(r, b)``, a batch each, such as anchors and their
                positives; an image that is its own positive gets another view of itself, where
                there is one.
            generator: Source of the choice.
            positions: Which images of every raveled batch to give; all by default.

        Yields:
            ``r b`` views, as :meth:`TokenLayout.unpack` gives them, until the next are asked for.
        """
        part = slice(None) if positions is None else positions
        records = self._records.new_empty(0)  # memory that is asked for once, and not each time
        for batch in rows:
            views = self._choose_views(batch, generator)  # (r, b)
            places = (batch * self.layout.n_views + views).ravel()[part]
            self._rows.check(batch.ravel()[part])
            chosen = torch.from_numpy(places).to(self._records.device)
            records = records.resize_(len(places), self._records.shape[1])
            torch.index_select(self._records, 0, chosen, out=records)
            yield self.layout.unpack(records.to(self.device).view(torch.uint8))

    def fit(self, backbone: Backbone) -> bool:
        """Whether what is cached is what the backbone would give."""
        if backbone.gives_features:
            return self.layout.class_token == 0 and self.layout.shape == (1, backbone.n_dims)
        return (self.layout.class_token > 0) == backbone.has_class_token_path

    def _choose_views(
        self, batch: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.int64]:
        n_views = self.layout.n_views
        views = generator.integers(n_views, size=batch.shape)  # (r, b)
        if n_views > 1:
            steps = generator.integers(1, n_views, size=batch.shape[1])  # (b,)
            is_same = batch[1] == batch[0]  # (b,)
            views[1] = np.where(is_same, (views[0] + steps) % n_views, views[1])
        return views


def _layout(frozen: FrozenBackbone, n_images: int, n_views: int, dtype: str) -> TokenLayout:
    probe = frozen.prepare(frozen.backbone.probe())
    class_token = 0 if probe.class_token is None else probe.class_token.shape[1]
    return TokenLayout(
        n_images=n_images,
        n_views=n_views,
        shape=tuple(probe.tokens.shape[1:]),
        class_token=class_token,
        dtype=dtype,
    )


def _compute(
    block: range,
    loader: ViewLoader,
    frozen: FrozenBackbone,
    layout: TokenLayout,
    batch_size: int,
    generator: np.random.Generator,
) -> Iterator[bytes]:
    starts = range(block.start, block.stop, batch_size)
    rows = [np.arange(start, min(start + batch_size, block.stop)) for start in starts]
    views = [np.repeat(r, layout.n_views) for r in rows]
    for pixels in loader.batches(views, generator, is_whole=True):
        yield layout.pack(frozen.prepare(pixels.to(frozen.engine.device))).numpy().tobytes()


def _fits(device: torch.device, n_bytes: int) -> bool:
    """Whether the file can be held in the memory of a GPU, with a fifth left for the rest."""
    return device.type == "cuda" and n_bytes < 0.8 * torch.cuda.mem_get_info(device)[0]


def join_tokens(header: str | Path, parts: Sequence[str | Path], ids: Sequence[str]) -> None:
    """Write the cached views of all shards as one file.

    Args:
        header: A ``.json`` file to be written, its rows beside it.
        parts: Headers of the shards, in order.
        ids: Image ids of all rows.

    Raises:
        ValueError: If the parts are not of the images, or of different settings; or one is
            damaged.
        OSError: If the disk has no room for the file.
    """
    headers = [read_header(part) for part in parts]
    lengths = [header["layout"]["n_images"] for header in headers]
    edges = np.cumsum([0, *lengths]).tolist()
    digests = [image_digest(ids[a:b]) for a, b in pairwise(edges)]
    if edges[-1] != len(ids) or digests != [header["images"] for header in headers]:
        raise ValueError(
            f"the parts in {Path(parts[0]).parent} must hold views of the {len(ids)} images in "
            "order, they hold others; delete them and run the workflow again"
        )
    check_alike(parts, [_settings(content) for content in headers])
    mapped = [_map_rows(part, content) for part, content in zip(parts, headers, strict=True)]
    about = {key: value for key, value in headers[0].items() if key != "checksums"}
    about["layout"] = about["layout"] | {"n_images": len(ids)}
    about["images"] = image_digest(ids)

    def compute(block: range) -> Iterator[bytes]:
        for first, rows in zip(edges[:-1], mapped, strict=True):
            n_rows = len(rows.array)
            start, stop = (min(max(edge - first, 0), n_rows) for edge in (block.start, block.stop))
            if start < stop:
                yield rows.take(range(start, stop)).tobytes()

    write_rows(
        header,
        compute,
        n_rows=len(ids),
        row_bytes=TokenLayout.read(headers[0]).n_bytes // lengths[0],
        about=about,
        key=resumption_key(about, files=parts),
        need="putting the parts together takes as much again as they do",
    )


def _settings(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the headers of all parts must have in common."""
    common = {key: value for key, value in header.items() if key not in ("checksums", "images")}
    layout = {key: value for key, value in header["layout"].items() if key != "n_images"}
    return common | {"layout": layout}


def _map_rows(header: str | Path, content: Mapping[str, Any]) -> Rows:
    """The rows ``(n, r)`` of a part, which may have none."""
    layout = TokenLayout.read(content)
    row_bytes = layout.n_views * layout.record_bytes
    return map_rows(header, content["checksums"], n_rows=layout.n_images, row_bytes=row_bytes)
