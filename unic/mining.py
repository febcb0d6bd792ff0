"""The nearest images of every image, and the radius beyond which others are far."""

import logging
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

logger = logging.getLogger(__name__)

_BLOCK_ENTRIES = 2**25  # of a block of distances: 256 MB in float64
_PAIR_ENTRIES = 2**22  # of a block of differences: 32 MB in float64


class Neighbors(NamedTuple):
    """The ``k`` nearest images of each of ``n`` images, nearest first; column 0 is itself."""

    indices: NDArray[np.int64]  # (n, k)
    distances: NDArray[np.float32]  # (n, k), Euclidean
    far_radius: NDArray[np.float32]  # (n,), distance of the image at rank ``far_rank``


def mine_neighbors(
    features: NDArray[np.float32],
    *,
    n_neighbors: int,
    far_rank: int,
    device: str | torch.device = "cpu",
    block_size: int | None = None,
) -> Neighbors:
    """Rank all images by Euclidean distance to each image (UNIC, Eqs. 1-3).

    With ``Q_i`` the images in the order of ``d(x_i, x_j) = ||f(x_i) - f(x_j)||``, the neighbors
    of image ``i`` are ``Q_i[0:tau_1]``, and the far set ``Q_i[tau_2:n]`` starts at
    ``far_radius[i] = d(x_i, Q_i[tau_2])``.

    Exact, in one pass over blocks of the distance matrix. An image is always at rank 0 of its
    own list, also where duplicates of it exist; other ties go to the lower index. Distances are
    computed in float64 and rounded to the nearest float32 at the end; neither ``block_size`` nor
    ``device`` changes a bit of the result.

    Args:
        features: Shape ``(n, d)``, float32, finite, not all rows equal.
        n_neighbors: tau_1 of the paper, counts the image itself, ``1 <= n_neighbors < far_rank``.
        far_rank: tau_2 of the paper, counted from 0 (the image itself), ``far_rank < n``.
        device: Where the distances are computed, in the words of torch.
        block_size: Rows of the distance matrix held at a time; by default as many as fit 256 MB.

    Returns:
        Indices ``(n, k)`` int64, their Euclidean distances ``(n, k)`` float32, and the far radius
        ``(n,)`` float32.

    Raises:
        ValueError: If the ranks are out of order, or the features are not a finite float32 matrix
            (names the first such row), or are constant.
    """
    _check_ranks(n_neighbors, far_rank, n_images=check_features(features).shape[0])
    blocks = DistanceBlocks(features, device=device, block_size=block_size)
    n_images, n_dims = features.shape
    indices = np.empty((n_images, n_neighbors), dtype=np.int64)
    distances = np.empty((n_images, n_neighbors), dtype=np.float32)
    far_radius = np.empty(n_images, dtype=np.float32)
    for rows in tqdm(blocks.rows, desc="mine_neighbors", unit="block", disable=None):
        block = _mine_block(blocks, rows, n_neighbors, far_rank)
        indices[rows], distances[rows], far_radius[rows] = block
    logger.info(
        "mined %d neighbors and the distance at rank %d of %d images of %d dims on %s",
        n_neighbors,
        far_rank,
        n_images,
        n_dims,
        device,
    )
    return Neighbors(indices, distances, far_radius)


