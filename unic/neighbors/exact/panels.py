"""The exact pass on GPUs: whole rows of distances, screened on tensor cores."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unic.neighbors.exact.ranking import ExactRows, Ranked
from unic.neighbors.exact.specials import Specials

logger = logging.getLogger(__name__)

_SHARE = 0.5  # of the free device memory for the features, and as much for a panel
_PANEL_BYTES = 32  # for each distance of a panel: scores, masks, copies of the selection
_TENSOR_CORE = 2.0**-22  # relative error of an addition on tensor cores, which truncate


class SplitRows(ExactRows):
    """Rows of squared distances, screened by products of features split into bfloat16 halves.

    With ``a`` the centered features, times a power of two that brings them to at most 1,
    ``h = bf16(a)``, ``l = bf16(a - h)`` and ``r = a - h - l``, the products ``h.h + h.l + l.h``
    are one matrix product of depth ``3 d`` added up in float32, three times the work of a
    bfloat16 product and a fraction of a float32 one.

    Bound. By Cauchy-Schwarz what is left out is at most ``|r_i| |a_j| + |a_i| |r_j| (1 + t) +
    |l_i| |l_j|``; adding up ``3 d`` exact products is off by at most ``3 d t |a_i| |a_j|``
    (1 % added for second order), where ``t = 2^-22`` allows for tensor cores that truncate.
    Norms and the sum of the three terms are rounded to float32: ``4 * 2^-24 (|a_i| + |a_j|)^2``.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        *,
        device: torch.device,
        block_size: int | None = None,
        specials: Specials | None = None,
    ) -> None:
        """Bring the features to the device, or pin them where it is too small."""
        n_images = len(features)
        stored: Tensor = torch.from_numpy(features)
        self._is_resident = 10 * features.nbytes // 4 < _SHARE * _free_bytes(device)
        if self._is_resident:
            stored = stored.to(device)
        elif device.type == "cuda":
            stored = stored.pin_memory()
        if block_size is None:
            fitting = int(_SHARE * _free_bytes(device) / (_PANEL_BYTES * n_images))
            block_size = max(1, min(fitting, 4096))
        super().__init__(stored, device=device, block_size=block_size, specials=specials)
        largest = self._squared_norms.max().sqrt()
        self._scale = torch.exp2(-torch.ceil(torch.log2(largest)))  # of an image, not an entry
        self._unit = self._scale.square()
        parts = [self._split(chunk) for chunk in self._chunks()]
        self._low_norms = torch.cat([low for _, low, _ in parts])  # (n,)
        self._residuals = torch.cat([residual for _, _, residual in parts])  # (n,)
        self._right = torch.cat([right for right, _, _ in parts]) if self._is_resident else None

    def slack(self, rows: Tensor) -> Tensor:
        """Bound ``(b, 1)`` of ``|screened - squared|`` in each row, in units of the screen."""
        norms = self._squared_norms.sqrt() * self._scale  # (n,)
        n_dims = self._features.shape[1]
        left_out = (
            self._residuals[rows] * norms.max()
            + norms[rows] * self._residuals.max()
            + self._low_norms[rows] * self._low_norms.max()
        )  # (b,)
        added_up = 3 * n_dims * _TENSOR_CORE * norms[rows] * norms.max()  # (b,)
        rounded = 4 * 2.0**-24 * (norms[rows] + norms.max()).square()  # (b,)
        bound = 1.01 * (2 * (left_out + added_up) + rounded)  # (b,)
        return bound[:, None] + super().slack(rows) * self._unit

    def screen(self, rows: Tensor) -> Tensor:
        """Squared distances ``(b, n)`` float32 of some rows within the slack; -inf to itself.

        They are those of scaled features, whose norms are at most 1: those of features of 1e-22
        would be zeros in float32.
        """
        left, _, _ = self._split(rows)  # (b, 3 d), high, high, low
        n_dims = self._features.shape[1]
        left = torch.cat([left[:, :n_dims], left[:, 2 * n_dims :], left[:, :n_dims]], dim=1)
        norms = (self._squared_norms * self._unit).float()  # (n,)
        screened = torch.empty((len(rows), len(norms)), device=self._device)  # (b, n)
        for chunk, right in self._operands():
            screened[:, chunk] = _products(left, right).mul_(-2.0).add_(norms[chunk])
        screened += norms[rows, None]
        screened.scatter_(1, rows[:, None], -torch.inf)
        return screened

    def _split(self, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """High, high and low parts ``(b, 3 d)``, norms of the low and of the rest ``(b,)``."""
        return self._split_centered(self._centered(rows))

    def _split_centered(self, centered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled = centered * self._scale  # (b, d), float64
        high = scaled.bfloat16()  # (b, d)
        low = (scaled - high.double()).bfloat16()  # (b, d)
        rest = scaled - high.double() - low.double()  # (b, d)
        return (
            torch.cat([high, high, low], dim=1),
            low.double().norm(dim=1),
            rest.norm(dim=1),
        )

    def _operands(self) -> Iterator[tuple[slice, Tensor]]:
        """Columns and their right operands; copied one chunk ahead where they are not resident."""
        if self._right is not None:
            yield from ((chunk, self._right[chunk]) for chunk in self._chunks())
            return
        if self._device.type != "cuda":
            yield from ((chunk, self._split(chunk)[0]) for chunk in self._chunks())
            return
        copying = torch.cuda.Stream(self._device)
        computing = torch.cuda.current_stream(self._device)

        def copy(chunk: slice) -> Tensor:
            with torch.cuda.stream(copying):
                return self._features[chunk].to(self._device, non_blocking=True)

        chunks = self._chunks()
        ahead = copy(chunks[0])  # (c, d)
        for chunk, following in zip(chunks, [*chunks[1:], None], strict=True):
            computing.wait_stream(copying)
            features = ahead
            features.record_stream(computing)
            if following is not None:
                ahead = copy(following)
            yield chunk, self._split_centered(features.double() - self._mean)[0]


def rank_panels(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    specials: Specials,
    n_neighbors: int,
    far_rank: int | None,
    device: torch.device,
    block_size: int | None,
    keep: Callable[[Ranked], None],
) -> None:
    """Rank all images by distance to some of them, the rows shared out among the GPUs.

    Args:
        features: Shape ``(n, d)``, checked, C-contiguous.
        rows: Shape ``(m,)``, ordinary images to rank the others for.
        specials: What is set apart.
        n_neighbors: tau_1 of the paper.
        far_rank: tau_2 of the paper; None leaves the far radius out.
        device: ``cuda`` for all GPUs of the machine, ``cuda:0`` for one.
        block_size: Rows of a panel; by default as many as fit half of the free memory.
        keep: Called with each panel's rows, by one thread at a time.
    """
    if not len(rows):
        return
    devices = [device]
    if str(device) == "cuda":
        devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    lock = Lock()

    ordinary = specials.select(features)  # (n, d)
    places = np.searchsorted(specials.ordinary, rows)  # (m,)

    def rank_shard(device: torch.device, shard: NDArray[np.int64]) -> None:
        panels = SplitRows(ordinary, device=device, block_size=block_size, specials=specials)
        for start in range(0, len(shard), panels.block_size):
            block = shard[start : start + panels.block_size]
            found = panels.nearest(block, n_neighbors=n_neighbors, far_rank=far_rank)
            with lock:
                keep(Ranked(specials.ordinary[block], *found))
                progress.update(len(block))

    with (
        tqdm(total=len(rows), desc="mine_neighbors", unit="row", disable=None) as progress,
        ThreadPoolExecutor(len(devices)) as pool,
    ):
        list(pool.map(rank_shard, devices, np.array_split(places, len(devices))))


def _products(left: Tensor, right: Tensor) -> Tensor:
    """Products ``(b, c)`` of bfloat16 operands, added up and given in float32."""
    if left.device.type == "cuda":
        return torch.mm(left, right.T, out_dtype=torch.float32)
    return left.float() @ right.float().T


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return 2**30
