"""Token layouts: what lies where in a row of cached views."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unic.models.trunk_output import TrunkOutput

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

        Args:
            records: Shape ``(b, record_bytes)``, uint8.
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


def _to_bytes(part: Tensor) -> Tensor:
    return part.cpu().contiguous().flatten(1).view(torch.uint8)
