"""The exact pass on a CPU: tiles of the upper triangle of the distance matrix, each read twice."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unic.neighbors.exact import lists, settling
from unic.neighbors.exact.operand import BASE, BLOCK_SIZE, Operand, Precision
from unic.neighbors.exact.ranking import Ranked
from unic.neighbors.exact.specials import Specials
from unic.neighbors.exact.threads import Room, Turns, in_threads, single_threaded_products
from unic.neighbors.exact.vectors import (
    INSTRUCTIONS,
    PANEL,
    PackedRows,
    has_microkernel,
    pack_panels,
    pack_rows,
)
from unic.runtime.devices import has_int8

logger = logging.getLogger(__name__)


_GIVE_UP = 0.5  # share of unsettled rows in the first block at which a pass is not worth it
_MOST_IN_DOUBT = 0.1  # share of the images whose fine digits are multiplied one by one
_Settled = tuple[Ranked, NDArray[np.int64]]


class Lists(NamedTuple):
    """What a pass keeps of its rows, and looks for."""

    near: lists.NearLists
    far: lists.FarWindows
    near_rank: lists.NearRank
    far_rank: lists.FarRank


class Seen(NamedTuple):
    """Images that were read before a tile."""

    by_rows: int
    by_columns: int


class Screen(Protocol):
    """Multiplies tiles and lists what may be near and what lies about the far rank."""

    fills_columns: bool  # whether it fills empty lists of columns as fast as those of rows

    def tile(
        self,
        rows: slice | NDArray[np.int64],
        columns: slice,
        kept: Lists,
        first_row: int,
        seen: Seen,
        room: Room,
        *,
        is_for_columns: bool,
        wait: Callable[[], None],
    ) -> None:
        """Read a tile, see :func:`unic.neighbors.exact.lists.scan`.

        Args:
            rows: Places of the rows in the operand.
            columns: Places of the columns.
            kept: The lists that take in what is found.
            first_row: Row of the lists that the tile's rows start at.
            seen: What its rows and columns have read before.
            room: Memory of the thread.
            is_for_columns: Whether the columns have lists too.
            wait: Called before the lists are touched.
        """


class WrittenScreen:
    """Products by a library, written to memory and scanned there."""

    fills_columns = False

    def __init__(self, operand: Operand) -> None:
        """Take what is multiplied."""
        self._operand = operand

    def tile(
        self,
        rows: slice | NDArray[np.int64],
        columns: slice,
        kept: Lists,
        first_row: int,
        seen: Seen,
        room: Room,
        *,
        is_for_columns: bool,
        wait: Callable[[], None],
    ) -> None:
        """As in :class:`Screen`."""
        places = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        high, low = self._operand.products(places, columns, room)  # (b, c) each
        wait()
        lists.scan(
            high.numpy(),
            low.numpy(),
            np.float32(1 / BASE),
            self._operand.side(rows),
            self._operand.side(columns),
            kept.near,
            kept.far,
            first_row,
            columns.start,
            is_for_columns,
            *seen,
            kept.near_rank,
            kept.far_rank,
        )


class FusedScreen:
    """Products of bytes by the micro-kernel, compared in registers."""

    fills_columns = True

    def __init__(self, operand: Operand) -> None:
        """Pack what is multiplied."""
        self._operand = operand
        self._digits = operand.matrix.numpy()  # (n, d) or (n, 2 d)
        self._panels = pack_panels(self._digits[:, : operand.n_dims])
        n_more = -len(self._digits) % PANEL

        def pad(side: lists.Side) -> lists.Side:
            nobody = np.full(n_more, np.nan, dtype=np.float32)
            return lists.Side(*(np.concatenate([values, nobody]) for values in side))

        self._columns = pad(operand.sides)
        self._wide_columns = self._columns
        if operand.wide_sides is not operand.sides:
            self._wide_columns = pad(operand.wide_sides)

    def tile(
        self,
        rows: slice | NDArray[np.int64],
        columns: slice,
        kept: Lists,
        first_row: int,
        seen: Seen,
        room: Room,
        *,
        is_for_columns: bool,
        wait: Callable[[], None],
    ) -> None:
        """As in :class:`Screen`, for columns from a whole panel on."""
        packed = room.keep(rows, self._pack)
        wait()
        has_fine = self._wide_columns is not self._columns
        lists.scan_in_registers(
            packed,
            self._panels,
            self._digits if has_fine else self._digits[:0],
            np.float32(1 / BASE),
            self._operand.side(rows),
            self._columns,
            lists.Side(*(values[rows] for values in self._operand.wide_sides)),
            self._wide_columns,
            kept.near,
            kept.far,
            first_row,
            columns.start,
            columns.stop - columns.start,
            is_for_columns,
            *seen,
            kept.near_rank,
            kept.far_rank,
        )

    def _pack(self, rows: slice | NDArray[np.int64]) -> PackedRows:
        places = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        return pack_rows(self._digits, self._operand.n_dims, places)


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
        self._block_size = _whole_panels(block_size or BLOCK_SIZE)
        self._is_bound = precision == "int8"
        n_doubtful, share = 0, 0.0
        if far_rank is not None and not self._is_bound:
            n_doubtful, share = operand.count_doubtful(far_rank, specials)
        self._far_place = lists.FarRank(
            far_rank or 0, self._n_images, n_doubtful, self._is_bound, specials.weights
        )
        # Beyond the k sought, as many as the error of the screening may put before them.
        n_more = 64 + 2 * self._n_listed if precision == "int8" else 16
        self._n_kept = self._n_listed + n_more
        self.is_fused = precision != "float32" and has_microkernel() and share < _MOST_IN_DOUBT
        logger.info(
            "products in %s are %s, %.1f %% of them in doubt",
            precision,
            f"compared in registers by {INSTRUCTIONS.name}" if self.is_fused else "written",
            100 * share,
        )
        self._screen: Screen = FusedScreen(operand) if self.is_fused else WrittenScreen(operand)

    def triangle(self, n_rows: int) -> Iterator[_Settled]:
        """Rank the first ``n_rows`` images of the operand, by tiles on and above the diagonal.

        A tile serves its rows, and its columns as far as they are sought too. Each thread takes
        the next row of tiles and stays behind the one above: each list sees the images in one
        order, whatever the number of threads, and is complete when its row of tiles is.

        Yields:
            Settled rows of a block, and the images of its unsettled ones.
        """
        n_listed = min(_whole_panels(n_rows), self._n_images)
        # Rows may be sought for what they are: only all of them are a random part of the images.
        kept = self._lists(np.arange(_whole_panels(n_rows)), n_near=n_rows)
        n_sought = len(self._slices(0, n_listed))
        blocks = self._slices(0, n_listed) + self._slices(n_listed, self._n_images)
        turns = Turns(n_sought)

        def read(block: int, room: Room) -> _Settled:
            rows = blocks[block]
            for other in range(block, len(blocks)):
                columns = blocks[other]
                is_sought = block < other < n_sought
                is_shared = is_sought and (block > 0 or self._screen.fills_columns)
                wait = partial(turns.wait, block, other)
                seen = Seen(columns.start, rows.start if is_shared else 0)
                self._screen.tile(
                    *(rows, columns, kept, rows.start, seen, room),
                    is_for_columns=is_shared,
                    wait=wait,
                )
                if is_sought and not is_shared:
                    seen = Seen(rows.start, 0)
                    self._screen.tile(
                        *(columns, rows, kept, columns.start, seen, room),
                        is_for_columns=False,
                        wait=wait,
                    )
                turns.finish(block, other)
                progress.update()
            return self._settle(np.arange(rows.start, min(rows.stop, n_rows)), rows.start, kept)

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

        def read(rows: NDArray[np.int64], room: Room) -> _Settled:
            kept = self._lists(rows, n_near=self._n_images)
            for part in columns:
                seen = Seen(part.start, 0)
                self._screen.tile(
                    rows, part, kept, 0, seen, room, is_for_columns=False, wait=lambda: None
                )
            return self._settle(rows, 0, kept)

        starts = range(0, len(positions), self._block_size)
        blocks = (positions[start : start + self._block_size] for start in starts)  # (b,) each
        yield from in_threads(read, blocks, self._block_size**2)

    def _lists(self, rows: NDArray[np.int64], *, n_near: int) -> Lists:
        rows = np.minimum(rows, self._n_images - 1)  # beyond are lists that stay empty
        slacks = self._operand.slacks(rows).astype(np.float32)  # (b,)
        near = lists.near_lists(self._n_kept, slacks)
        rows = rows[:0] if self._far_rank is None else rows
        half_norms = self._operand.half_norms[rows, None]  # (b, 1)
        specials = self._squared[rows] * self._operand.half_scale - half_norms  # (b, s)
        slacks = slacks[: len(rows)] * (not self._is_bound)
        far = lists.far_windows(specials.astype(np.float32), slacks, self._far_place)
        near_rank = lists.NearRank(self._n_listed, self._n_kept, n_near)
        return Lists(near, far, near_rank, self._far_place)

    def _slices(self, first: int, last: int) -> list[slice]:
        starts = range(first, last, self._block_size)
        return [slice(start, min(start + self._block_size, last)) for start in starts]

    def _settle(self, positions: NDArray[np.int64], first_row: int, kept: Lists) -> _Settled:
        operand = self._operand
        indices = np.empty((len(positions), self._n_listed), dtype=np.int64)
        squared = np.empty((len(positions), self._n_listed))
        is_settled = settling.settle_near(
            operand.features,
            operand.order,
            positions,
            operand.half_norms,
            operand.half_scale,
            kept.near,
            first_row,
            indices,
            squared,
        )
        specials = self._specials.rows(self._squared[positions])
        far_radius = np.empty(0, dtype=np.float32)
        if self._far_rank is not None:
            far_squared = self._settle_far(positions, first_row, kept.far, specials)  # (b,)
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


def _whole_panels(n_images: int) -> int:
    """As many images or a few more, so that they fill panels of the micro-kernel."""
    return -(-n_images // PANEL) * PANEL


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
        settings = (n_neighbors, far_rank, block_size)
        tiles = TilePass(Operand(features, order, precision), specials, precision, *settings)
        if precision == "int16" and not (tiles.is_fused or has_int8()):
            logger.info("int16 leaves too much in doubt: float32 is faster on this processor")
            del tiles  # and its digits
            precision = "float32"
            tiles = TilePass(Operand(features, order, precision), specials, precision, *settings)
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
