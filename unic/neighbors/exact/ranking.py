"""Distances in float64: what features must be, and rows ranked whatever their distances."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.neighbors.exact.settling import merge_specials
from unic.neighbors.exact.specials import Specials, no_specials
from unic.neighbors.exact.vectors import SUMS, measure_pairs

_BLOCK_ENTRIES = 2**24  # of a block of distances: 128 MB
_PAIR_ENTRIES = 2**22  # of a block of differences: 32 MB
_CHUNK_ROWS = 8192  # columns brought to float64 at a time


def check_spread(features: NDArray[np.float32]) -> None:
    """Refuse features by whose distances images cannot be ranked.

    Args:
        features: Shape ``(n, d)``, float32, finite.

    Raises:
        ValueError: If all rows are equal, or a distance might overflow float32.
    """
    sides = features.max(axis=0).astype(np.float64) - features.min(axis=0)  # (d,)
    spread = float(np.linalg.norm(sides))
    if spread == 0.0:
        raise ValueError(
            f"features must not be constant, got {len(features)} identical rows: "
            "no image is nearer than another"
        )
    if spread > float(np.finfo(np.float32).max):
        raise ValueError(f"distances of features must fit float32, got a spread of {spread:.3g}")


class RankedPairs(NamedTuple):
    """Candidates of the rows of a block, by row, then distance, then index.

    Columns are those of images, then those of special features.
    """

    rows: Tensor  # (p,) int64, within the block
    columns: Tensor  # (p,) int64
    squared: Tensor  # (p,) float64, squared distance; -1 for the image itself
    first: Tensor  # (b,) int64, position of the first pair of each row
    weights: Tensor  # (p,) int64, images that each stands for


class ExactRows:
    """Rows of the matrix of squared Euclidean distances, ranked with certainty.

    The distance of a pair is *defined* as the float64 sum of squared differences, added in a
    fixed order. It is symmetric, exactly 0 between duplicates, and the same in every block and
    on every device, but slow. ``screen`` gives it for whole rows by a matrix product, off by at
    most ``slack``; ``rank`` computes it for the few pairs on which a decision hangs.

    Where images are set apart, rows and columns are numbers of ordinary images; what is found are
    images, special ones included.
    """

    def __init__(
        self,
        features: NDArray[np.float32] | Tensor,
        *,
        device: str | torch.device = "cpu",
        block_size: int | None = None,
        specials: Specials | None = None,
    ) -> None:
        """Take the features ``(n, d)``, checked, and the rows to hold at a time.

        With ``specials`` the features are those of the ordinary images.
        """
        self._features = torch.as_tensor(features)  # (n, d)
        self._device = torch.device(device)
        n_images = len(self._features)
        self._specials = no_specials(n_images) if specials is None else specials
        weights = np.concatenate([np.ones(n_images, dtype=np.int64), self._specials.weights])
        self._weights = torch.from_numpy(weights).to(device)  # (n + s,)
        self._unit = torch.ones((), dtype=torch.float64, device=self._device)
        self._mean = self._features.mean(dim=0, dtype=torch.float64).to(device)  # (d,)
        self._squared_norms = torch.cat(
            [self._centered(chunk).square().sum(dim=1) for chunk in self._chunks()]
        )  # (n,)
        self.block_size = block_size or max(1, _BLOCK_ENTRIES // n_images)

    def slack(self, rows: Tensor) -> Tensor:
        """Bound ``(b, 1)`` of ``|screened - squared|`` in each row, in units of the screen.

        Rounding in the centering, the norms, the matrix product and the defining sum adds up to
        less than ``(2 d + 16) 2^-53 (|a| + |b|)^2``, in whatever order a library adds; taken twice.
        """
        norms = self._squared_norms[rows].sqrt()[:, None]  # (b, 1)
        greatest = self._squared_norms.max().sqrt()
        n_dims = self._features.shape[1]
        return (2 * n_dims + 16) * 2.0**-52 * (norms + greatest).square()

    def screen(self, rows: Tensor) -> Tensor:
        """Squared distances ``(b, n)`` float64 of some rows within the slack; -inf to itself.

        They are in units of the screen, ``unit`` times those of the features.
        """
        left = self._centered(rows)  # (b, d)
        screened = torch.empty(
            (len(rows), len(self._features)), dtype=torch.float64, device=self._device
        )  # (b, n)
        for chunk in self._chunks():
            norms = self._squared_norms[chunk][None, :]  # (1, c)
            screened[:, chunk] = torch.addmm(norms, left, self._centered(chunk).T, alpha=-2.0)
        screened += self._squared_norms[rows, None]
        screened.scatter_(1, rows[:, None], -torch.inf)
        return screened

    def rank(self, rows: Tensor, is_candidate: Tensor) -> RankedPairs:
        """Order the candidates ``(b, n)``, or ``(b, n + s)``, of each row by exact distance."""
        in_block, columns = is_candidate.nonzero(as_tuple=True)  # (p,) each, by row, then index
        squared = self._measure(rows[in_block], columns)  # (p,)
        squared[columns == rows[in_block]] = -1.0  # the image itself comes before duplicates
        order = torch.argsort(squared, stable=True)  # (p,)
        order = order[torch.argsort(in_block[order], stable=True)]  # (p,)
        counts = _count_rows(is_candidate)  # (b,)
        columns = columns[order]
        first = counts.cumsum(dim=0) - counts  # (b,)
        return RankedPairs(in_block[order], columns, squared[order], first, self._weights[columns])

    def nearest(
        self, rows: NDArray[np.int64], *, n_neighbors: int, far_rank: int | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Indices ``(b, k)``, distances ``(b, k)`` and far radius ``(b,)``, or ``(0,)``."""
        block = torch.as_tensor(rows, device=self._device)  # (b,)
        screened = self.screen(block)  # (b, n)
        # An order statistic of the screened distances is within the slack of the exact one, and
        # so is each distance: beyond twice the slack on either side nothing is in doubt.
        doubt = 2 * self.slack(block)  # (b, 1)
        n_listed = min(n_neighbors, screened.shape[1])
        near = self.rank(block, screened <= _order_statistic(screened, n_listed - 1) + doubt)
        picked = near.first[:, None] + torch.arange(n_listed, device=self._device)  # (b, k)
        indices = near.columns[picked].cpu().numpy()
        squared = near.squared[picked].clamp_(min=0.0).cpu().numpy()  # (b, k)
        indices, squared = self._merge(rows, indices, squared, n_neighbors)
        distances = np.sqrt(squared).astype(np.float32)
        if far_rank is None:
            return indices, distances, np.empty(0, dtype=np.float32)
        far, at_far_rank, _ = self._about(block, screened, far_rank)
        return indices, distances, far.squared[at_far_rank].sqrt().float().cpu().numpy()

    def beyond(self, rows: NDArray[np.int64], far_rank: int) -> NDArray[np.bool_]:
        """Mark the images ``(b, n)`` from a rank on, for some rows."""
        block = torch.as_tensor(rows, device=self._device)  # (b,)
        far, at_far_rank, is_nearer = self._about(block, self.screen(block), far_rank)
        position = torch.arange(len(far.rows), device=self._device)  # (p,)
        is_inside = position < at_far_rank[far.rows]  # (p,)
        is_nearer[far.rows[is_inside], far.columns[is_inside]] = True
        return ~is_nearer.cpu().numpy()

    def _about(
        self, rows: Tensor, screened: Tensor, far_rank: int
    ) -> tuple[RankedPairs, Tensor, Tensor]:
        """Pairs about a rank, the position ``(b,)`` of the one at it, and which are nearer."""
        doubt = 2 * self.slack(rows)  # (b, 1)
        every = self.with_specials(rows, screened)  # (b, n + s)
        cut = self.cut(every, far_rank)  # (b, 1)
        is_nearer = every < cut - doubt  # (b, n + s)
        pairs = self.rank(rows, ~is_nearer & (every <= cut + doubt))
        place = far_rank - self._count(is_nearer)  # (b,)
        reached = pairs.weights.cumsum(dim=0)  # (p,)
        place += reached[pairs.first] - pairs.weights[pairs.first]
        return pairs, torch.searchsorted(reached, place, right=True), is_nearer

    def cut(self, screened: Tensor, far_rank: int) -> Tensor:
        """What is at a rank ``(b, 1)`` of ``(b, n)``, or of ``(b, n + s)`` weighted columns."""
        if screened.shape[1] < self._weights.sum():  # each column as often as it counts
            columns = torch.arange(len(self._weights), device=self._device)
            screened = screened[:, columns.repeat_interleave(self._weights)]
        return _order_statistic(screened, far_rank)

    def with_specials(self, rows: Tensor, screened: Tensor) -> Tensor:
        """Columns of special features ``(b, n + s)`` after the others, which are exact."""
        if len(self._weights) == len(self._features):
            return screened
        return torch.cat([screened, (self._special(rows) * self._unit).to(screened.dtype)], dim=1)

    def _special(self, rows: Tensor) -> Tensor:
        """Squared distances ``(b, s)`` of some rows to special features, float64."""
        return torch.from_numpy(self._specials.squared[rows.cpu().numpy()]).to(self._device)

    def _count(self, is_column: Tensor) -> Tensor:
        """Images ``(b,)`` that the marked columns stand for."""
        n_images = len(self._features)
        counts = _count_rows(is_column[:, :n_images])
        return counts + (is_column[:, n_images:] * self._weights[n_images:]).sum(dim=1)

    def _merge(
        self,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        squared: NDArray[np.float64],
        n_neighbors: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest images ``(b, k)`` and squared distances, of nearest ordinary images."""
        specials = self._specials
        indices = specials.ordinary[columns]
        if not len(specials.weights):
            return indices, squared
        every = np.ones(len(rows), dtype=np.bool_)
        known = specials.rows(specials.squared[rows])
        return merge_specials(indices, squared, every, known, n_neighbors)

    def order(
        self, rows: NDArray[np.int64], candidates: NDArray[np.int64], n_neighbors: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Order candidates ``(b, c)``, -1 for none, of some rows: the first ``(b, k)`` of each."""
        listed = np.sort(candidates, axis=1)  # (b, c), so that ties go to the lower index
        left = torch.from_numpy(np.repeat(rows, listed.shape[1]))  # (b * c,)
        right = torch.from_numpy(listed.clip(min=0).ravel())  # (b * c,)
        squared = self._squared_distances(left, right).numpy().reshape(listed.shape)  # (b, c)
        squared[listed == rows[:, None]] = -1.0
        squared[listed < 0] = np.inf
        order = np.argsort(squared, axis=1, kind="stable")[:, :n_neighbors]  # (b, k)
        kept = np.take_along_axis(squared, order, axis=1).clip(min=0.0)  # (b, k)
        return np.take_along_axis(listed, order, axis=1), np.sqrt(kept).astype(np.float32)

    def _chunks(self) -> list[slice]:
        n_images = len(self._features)
        starts = range(0, n_images, _CHUNK_ROWS)
        return [slice(start, min(start + _CHUNK_ROWS, n_images)) for start in starts]

    def _centered(self, rows: slice | Tensor) -> Tensor:
        """Features of some rows ``(b, d)`` float64, less the mean: smaller norms, less slack."""
        return self._gather(rows).double() - self._mean

    def _gather(self, rows: slice | Tensor) -> Tensor:
        if isinstance(rows, Tensor):
            rows = rows.to(self._features.device)
        return self._features[rows].to(self._device)

    def _measure(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Squared distances ``(p,)`` float64 of rows and columns, those of specials among them."""
        n_images = len(self._features)
        is_special = columns >= n_images
        if not is_special.any():
            return self._squared_distances(rows, columns)
        squared = torch.empty(len(rows), dtype=torch.float64, device=self._device)
        known = ~is_special
        squared[known] = self._squared_distances(rows[known], columns[known])
        places = (rows[is_special].cpu().numpy(), columns[is_special].cpu().numpy() - n_images)
        squared[is_special] = torch.from_numpy(self._specials.squared[places]).to(self._device)
        return squared

    def _squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Squared distances ``(p,)`` float64 of pairs of images, as defined by this class."""
        if self._features.device.type == self._device.type == "cpu":
            features = self._features.numpy()
            found = measure_pairs(features, left.numpy(), features, right.numpy())
            return torch.from_numpy(found)
        n_pairs = max(1, _PAIR_ENTRIES // self._features.shape[1])
        squared = torch.empty(len(left), dtype=torch.float64, device=left.device)  # (p,)
        for start in range(0, len(left), n_pairs):
            chunk = slice(start, start + n_pairs)
            differences = self._gather(left[chunk]).double()  # (p, d)
            differences -= self._gather(right[chunk])
            squared[chunk] = sum_in_order(differences.square_())
        return squared


def sum_in_order(values: Tensor) -> Tensor:
    """Sum squares ``(p, d)`` to ``(p,)``, in the order of ``squared_distance`` of the vectors.

    The order is written twice, since the compiled loop does not run on GPUs, and this one takes
    ten times as long on a CPU. A test holds the two together to the last bit.
    """
    n_pairs, n_dims = values.shape
    sums = values.new_zeros((n_pairs, SUMS))  # (p, 32)
    for start in range(0, n_dims, SUMS):
        part = values[:, start : start + SUMS]
        sums[:, : part.shape[1]] += part
    half = SUMS // 2
    while half > 0:
        sums = sums[:, :half] + sums[:, half:]  # (p, 16) to (p, 1)
        half //= 2
    return sums[:, 0]  # (p,)


def _order_statistic(values: Tensor, rank: int) -> Tensor:
    """The entry ``(b, 1)`` at a rank, counted from 0, of each row of ``values`` ``(b, n)``."""
    if values.device.type == "cpu":  # introselect: 6 times as fast as kthvalue
        return torch.from_numpy(np.partition(values.numpy(), rank, axis=1)[:, rank, None])
    return values.kthvalue(rank + 1, dim=1, keepdim=True).values


def _count_rows(is_marked: Tensor) -> Tensor:
    """How many of each row ``(b, n)`` are marked: ``(b,)``, int64."""
    if is_marked.device.type == "cpu":  # a tenth of the time
        return torch.from_numpy(np.count_nonzero(is_marked.numpy(), axis=1))
    return is_marked.sum(dim=1)


class Ranked(NamedTuple):
    """What was found out about some rows of the distance matrix."""

    rows: NDArray[np.int64]  # (b,)
    indices: NDArray[np.int64]  # (b, k)
    distances: NDArray[np.float32]  # (b, k), Euclidean
    far_radius: NDArray[np.float32]  # (b,), or (0,) where no far rank was asked for

    def take(self, is_taken: NDArray[np.bool_]) -> "Ranked":
        """Some of the rows, by a mask of shape ``(b,)``."""
        radii = self.far_radius[is_taken] if len(self.far_radius) else self.far_radius
        return Ranked(self.rows[is_taken], self.indices[is_taken], self.distances[is_taken], radii)
