"""The nearest images of every image, and the radius beyond which others are far."""

import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from unic.neighbors.exact.finished_rows import FinishedRows
from unic.neighbors.exact.operand import Precision, has_fast_digits
from unic.neighbors.exact.panels import rank_panels
from unic.neighbors.exact.ranking import ExactRows, Ranked, check_spread
from unic.neighbors.exact.specials import find_specials
from unic.neighbors.exact.tiles import rank_rows
from unic.neighbors.exact.vectors import measure_row
from unic.neighbors.faiss import FaissEngine, search
from unic.neighbors.metric import check_features
from unic.runtime.devices import MAX_INT8_DIMS
from unic.storage.digests import code_digest

logger = logging.getLogger(__name__)

Engine = Literal["exact"] | FaissEngine

_FEW = 0.002  # share of the rows that float64 ranks sooner than another operand is made
_FIRST, _IN_INT16, _IN_FLOAT64 = 0, 1, 2  # attempts at a row
_RECALL_ROWS = 512  # on which the recall of an approximate engine is measured
_FAR_ROWS = 64  # on which it is measured what a bound leaves of the far sets
_LITTLE = 0.9  # of the far sets


class MiningStats(NamedTuple):
    """How a pass went."""

    engine: str
    precision: str  # of the matrix products that rows were screened by
    resumed: int  # rows found in the checkpoint
    redone_int16: int  # rows that int8 did not settle, but int16 did
    redone_float64: int  # rows that were left to float64
    recall: float  # share of the true neighbors found: 1, or measured on a sample
    far_kept: int  # images beyond the bound of the far radius, of some rows
    far_sampled: int  # images beyond the far rank of these rows; 0 where the radius is exact

    def record(self) -> dict[str, Any]:
        """What a store keeps of it: all that is the same after a pass was resumed."""
        return {name: value for name, value in self._asdict().items() if name != "resumed"}


