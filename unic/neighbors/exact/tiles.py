"""The exact pass on a CPU: tiles of the upper triangle of the distance matrix, each read twice."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unic.neighbors.exact import lists, settling
from unic.neighbors.exact.operand import BASE, BLOCK_SIZE, Operand, Precision
from unic.neighbors.exact.ranking import Ranked
from unic.neighbors.exact.specials import Specials
from unic.neighbors.exact.threads import Room, Turns, in_threads, single_threaded_products

logger = logging.getLogger(__name__)


_GIVE_UP = 0.5  # share of unsettled rows in the first block at which a pass is not worth it


_Settled = tuple[Ranked, NDArray[np.int64]]


class TilePass:
    """One pass over the distances from some images to all.

    Args of the constructor are those of :func:`rank_rows`, and the operand.
    """

    def __init__(
        self,
        operand: Operand,
        specials: Specials,
        precision: Precision,
        n_neighbors: int,
        far_rank: int | None,
        block_size: int | None,
    ) -> None:
        """Take the operand and what is sought in it."""
        self._operand = operand
        self._n_images = len(operand.order)
        self._specials = specials
        places = np.searchsorted(specials.ordinary, operand.order)  # (n,)
        self._squared = specials.squared[places]  # (n, s), in the order of the operand
        self._n_neighbors = n_neighbors
        self._n_listed = min(n_neighbors, self._n_images)
        self._far_rank = far_rank
        self._block_size = block_size or BLOCK_SIZE
        self._is_bound = precision == "int8"
        n_doubtful = 0
        if far_rank is not None and not self._is_bound:
            n_doubtful = operand.count_doubtful(far_rank, specials)
        self._far_place = lists.FarRank(
            far_rank or 0, self._n_images, n_doubtful, self._is_bound, specials.weights
        )
        # Beyond the k sought, as many as the error of the screening may put before them.
        n_more = 64 + 2 * self._n_listed if precision == "int8" else 16
        self._n_kept = self._n_listed + n_more

    def triangle(self, n_rows: int) -> Iterator[_Settled]:
        """Rank the first ``n_rows`` images of the operand, by tiles on and above the diagonal.

        A tile serves its rows, and its columns as far as they are sought too. Each thread takes
        the next row of tiles and stays behind the one above: each list sees the images in one
        order, whatever the number of threads, and is complete when its row of tiles is.

        Yields:
            Settled rows of a block, and the images of its unsettled ones.
        """
        near, far = self._lists(np.arange(n_rows))
        n_sought = len(self._slices(0, n_rows))
        blocks = self._slices(0, n_rows) + self._slices(n_rows, self._n_images)
        turns = Turns(n_sought)

        def read(block: int, room: Room) -> _Settled:
            rows = blocks[block]
            for other in range(block, len(blocks)):
                columns = blocks[other]
                # Empty lists take in whole rows at once, but columns one entry after the other:
                # the tiles of the first row are not shared.
                is_sought = block < other < n_sought
                is_shared = is_sought and block > 0
                high, low = self._operand.products(rows, columns, room)  # (b, c) each
                turns.wait(block, other)
                seen = (columns.start, rows.start if is_shared else 0)
                self._scan(high, low, rows, rows.start, columns, near, far, seen, is_shared)
                if is_sought and not is_shared:
                    high, low = self._operand.products(columns, rows, room)  # (c, b) each
                    start = columns.start
                    self._scan(high, low, columns, start, rows, near, far, (rows.start, 0), False)
                turns.finish(block, other)
                progress.update()
            return self._settle(np.arange(rows.start, rows.stop), rows.start, near, far)

        n_tiles = sum(len(blocks) - block for block in range(n_sought))
        size = self._block_size**2
        with tqdm(total=n_tiles, desc="mine_neighbors", unit="tile", disable=None) as progress:
            yield from in_threads(read, range(n_sought), size, on_end=turns.cancel)

    def rectangle(self, positions: NDArray[np.int64]) -> Iterator[_Settled]:
        """Rank the images at some places of the operand, by tiles against all columns.

        Args:
            positions: Shape ``(m,)``, int64, places in the operand.

        Yields:
            As :meth:`triangle`.
        """
        columns = self._slices(0, self._n_images)

        def read(block: NDArray[np.int64], room: Room) -> _Settled:
            near, far = self._lists(block)
            rows = torch.from_numpy(block)
            for part in columns:
                high, low = self._operand.products(rows, part, room)  # (b, c) each
                self._scan(high, low, block, 0, part, near, far, (part.start, 0), False)
            return self._settle(block, 0, near, far)

        starts = range(0, len(positions), self._block_size)
        blocks = (positions[start : start + self._block_size] for start in starts)  # (b,) each
        yield from in_threads(read, blocks, self._block_size**2)

    def _lists(self, rows: NDArray[np.int64]) -> tuple[lists.NearLists, lists.FarWindows]:
        slacks = self._operand.slacks(rows).astype(np.float32)  # (b,)
        near = lists.near_lists(self._n_kept, slacks)
        rows = rows[:0] if self._far_rank is None else rows
        half_norms = self._operand.half_norms[rows, None]  # (b, 1)
        specials = self._squared[rows] * self._operand.half_scale - half_norms  # (b, s)
        slacks = slacks[: len(rows)] * (not self._is_bound)
        return near, lists.far_windows(specials.astype(np.float32), slacks, self._far_place)

    def _slices(self, first: int, last: int) -> list[slice]:
        starts = range(first, last, self._block_size)
        return [slice(start, min(start + self._block_size, last)) for start in starts]

    def _scan(
        self,
        high: torch.Tensor,
        low: torch.Tensor,
        rows: slice | NDArray[np.int64],
        first_row: int,
        columns: slice,
        near: lists.NearLists,
        far: lists.FarWindows,
        n_seen: tuple[int, int],
        is_for_columns: bool,
    ) -> None:
        lists.scan(
            high.numpy(),
            low.numpy(),
            np.float32(1 / BASE),
            self._operand.side(rows),
            self._operand.side(columns),
            near,
            far,
            first_row,
            columns.start,
            is_for_columns,
            *n_seen,
            self._n_listed,
            self._n_kept,
            self._far_place,
        )

    def _settle(
        self,
        positions: NDArray[np.int64],
        first_row: int,
        near: lists.NearLists,
        far: lists.FarWindows,
    ) -> _Settled:
        operand = self._operand
        indices = np.empty((len(positions), self._n_listed), dtype=np.int64)
        squared = np.empty((len(positions), self._n_listed))
        is_settled = settling.settle_near(
            operand.features,
            operand.order,
            positions,
            operand.half_norms,
            operand.half_scale,
            near,
            first_row,
            indices,
            squared,
        )
        specials = self._specials.rows(self._squared[positions])
        far_radius = np.empty(0, dtype=np.float32)
        if self._far_rank is not None:
            far_squared = self._settle_far(positions, first_row, far, specials)  # (b,)
            is_settled &= far_squared >= 0
            far_radius = np.sqrt(far_squared[is_settled]).astype(np.float32)
        rows = operand.order[positions]
        if len(specials.weights):
            indices, squared = settling.merge_specials(
                indices, squared, is_settled, specials, self._n_neighbors
            )
        ranked = Ranked(
            rows[is_settled],
            indices[is_settled],
            np.sqrt(squared[is_settled]).astype(np.float32),
            far_radius,
        )
        return ranked, rows[~is_settled]

    def _settle_far(
        self,
        positions: NDArray[np.int64],
        first_row: int,
        far: lists.FarWindows,
        specials: settling.SpecialRows,
    ) -> NDArray[np.float64]:
        operand, far_rank = self._operand, self._far_place.rank
        half_norms, half_scale = operand.half_norms[positions], operand.half_scale
        if self._is_bound:
            return settling.bound_far(half_norms, half_scale, far, first_row, far_rank, specials)
        return settling.settle_far(
            operand.features,
            operand.order,
            positions,
            half_norms,
            half_scale,
            operand.slacks(positions),
            far,
            first_row,
            far_rank,
            specials,
        )


def rank_rows(
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    specials: Specials,
    n_neighbors: int,
    far_rank: int | None,
    precision: Precision,
    block_size: int | None,
    keep: Callable[[Ranked], None],
) -> NDArray[np.int64]:
    """Rank all images by distance to some of them, keeping what is certain.

    Args:
        features: Shape ``(n, d)``, checked, C-contiguous.
        rows: Shape ``(m,)``, distinct ordinary images to rank the others for.
        specials: What is set apart.
        n_neighbors: tau_1 of the paper.
        far_rank: tau_2 of the paper; None leaves the far radius out.
        precision: Of the matrix products; ``int8`` gives a bound of the far radius from above.
        block_size: Rows and columns of a tile; by default 768.
        keep: Called with the settled rows of each block.

    Returns:
        The images whose rows are not settled, sorted.
    """
    n_images = len(specials.ordinary)
    order = np.random.default_rng(n_images).permutation(n_images)  # (n,), the same in every run
    order = specials.ordinary[order]
    is_sought = np.zeros(len(features), dtype=np.bool_)
    is_sought[rows] = True
    unsettled: list[NDArray[np.int64]] = []
    n_found = 0
    is_triangle = 2 * len(rows) >= n_images
    with single_threaded_products():
        if is_triangle:
            order = np.concatenate([order[is_sought[order]], order[~is_sought[order]]])
        operand = Operand(features, order, precision)
        tiles = TilePass(operand, specials, precision, n_neighbors, far_rank, block_size)
        places = np.flatnonzero(is_sought[order])  # in a triangle the first ones
        blocks = tiles.triangle(len(rows)) if is_triangle else tiles.rectangle(places)
        for ranked, missing in blocks:
            keep(ranked)
            n_found += len(ranked.rows)
            is_sought[ranked.rows] = False
            unsettled.append(missing)
            if len(missing) > _GIVE_UP * (len(missing) + n_found):
                logger.info("%s settles too few rows of these features: it is given up", precision)
                break
    return np.flatnonzero(is_sought)