def check_features(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``features`` if they are a finite float32 matrix with at least one dim.

    Raises:
        ValueError: If they are not; names the first row that is not finite.
    """
    if features.ndim != 2 or features.dtype != np.float32:
        raise ValueError(
            "features must be a float32 array of shape (n, d), "
            f"got {features.dtype} of shape {features.shape}"
        )
    if features.shape[1] == 0:
        raise ValueError(f"features must have at least 1 dim, got shape {features.shape}")
    bad_rows = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad_rows.size:
        raise ValueError(
            f"features must be finite, got {bad_rows.size} rows that are not, "
            f"the first is row {bad_rows[0]}"
        )
    return features


class RankedPairs(NamedTuple):
    """Candidate images of the rows of a block, by row, then distance, then index."""

    rows: Tensor  # (p,) int64, within the block
    columns: Tensor  # (p,) int64
    squared: Tensor  # (p,) float64, squared distance; -1 for the image itself
    first: Tensor  # (b,) int64, position of the first pair of each row
    counts: Tensor  # (b,) int64, pairs of each row


class DistanceBlocks:
    """Squared Euclidean distances within one set of images, a block of rows at a time.

    The distance of a pair is *defined* as the float64 sum of squared differences, added in a
    fixed order. It is symmetric, exactly 0 between duplicates, and the same in every block and
    on every device, but slow. ``screen`` gives it for a whole block by one matrix product, off by
    at most ``slack``; ``rank`` computes it for the few pairs on which a decision hangs.

    Attributes:
        rows: The blocks, as slices of rows.
        slack: Shape ``(n, 1)``, float64, bound of ``|screened - squared|`` in each row.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        *,
        device: str | torch.device = "cpu",
        block_size: int | None = None,
    ) -> None:
        """Check the features and move them to the device.

        Raises:
            ValueError: If they are no finite float32 matrix, are constant, or so far apart that a
                distance overflows float32; or if ``block_size`` is below 1.
        """
        check_features(features)
        _check_spread(features)
        n_images, n_dims = features.shape
        if block_size is None:
            block_size = max(1, _BLOCK_ENTRIES // n_images)
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        self.rows = [
            slice(start, min(start + block_size, n_images))
            for start in range(0, n_images, block_size)
        ]
        self._features = torch.tensor(np.ascontiguousarray(features), device=device)  # (n, d)
        centered = self._features.double()  # (n, d)
        self._centered = centered - centered.mean(dim=0)  # (n, d), smaller norms: less slack
        self._squared_norms = self._centered.square().sum(dim=1)  # (n,)
        # Rounding in the centering, the norms, the matrix product and the defining sum adds up to
        # less than (2 d + 16) 2^-53 (|a| + |b|)^2, in whatever order a library adds; taken twice.
        norms = self._squared_norms.sqrt()[:, None]  # (n, 1)
        self.slack = (2 * n_dims + 16) * 2.0**-52 * (norms + norms.max()).square()  # (n, 1)

    def screen(self, rows: slice) -> Tensor:
        """Squared distances ``(b, n)`` float64 of a block within its slack; -inf to itself."""
        screened = torch.addmm(
            self._squared_norms[None, :], self._centered[rows], self._centered.T, alpha=-2.0
        )  # (b, n)
        screened += self._squared_norms[rows, None]
        diagonal = torch.arange(rows.start, rows.stop, device=screened.device)  # (b,)
        screened.scatter_(1, diagonal[:, None], -torch.inf)
        return screened

    def rank(self, rows: slice, is_candidate: Tensor) -> RankedPairs:
        """Order the candidates of each row of a block by exact distance, ties by index.

        Args:
            rows: The block.
            is_candidate: Shape ``(b, n)``, bool.
        """
        in_block, columns = is_candidate.nonzero(as_tuple=True)  # (p,) each, by row, then index
        squared = self._squared_distances(in_block + rows.start, columns)  # (p,)
        squared[columns == in_block + rows.start] = -1.0  # the image itself comes before duplicates
        order = torch.argsort(squared, stable=True)  # (p,)
        order = order[torch.argsort(in_block[order], stable=True)]  # (p,)
        counts = is_candidate.sum(dim=1)  # (b,)
        return RankedPairs(
            in_block[order], columns[order], squared[order], counts.cumsum(dim=0) - counts, counts
        )

    def _squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Squared distances ``(p,)`` float64 of pairs of images, as defined by this class."""
        n_pairs = max(1, _PAIR_ENTRIES // self._features.shape[1])
        squared = torch.empty(len(left), dtype=torch.float64, device=left.device)  # (p,)
        for start in range(0, len(left), n_pairs):
            chunk = slice(start, start + n_pairs)
            differences = self._features[left[chunk]].double()  # (p, d)
            differences -= self._features[right[chunk]]
            squared[chunk] = _sum_in_halves(differences.square_())
        return squared


def _mine_block(
    blocks: DistanceBlocks, rows: slice, n_neighbors: int, far_rank: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Indices ``(b, k)``, distances ``(b, k)`` and far radius ``(b,)`` of a block of rows."""
    screened = blocks.screen(rows)  # (b, n)
    near_cut, far_cut = _order_statistics(screened, (n_neighbors - 1, far_rank))  # (b, 1) each
    # An order statistic of the screened distances is within the slack of the exact one, and so
    # is each distance: beyond twice the slack on either side of the cut nothing is in doubt.
    doubt = 2 * blocks.slack[rows]  # (b, 1)
    near = blocks.rank(rows, screened <= near_cut + doubt)
    picked = near.first[:, None] + torch.arange(n_neighbors, device=screened.device)  # (b, k)
    is_nearer = screened < far_cut - doubt  # (b, n)
    far = blocks.rank(rows, ~is_nearer & (screened <= far_cut + doubt))
    at_far_rank = far.first + far_rank - is_nearer.sum(dim=1)  # (b,)
    return (
        near.columns[picked].cpu().numpy(),
        near.squared[picked].clamp_(min=0.0).sqrt().float().cpu().numpy(),
        far.squared[at_far_rank].sqrt().float().cpu().numpy(),
    )


def _order_statistics(values: Tensor, ranks: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The entries ``(b, 1)`` at two ranks, counted from 0, of each row of ``values`` ``(b, n)``."""
    if values.device.type == "cpu":  # one introselect for both ranks: 6 times as fast as kthvalue
        parted = torch.from_numpy(np.partition(values.numpy(), ranks, axis=1))  # (b, n)
        low, high = (parted[:, rank, None].clone() for rank in ranks)  # (b, 1) each
    else:
        low, high = (values.kthvalue(r + 1, dim=1, keepdim=True).values for r in ranks)
    return low, high


def _sum_in_halves(values: Tensor) -> Tensor:
    """Sum ``(p, d)`` to ``(p,)`` in an order that depends on ``d`` alone."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        folded = values[:, :half] + values[:, half : 2 * half]  # (p, d // 2)
        values = torch.cat([folded, values[:, 2 * half :]], dim=1)  # (p, ceil(d / 2))
    return values[:, 0]  # (p,)


def _check_ranks(n_neighbors: int, far_rank: int, *, n_images: int) -> None:
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, got {n_neighbors}")
    if n_neighbors >= far_rank:
        raise ValueError(f"n_neighbors must be below far_rank={far_rank}, got {n_neighbors}")
    if far_rank >= n_images:
        raise ValueError(f"far_rank must be below n={n_images}, got {far_rank}")


def _check_spread(features: NDArray[np.float32]) -> None:
    sides = features.max(axis=0).astype(np.float64) - features.min(axis=0)  # (d,)
    spread = float(np.linalg.norm(sides))
    if spread == 0.0:
        raise ValueError(
            f"features must not be constant, got {len(features)} identical rows: "
            "no image is nearer than another"
        )
    if spread > float(np.finfo(np.float32).max):
        raise ValueError(f"distances of features must fit float32, got a spread of {spread:.3g}")