class Neighbors(NamedTuple):
    """The ``k`` nearest images of each of ``n`` images, nearest first; column 0 is itself."""

    indices: NDArray[np.int64]  # (n, k)
    distances: NDArray[np.float32]  # (n, k), Euclidean
    far_radius: NDArray[np.float32]  # (n,), distance of the image at rank ``far_rank``
    stats: MiningStats

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as a store of neighbors holds them."""
        return {name: value for name, value in self._asdict().items() if name != "stats"}


def mine_neighbors(
    features: NDArray[np.float32],
    *,
    n_neighbors: int,
    far_rank: int | None,
    device: str | torch.device = "cpu",
    block_size: int | None = None,
    engine: Engine = "exact",
    precision: Literal["auto"] | Precision = "auto",
    far_bound: bool = False,
    checkpoint: Path | None = None,
    rows: range | None = None,
) -> Neighbors:
    """Rank all images by Euclidean distance to each image (UNIC, Eqs. 1-3).

    With ``Q_i`` the images in the order of ``d(x_i, x_j) = ||f(x_i) - f(x_j)||``, the neighbors
    of image ``i`` are ``Q_i[0:tau_1]``, and the far set ``Q_i[tau_2:n]`` starts at
    ``far_radius[i] = d(x_i, Q_i[tau_2])``.

    Exact, in one pass over blocks of the distance matrix. An image is always at rank 0 of its
    own list, also where duplicates of it exist; other ties go to the lower index. Distances are
    computed in float64 and rounded to the nearest float32 at the end; neither ``block_size``,
    ``device``, ``precision`` nor the number of threads changes a bit of the result.

    How: products in ``precision`` screen all pairs, and proven bounds of their error
    (:class:`unic.neighbors.exact.operand.Operand`) leave few to be measured in float64. Rows that
    the bounds cannot settle are ranked again in a better precision, and counted.

    Args:
        features: Shape ``(n, d)``, float32, finite, not all rows equal. On a CPU they may be mapped
            from a file: in memory are their digits, a byte or two for each entry, and rows of them
            are read as they are measured.
        n_neighbors: tau_1 of the paper, counts the image itself, ``1 <= n_neighbors < far_rank``.
        far_rank: tau_2 of the paper, counted from 0 (the image itself), ``far_rank < n``; None
            leaves the far radius out.
        device: Where the distances are computed, such as ``cpu`` or ``cuda:0``.
        block_size: Rows of the distance matrix held at a time; by default what suits the device.
        engine: ``exact``, or an approximate or exact search of faiss for the neighbors; the far
            radius is exact in all cases and takes the full pass.
        precision: Of the products on a CPU. ``auto`` takes int8 where the processor multiplies
            bytes fast, and int16 if an exact far radius is asked for, which int8 cannot tell; else
            float32.
        far_bound: Whether a bound of the far radius from above will do: what is farther is beyond
            the far rank with certainty, but some images beyond it are not farther. With int8
            products it takes about half the time; other engines give the exact radius.
        checkpoint: Folder to keep finished rows of the exact pass in; a pass that finds some there
            goes on with the rest, and starts anew where they are of other features or parameters.
            Delete it when the result is stored (:func:`finished_rows_beside` does).
        rows: Images whose neighbors are wanted, among all images; all by default. With faiss all
            are searched for at once.

    Returns:
        Of the rows that are wanted, indices ``(n, k)`` int64, their Euclidean distances ``(n, k)``
        float32, the far radius ``(n,)`` float32, or ``(0,)`` without far rank, and how the pass
        went.

    Raises:
        ValueError: If the ranks are out of order, or the features are not a finite float32 matrix
            (names the first such row), or are constant; if the checkpoint is damaged.
        OSError: If the disk has no room for the checkpoint.

    Example:
        >>> features = np.array([[0], [1], [3], [7]], dtype=np.float32)
        >>> neighbors = mine_neighbors(features, n_neighbors=2, far_rank=3)
        >>> neighbors.indices.tolist()
        [[0, 1], [1, 0], [2, 1], [3, 2]]
        >>> neighbors.distances[:, 1].tolist(), neighbors.far_radius.tolist()
        ([1.0, 1.0, 2.0, 4.0], [7.0, 6.0, 4.0, 7.0])
    """
    n_images, n_dims = check_features(features).shape
    _check_ranks(n_neighbors, far_rank, n_images=n_images)
    check_spread(features)
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    features = np.ascontiguousarray(features)
    rows = range(n_images) if rows is None else rows
    if engine == "exact":
        mining = _Mining(features, n_neighbors, far_rank, torch.device(device), block_size, rows)
        neighbors = mining.run(
            _choose_precision(precision, far_rank, far_bound, n_dims), checkpoint
        )
    else:
        if len(rows) < n_images:
            raise ValueError(f"rows must be all {n_images} with engine {engine}, got {rows}")
        neighbors = _mine_with_faiss(
            features, n_neighbors, far_rank, device, engine, far_bound, checkpoint
        )
    logger.info(
        "mined %d neighbors%s of %d images among %d of %d dims on %s: %s",
        n_neighbors,
        "" if far_rank is None else f" and the distance at rank {far_rank}",
        len(rows),
        n_images,
        n_dims,
        device,
        ", ".join(f"{name} {value}" for name, value in neighbors.stats._asdict().items()),
    )
    return neighbors


class _Mining:
    """The arrays of a pass as they fill, and the engines that fill them."""

    def __init__(
        self,
        features: NDArray[np.float32],
        n_neighbors: int,
        far_rank: int | None,
        device: torch.device,
        block_size: int | None,
        rows: range,
    ) -> None:
        n_images = len(features)
        self._rows = slice(rows.start, rows.stop)
        self._features, self._device, self._block_size = features, device, block_size
        self._n_neighbors, self._far_rank = n_neighbors, far_rank
        self._indices = np.empty((n_images, n_neighbors), dtype=np.int64)
        self._distances = np.empty((n_images, n_neighbors), dtype=np.float32)
        n_radii = 0 if far_rank is None else n_images
        self._far_radius = np.empty(n_radii, dtype=np.float32)
        self._specials = find_specials(features)
        self._attempt = _FIRST
        self._attempts = np.zeros(n_images, dtype=np.uint8)  # (n,), which settled each row
        self._checkpoint: FinishedRows | None = None

    def run(self, precision: Precision, checkpoint: Path | None) -> Neighbors:
        rows = self._resume(checkpoint, is_bound=precision == "int8")
        resumed = len(self._attempts[self._rows]) - len(rows)
        rows = self._rank_specials(rows)
        if self._device.type != "cpu":
            self._panels(rows)
        else:
            rows = self._tiles(rows, precision)
            if precision == "int8" and len(rows) > _FEW * len(self._attempts[self._rows]):
                self._attempt = _IN_INT16
                rows = self._tiles(rows, "int16")
            self._attempt = _IN_FLOAT64
            self._exactly(rows)
        far_kept, far_sampled = self._measure_far(is_bound=precision == "int8")
        stats = MiningStats(
            engine="exact",
            precision=precision if self._device.type == "cpu" else "bfloat16 halves",
            resumed=resumed,
            redone_int16=int((self._attempts == _IN_INT16).sum()),
            redone_float64=int((self._attempts == _IN_FLOAT64).sum()),
            recall=1.0,
            far_kept=far_kept,
            far_sampled=far_sampled,
        )
        return Neighbors(
            self._indices[self._rows],
            self._distances[self._rows],
            self._far_radius[self._rows],
            stats,
        )

    def _resume(self, checkpoint: Path | None, *, is_bound: bool) -> NDArray[np.int64]:
        """Rows that are still to be ranked."""
        is_missing = np.ones(len(self._features), dtype=np.bool_)  # (n,)
        if checkpoint is not None:
            self._checkpoint = FinishedRows(
                checkpoint,
                self._features,
                n_neighbors=self._n_neighbors,
                far_rank=self._far_rank,
                is_bound=is_bound,
                code=code_digest(__file__),
            )
            found = self._checkpoint.read()
            self._fill(Ranked(*(found[name] for name in Ranked._fields)), found["attempt"])
            is_missing[found["rows"]] = False
            logger.info("found %d of %d rows in %s", len(found), len(is_missing), checkpoint)
        return self._rows.start + np.flatnonzero(is_missing[self._rows])

    def _measure_far(self, *, is_bound: bool) -> tuple[int, int]:
        """Images beyond the far radius of some rows, and beyond the far rank; 0 if all are."""
        if self._far_rank is None or not is_bound or self._device.type != "cpu":
            return 0, 0
        n_images = len(self._features)
        sample = np.random.default_rng(0).permutation(n_images)[:_FAR_ROWS]  # (s,)
        sample = sample[(sample >= self._rows.start) & (sample < self._rows.stop)]
        kept = 0
        for row in sample:
            distances = np.sqrt(measure_row(self._features, row).clip(min=0.0)).astype(np.float32)
            n_far = int((distances >= self._far_radius[row]).sum())  # of equal ones, those beyond
            kept += min(n_far, n_images - self._far_rank)
        sampled = len(sample) * (n_images - self._far_rank)
        if kept < _LITTLE * sampled:
            logger.warning(
                "negatives are drawn from only %.0f %% of the images beyond the far rank, whose "
                "bound is not close for these features; set neighbors.far_radius to exact",
                100 * kept / sampled,
            )
        return kept, sampled

    def _rank_specials(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rank the images that are set apart among some rows; give the other rows."""
        specials, is_sought = self._specials, np.zeros(len(self._features), dtype=np.bool_)
        is_sought[rows] = True
        for number in range(len(specials.weights)):
            own = specials.members[specials.first[number] : specials.first[number + 1]]
            if is_sought[own].any():
                ranked = Ranked(*specials.nearest(number, self._n_neighbors, self._far_rank))
                self._keep(ranked.take(is_sought[own]))
        return specials.ordinary[is_sought[specials.ordinary]]

    def _tiles(self, rows: NDArray[np.int64], precision: Precision) -> NDArray[np.int64]:
        if not len(rows):
            return rows
        return rank_rows(
            self._features,
            rows,
            specials=self._specials,
            n_neighbors=self._n_neighbors,
            far_rank=self._far_rank,
            precision=precision,
            block_size=self._block_size,
            keep=self._keep,
        )

    def _panels(self, rows: NDArray[np.int64]) -> None:
        rank_panels(
            self._features,
            rows,
            specials=self._specials,
            n_neighbors=self._n_neighbors,
            far_rank=self._far_rank,
            device=self._device,
            block_size=self._block_size,
            keep=self._keep,
        )

    def _exactly(self, rows: NDArray[np.int64]) -> None:
        if not len(rows):
            return
        logger.info("ranking %d of %d rows in float64", len(rows), len(self._features))
        exact = ExactRows(
            self._specials.select(self._features),
            device=self._device,
            block_size=self._block_size,
            specials=self._specials,
        )
        places = np.searchsorted(self._specials.ordinary, rows)  # (m,)
        for start in range(0, len(rows), exact.block_size):
            block = places[start : start + exact.block_size]
            found = exact.nearest(block, n_neighbors=self._n_neighbors, far_rank=self._far_rank)
            self._keep(Ranked(self._specials.ordinary[block], *found))

    def _keep(self, ranked: Ranked) -> None:
        self._fill(ranked, self._attempt)
        if self._checkpoint is not None:
            self._checkpoint.write(ranked, self._attempt)

    def _fill(self, ranked: Ranked, attempts: int | NDArray[np.uint8]) -> None:
        self._attempts[ranked.rows] = attempts
        self._indices[ranked.rows] = ranked.indices
        self._distances[ranked.rows] = ranked.distances
        if self._far_rank is not None:
            self._far_radius[ranked.rows] = ranked.far_radius


