"""Cached outputs of a frozen trunk: views of every image, in one file that is mapped to memory."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.backbones import Backbone
from unic.class_token import TrunkOutput
from unic.data.loaders import ViewLoader
from unic.provenance import image_digest
from unic.resumption import resumption_key
from unic.rows import SHARD_ROWS, Rows, find_rows, read_header, write_rows

log = logging.getLogger(__name__)

DTYPES = {"float16": torch.float16, "int8": torch.int8}


@dataclass(frozen=True)
class TokenLayout:
    """What lies where in a row: ``n_views`` records of class token, scales and tokens.

    The class token is float32. Tokens are float16, or int8 with a float32 scale for each entry of
    their first axis: a token, or a channel of a convolutional map.
    """

    n_images: int
    n_views: int
    shape: tuple[int, ...]  # of the tokens of a view
    class_token: int  # its length, 0 on the plain path
    dtype: str  # float16 or int8

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The layout of the rows of a header."""
        fields = content["layout"]
        return cls(**fields | {"shape": tuple(fields["shape"])})

    @property
    def n_scales(self) -> int:
        """Scales of a view."""
        return self.shape[0] if self.dtype == "int8" else 0

    @property
    def record_bytes(self) -> int:
        """Bytes of a view, a multiple of 8."""
        tokens = int(np.prod(self.shape)) * DTYPES[self.dtype].itemsize
        return -(-(4 * (self.class_token + self.n_scales) + tokens) // 8) * 8

    @property
    def n_bytes(self) -> int:
        """Bytes of the file."""
        return self.n_images * self.n_views * self.record_bytes

    def pack(self, output: TrunkOutput) -> Tensor:
        """Records of ``b`` views: uint8, shape ``(b, record_bytes)``, on the CPU."""
        tokens, scales = output.tokens.float().cpu(), None
        if self.dtype == "int8":
            rows = tokens.flatten(2)  # (b, t, d)
            scales = rows.abs().amax(2).clamp(min=torch.finfo(torch.float32).tiny) / 127  # (b, t)
            tokens = (rows / scales[..., None]).round()
        parts = [output.class_token, scales, tokens.to(DTYPES[self.dtype])]
        kept = [_to_bytes(part) for part in parts if part is not None]
        records = torch.zeros(len(tokens), self.record_bytes, dtype=torch.uint8)
        written = torch.cat(kept, 1)
        records[:, : written.shape[1]] = written
        return records

    def unpack(self, records: Tensor) -> TrunkOutput:
        """What :meth:`pack` was given, on the device of the records.

        Normalized tokens stay in their dtype, with scales where that is int8; the plain output of
        a trunk becomes float32.
        """
        start = 4 * self.class_token
        middle = start + 4 * self.n_scales
        dtype = DTYPES[self.dtype]
        end = middle + int(np.prod(self.shape)) * dtype.itemsize
        tokens = records[:, middle:end].view(dtype).unflatten(1, self.shape)
        scales = records[:, start:middle].view(torch.float32) if self.n_scales else None  # (b, t)
        if self.class_token:
            return TrunkOutput(tokens, records[:, :start].view(torch.float32), scales)
        tokens = tokens.float()
        if scales is not None:
            tokens *= scales.view(-1, self.n_scales, *(1 for _ in self.shape[1:]))
        return TrunkOutput(tokens)


def extract_tokens(
    header: str | Path,
    loader: ViewLoader,
    backbone: Backbone,
    *,
    n_views: int,
    dtype: str,
    batch_size: int,
    seed: int,
    precision: torch.dtype,
    device: torch.device,
    parameters: Mapping[str, Any],
    rows: range | None = None,
) -> TokenLayout:
    """Run the trunk once over views of every image and keep what it gives.

    The file appears beside the header under its name with ``.bin``, whole or not at all, the
    header last. An extraction that was killed goes on at the shard it was in.

    Args:
        header: A ``.json`` file to be written.
        loader: Augmented views of the images.
        backbone: Its trunk is used, and its normalization where the class token suffices.
        n_views: V, views of an image, at least 1.
        dtype: ``float16`` or ``int8``.
        batch_size: Images a batch, ``n_views`` views of each; the views are the same with any.
        seed: Of the views.
        precision: What the trunk computes in.
        device: Where the trunk runs.
        parameters: What the tokens depend on; must be JSON. An interrupted extraction is taken up
            where they, the images and the weights are the same.
        rows: Neighboring images, from a multiple of ``SHARD_ROWS`` on; all by default.

    Raises:
        OSError: If the disk has no room for the file; says how much it needs.
    """
    backbone.to(device)
    rows = range(len(loader.images)) if rows is None else rows
    layout = _layout(loader, backbone, len(rows), n_views, dtype, device)
    about = {
        "kind": "tokens",
        "layout": asdict(layout),
        "images": image_digest(loader.images.ids[rows.start : rows.stop]),
        "parameters": dict(parameters) | {"seed": seed, "precision": str(precision)},
    }

    def compute(shard: range) -> Iterator[bytes]:
        shard = range(rows.start + shard.start, rows.start + shard.stop)
        generator = np.random.default_rng([seed, shard.start // SHARD_ROWS])
        return _compute(shard, loader, backbone, layout, batch_size, generator, precision, device)

    write_rows(
        header,
        compute,
        n_rows=layout.n_images,
        row_bytes=layout.n_views * layout.record_bytes,
        about=about,
        key=resumption_key(about, images=[loader.images], network=backbone.model),
        need=f"{n_views} views of {layout.n_images} images take {layout.record_bytes} bytes each; "
        "lower finetuning.views",
    )
    log.info("%d views of %d images, %.2f GB", n_views, layout.n_images, layout.n_bytes / 1e9)
    return layout


class CachedViews:
    """Gives cached trunk outputs of chosen images, batch by batch.

    The file is mapped to memory, where the system keeps it if it fits; on a GPU it is held in the
    device's memory if it fits there. Shards are checked when an image of them is first asked for,
    and all of them before they are copied to a GPU.

    Args:
        header: Of :func:`extract_tokens`.
        device: Where the outputs are wanted.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file has another size than was written, its header is damaged, or, on
            being copied or asked for images, a shard is.
    """

    def __init__(self, header: str | Path, *, device: torch.device):
        content = read_header(header)
        self.layout = TokenLayout.read(content)
        self.images: str = content["images"]
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


def _layout(
    loader: ViewLoader,
    backbone: Backbone,
    n_images: int,
    n_views: int,
    dtype: str,
    device: torch.device,
) -> TokenLayout:
    size = loader.view.image_size
    with torch.no_grad():
        probe = backbone.prepare(torch.zeros(1, 3, size, size, device=device))
    class_token = 0 if probe.class_token is None else probe.class_token.shape[1]
    return TokenLayout(
        n_images=n_images,
        n_views=n_views,
        shape=tuple(probe.tokens.shape[1:]),
        class_token=class_token,
        dtype=dtype,
    )


@torch.no_grad()
def _compute(
    shard: range,
    loader: ViewLoader,
    backbone: Backbone,
    layout: TokenLayout,
    batch_size: int,
    generator: np.random.Generator,
    precision: torch.dtype,
    device: torch.device,
) -> Iterator[bytes]:
    starts = range(shard.start, shard.stop, batch_size)
    rows = [np.arange(start, min(start + batch_size, shard.stop)) for start in starts]
    views = [np.repeat(r, layout.n_views) for r in rows]
    for pixels in loader.batches(views, generator, is_whole=True):
        output = backbone.prepare(pixels.to(device), precision=precision)
        yield layout.pack(output).numpy().tobytes()


def _fits(device: torch.device, n_bytes: int) -> bool:
    """Whether the file can be held in the memory of a GPU, with a fifth left for the rest."""
    return device.type == "cuda" and n_bytes < 0.8 * torch.cuda.mem_get_info(device)[0]


def _to_bytes(part: Tensor) -> Tensor:
    return part.cpu().contiguous().flatten(1).view(torch.uint8)
