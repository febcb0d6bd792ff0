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


class Ranks(NamedTuple):
    """What a pass looks for."""

    near: lists.NearRank
    far: lists.FarRank


class Lists(NamedTuple):
    """What a pass keeps of the images of a block, at least as many as fill its last panel."""

    near: lists.NearLists
    far: lists.FarWindows

    def widen(self, n_seen: int, ranks: Ranks) -> "Lists":
        """The same, with room for what they hold when they have seen ``n_seen`` images."""
        near = lists.widen_lists(self.near, n_seen, ranks.near)
        return Lists(near, lists.widen_windows(self.far, n_seen, ranks.far))


class Served(NamedTuple):
    """The lists that a tile is read for."""

    rows: Lists
    columns: Lists  # those of no image if it is read for its rows alone
    n_row_seen: int  # images that were read before for the rows
    n_column_seen: int  # and for the columns


class Screen(Protocol):
    """Multiplies tiles and lists what may be near and what lies about the far rank."""

    fills_columns: bool  # whether it fills empty lists of columns as fast as those of rows

    def tile(
        self,
        rows: slice | NDArray[np.int64],
        columns: slice,
        ranks: Ranks,
        room: Room,
        take: Callable[[], Served],
    ) -> None:
        """Read a tile, see :func:`unic.neighbors.exact.lists.scan`.

        Args:
            rows: Places of the rows in the operand.
            columns: Places of the columns.
            ranks: What is looked for.
            room: Memory of the thread.
            take: Waits for the lists that take in what is found; called once.
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
        ranks: Ranks,
        room: Room,
        take: Callable[[], Served],
    ) -> None:
        """As in :class:`Screen`."""
        places = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        high, low = self._operand.products(places, columns, room)  # (b, c) each
        served = take()
        lists.scan(
            high.numpy(),
            low.numpy(),
            np.float32(1 / BASE),
            self._operand.side(rows),
            self._operand.side(columns),
            *served.rows,
            *served.columns,
            _first(rows),
            columns.start,
            *served[2:],
            *ranks,
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
        ranks: Ranks,
        room: Room,
        take: Callable[[], Served],
    ) -> None:
        """As in :class:`Screen`, for columns from a whole panel on."""
        packed = room.keep(rows, self._pack)
        served = take()
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
            *served.rows,
            *served.columns,
            _first(rows),
            columns.start,
            columns.stop - columns.start,
            *served[2:],
            *ranks,
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
        n_sought = len(self._slices(0, n_listed))
        blocks = self._slices(0, n_listed) + self._slices(n_listed, self._n_images)
        kept = [self._lists(np.arange(rows.start, rows.stop)) for rows in blocks[:n_sought]]
        nothing = self._lists(np.arange(0))
        # Rows may be sought for what they are: only all of them are a random part of the images.
        ranks = self._ranks(n_near=n_rows)
        turns = Turns(n_sought)

        def take(block: int, other: int, *, is_shared: bool) -> Served:
            """Wait for lists, and widen them for what a tile brings."""
            rows, columns = blocks[block], blocks[other]
            turns.wait(min(block, other), max(block, other))
            kept[block] = kept[block].widen(columns.stop, ranks)
            if not is_shared:
                return Served(kept[block], nothing, columns.start, 0)
            kept[other] = kept[other].widen(rows.stop, ranks)
            return Served(kept[block], kept[other], columns.start, rows.start)

        def read(block: int, room: Room) -> _Settled:
            rows = blocks[block]
            for other in range(block, len(blocks)):
                columns = blocks[other]
                is_sought = block < other < n_sought
                is_shared = is_sought and (block > 0 or self._screen.fills_columns)
                serve = partial(take, block, other, is_shared=is_shared)
                self._screen.tile(rows, columns, ranks, room, serve)
                if is_sought and not is_shared:
                    serve = partial(take, other, block, is_shared=False)
                    self._screen.tile(columns, rows, ranks, room, serve)
                turns.finish(block, other)
                progress.update()
            settled = self._settle(np.arange(rows.start, min(rows.stop, n_rows)), kept[block])
            kept[block] = nothing
            return settled

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
        ranks, nothing = self._ranks(n_near=self._n_images), self._lists(np.arange(0))

        def read(rows: NDArray[np.int64], room: Room) -> _Settled:
            kept = self._lists(rows)
            for part in columns:
                kept = kept.widen(part.stop, ranks)
                serve = partial(Served, kept, nothing, part.start, 0)
                self._screen.tile(rows, part, ranks, room, serve)
            return self._settle(rows, kept)

        starts = range(0, len(positions), self._block_size)
        blocks = (positions[start : start + self._block_size] for start in starts)  # (b,) each
        yield from in_threads(read, blocks, self._block_size**2)

    def _ranks(self, *, n_near: int) -> Ranks:
        return Ranks(lists.NearRank(self._n_listed, self._n_kept, n_near), self._far_place)

    def _lists(self, rows: NDArray[np.int64]) -> Lists:
        """Empty lists, also of rows that fill the last panel."""
        filled = rows[np.minimum(np.arange(_whole_panels(len(rows))), len(rows) - 1)]
        slacks = self._operand.slacks(filled).astype(np.float32)  # (b,)
        near = lists.near_lists(slacks)
        filled = filled[:0] if self._far_rank is None else filled
        half_norms = self._operand.half_norms[filled, None]  # (b, 1)
        specials = self._squared[filled] * self._operand.half_scale - half_norms  # (b, s)
        slacks = slacks[: len(filled)] * (not self._is_bound)
        return Lists(near, lists.far_windows(specials.astype(np.float32), slacks))

    def _slices(self, first: int, last: int) -> list[slice]:
        starts = range(first, last, self._block_size)
        return [slice(start, min(start + self._block_size, last)) for start in starts]

    def _settle(self, positions: NDArray[np.int64], kept: Lists) -> _Settled:
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
            indices,
            squared,
        )
        specials = self._specials.rows(self._squared[positions])
        far_radius = np.empty(0, dtype=np.float32)
        if self._far_rank is not None:
            far_squared = self._settle_far(positions, kept.far, specials)  # (b,)
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
        far: lists.FarWindows,
        specials: settling.SpecialRows,
    ) -> NDArray[np.float64]:
        operand, far_rank = self._operand, self._far_place.rank
        half_norms, half_scale = operand.half_norms[positions], operand.half_scale
        if self._is_bound:
            return settling.bound_far(half_norms, half_scale, far, far_rank, specials)
        return settling.settle_far(
            operand.features,
            operand.order,
            positions,
            half_norms,
            half_scale,
            operand.slacks(positions),
            far,
            far_rank,
            specials,
        )


def _first(rows: slice | NDArray[np.int64]) -> int:
    """The image that rows start at, if they are in one piece."""
    return rows.start if isinstance(rows, slice) else 0


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