def _mine_with_faiss(
    features: NDArray[np.float32],
    n_neighbors: int,
    far_rank: int | None,
    device: str | torch.device,
    engine: FaissEngine,
    far_bound: bool,
    checkpoint: Path | None,
) -> Neighbors:
    n_images = len(features)
    indices, distances, missing = search(features, n_neighbors, engine=engine, device=device)
    exact = ExactRows(features)
    for start in range(0, len(missing), exact.block_size):
        block = missing[start : start + exact.block_size]
        indices[block], distances[block], _ = exact.nearest(
            block, n_neighbors=n_neighbors, far_rank=None
        )
    sample = np.random.default_rng(0).permutation(n_images)[:_RECALL_ROWS]  # (s,)
    n_found = 0
    for start in range(0, len(sample), exact.block_size):
        block = sample[start : start + exact.block_size]
        truth = exact.nearest(block, n_neighbors=n_neighbors, far_rank=None)[0]
        pairs = zip(indices[block], truth, strict=True)
        n_found += sum(len(np.intersect1d(found, true)) for found, true in pairs)
    far_radius, n_resumed, far_kept, far_sampled = np.empty(0, dtype=np.float32), 0, 0, 0
    if far_rank is not None:
        every = range(n_images)
        mining = _Mining(features, 1, far_rank, torch.device(device), None, every)
        precision = _choose_precision("auto", far_rank, far_bound, features.shape[1])
        exact_pass = mining.run(precision, checkpoint)
        far_radius, n_resumed = exact_pass.far_radius, exact_pass.stats.resumed
        far_kept, far_sampled = exact_pass.stats.far_kept, exact_pass.stats.far_sampled
    recall = n_found / (len(sample) * n_neighbors)
    stats = MiningStats(
        engine, "float32", n_resumed, 0, len(missing), recall, far_kept, far_sampled
    )
    return Neighbors(indices, distances, far_radius, stats)


def _choose_precision(
    precision: Literal["auto"] | Precision, far_rank: int | None, far_bound: bool, n_dims: int
) -> Precision:
    if precision == "auto":
        if not has_fast_digits() or n_dims > MAX_INT8_DIMS:
            return "float32"
        return "int8" if far_rank is None or far_bound else "int16"
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be auto or one of {get_args(Precision)}, got {precision}")
    if precision != "float32" and n_dims > MAX_INT8_DIMS:
        raise ValueError(
            f"precision must be float32 above {MAX_INT8_DIMS} dims, got {precision} and {n_dims}"
        )
    if precision != "float32" and not has_fast_digits():
        raise ValueError(
            "precision must be float32 on a processor without fast int8 products (VNNI, AMX or "
            f"AVX2), got {precision}"
        )
    if precision == "int8" and far_rank is not None and not far_bound:
        raise ValueError(
            "precision must be int16 or float32 where an exact far radius is asked for: int8 "
            f"cannot tell the image at far_rank, got int8 and far_rank={far_rank}"
        )
    return precision


def _check_ranks(n_neighbors: int, far_rank: int | None, *, n_images: int) -> None:
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    if far_rank is None:
        if n_neighbors > n_images:
            raise ValueError(f"n_neighbors must be at most n={n_images}, got {n_neighbors}")
        return
    if n_neighbors >= far_rank:
        raise ValueError(f"n_neighbors must be below far_rank={far_rank}, got {n_neighbors}")
    if far_rank >= n_images:
        raise ValueError(f"far_rank must be below n={n_images}, got {far_rank}")
