"""k-means: greedy k-means++ seeding and Lloyd's iterations, the best of several restarts.

Semi-supervised k-means is the same with some images kept in the cluster of their known label.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unic.baselines.kmeans_loops import Rows, lower_closest, square_digits, sum_lowered
from unic.baselines.lloyd import (
    describe,
    find_nearest,
    find_nearest_on_device,
    iterate,
    iterate_on_device,
    multiply,
    pays_int8,
    squared_distances,
)
from unic.neighbors.metric import check_features
from unic.storage.known_labels import UNKNOWN, check_known_labels

logger = logging.getLogger(__name__)

_CENTERED_ROWS = 1024  # at a time, in float64
_SHARED_ENTRIES = 2**22  # of features, from which on threads pay, which wait for one another
_PRODUCT_ENTRIES = 2**27  # of products with all candidates: 512 MB
_GIVEN_ENTRIES = 2**25  # of products with given centers: 128 MB in float32
_COARSE = 64.0  # times what digits of a byte leave out: below, an inertia is measured in float32


class KMeansFit(NamedTuple):
    """The best of several runs of k-means."""

    centers: NDArray[np.float32]  # (c, d)
    inertia: float  # sum of squared distances to the nearest center
    n_iter: int  # Lloyd iterations of the best run


def fit_kmeans(
    features: NDArray[np.float32],
    *,
    n_clusters: int,
    known_labels: NDArray[np.int64] | None = None,
    n_restarts: int = 10,
    max_iter: int = 300,
    tol: float = 1e-4,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
) -> KMeansFit:
    """Find centers that minimize the inertia ``sum_i min_c ||x_i - mu_c||^2``.

    Each restart seeds by greedy k-means++ (Arthur and Vassilvitskii, 2007; of ``2 + ln K``
    candidates drawn with probability proportional to their squared distance to the centers so
    far, the one that lowers the inertia most), then alternates assignment and mean (Lloyd). A
    center that loses all its images moves to the image farthest from its own center.

    Where labels are known this is semi-supervised k-means (GCD; Vaze et al., 2022): the images of
    known label ``c`` always belong to cluster ``c``, whose center starts at their mean; the
    other centers are seeded among the unlabeled images.

    Args:
        features: Shape ``(n, d)``, float32, finite.
        n_clusters: K, at least 2 and at most ``n``.
        known_labels: Shape ``(n,)``, below K, -1 = unknown; None where none is known.
        n_restarts: Runs from new seeds, of which the one with the lowest inertia is returned.
        max_iter: Lloyd iterations of a run at most.
        tol: A run ends when the centers move by at most this share of the mean variance of the
            features (squared, summed over the centers), as in scikit-learn.
        generator: Source of the seeds, on the CPU whatever the device.
        device: Where the distances are computed, such as ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: If ``n_clusters`` or a label is out of range, there are fewer unlabeled images
            than clusters without a label, or a feature is not finite (names the row).

    Example:
        >>> features = np.array([[0], [1], [10], [11]], dtype=np.float32)
        >>> fit = fit_kmeans(features, n_clusters=2, generator=torch.Generator().manual_seed(0))
        >>> sorted(fit.centers[:, 0].tolist()), fit.inertia
        ([0.5, 10.5], 1.0)
    """
    _check_arguments(check_features(features), n_clusters, n_restarts, max_iter)
    if known_labels is None:
        known_labels = np.full(len(features), UNKNOWN, dtype=np.int64)
    _check_labels(known_labels, len(features), n_clusters)
    mean = features.mean(axis=0, dtype=np.float64)  # (d,)
    points, scale, variance = _center(features, mean)
    max_shift = tol * variance
    tensor = torch.as_tensor(points, device=device)  # (n, d)
    known = torch.tensor(known_labels, device=tensor.device)  # (n,)
    rows, runs = None, []
    with _threads_that_pay(features.size):
        if tensor.device.type == "cpu":
            rows = describe(points, is_int8=pays_int8(n_clusters, features.shape[1]))
        starts = _seed_centers(tensor, rows, known, n_clusters, n_restarts, generator)
        for start in tqdm(
            starts, desc="fit_kmeans", unit="restart", disable=None, total=n_restarts
        ):
            if rows is None:
                run = iterate_on_device(
                    tensor, known, start, max_iter=max_iter, max_shift=max_shift
                )
            else:
                seeds = start.numpy()
                run = iterate(
                    points, rows, known_labels, seeds, max_iter=max_iter, max_shift=max_shift
                )
            runs.append(run)
    best = min(runs, key=lambda run: run.inertia)
    inertia = best.inertia / scale**2
    logger.info(
        "k-means of %d images in %d clusters on %s: inertia %.6g after %d iterations, best of %d",
        len(points),
        n_clusters,
        device if rows is None else f"{device} by {rows.matrix.dtype} products",
        inertia,
        best.n_iter,
        n_restarts,
    )
    return KMeansFit((best.centers / scale + mean).astype(np.float32), inertia, best.n_iter)


def check_n_clusters(n_clusters: int, n_images: int) -> None:
    """Refuse a number of clusters that so many images cannot have.

    Raises:
        ValueError: If it is below 2 or above the number of images.
    """
    if not 2 <= n_clusters <= n_images:
        raise ValueError(
            f"n_clusters must be at least 2 and at most n={n_images}, got {n_clusters}"
        )


def assign_clusters(
    features: NDArray[np.float32],
    centers: NDArray[np.float32],
    *,
    device: str | torch.device = "cpu",
) -> NDArray[np.int64]:
    """Find the nearest center of every image: shape ``(n,)``, int64, ties to the lower index.

    Args:
        features: Shape ``(n, d)``, float32, finite.
        centers: Shape ``(c, d)``, float32, finite.
        device: Where the distances are computed, such as ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: If the dims differ, or one of the two is not a finite float32 matrix.

    Example:
        >>> features = np.array([[0], [4], [5], [9]], dtype=np.float32)
        >>> assign_clusters(features, np.array([[0], [8]], dtype=np.float32)).tolist()
        [0, 0, 1, 1]
    """
    check_features(features)
    check_features(centers)
    if features.shape[1] != centers.shape[1]:
        raise ValueError(
            f"features and centers must have the same dims, "
            f"got {features.shape[1]} and {centers.shape[1]}"
        )
    mean = centers.mean(axis=0, dtype=np.float64)  # (d,)
    points, scale, _ = _center(features, mean)  # (n, d)
    means = ((centers - mean) * scale).astype(np.float32)  # (c, d)
    if torch.device(device).type == "cpu":
        with _threads_that_pay(features.size):
            return find_nearest(points, means)
    tensor = torch.as_tensor(points, device=device)  # (n, d)
    norms = tensor.square().sum(dim=1)  # (n,)
    nearest, _ = find_nearest_on_device(tensor, norms, torch.as_tensor(means, device=device))
    return nearest.cpu().numpy()


@contextmanager
def _threads_that_pay(n_entries: int) -> Iterator[None]:
    """Let compiled loops have one thread where there is little to do."""
    n_threads = numba.get_num_threads()
    numba.set_num_threads(n_threads if n_entries >= _SHARED_ENTRIES else 1)
    try:
        yield
    finally:
        numba.set_num_threads(n_threads)


def _center(
    features: NDArray[np.float32], mean: NDArray[np.float64]
) -> tuple[NDArray[np.float32], float, float]:
    """Features less a mean ``(d,)``, times a power of two that leaves entries of at most 1.

    Centering leaves the clusters as they are and saves digits in products.

    Returns:
        Points ``(n, d)``, the power of two, and the mean square of the points.

    Raises:
        ValueError: If the mean square overflows float32 before it is scaled.
    """
    points = np.empty(features.shape, dtype=np.float32)  # (n, d)
    total = 0.0
    for start in range(0, len(features), _CENTERED_ROWS):
        block = features[start : start + _CENTERED_ROWS] - mean  # (b, d), float64
        points[start : start + _CENTERED_ROWS] = block
        total += float(np.einsum("ij,ij->", block, block))
    square = total / max(1, points.size)
    if square > float(np.finfo(np.float32).max):
        raise ValueError("features must have a variance that fits float32, got one that overflows")
    largest = float(max(points.max(initial=0.0), -points.min(initial=0.0)))
    scale = 2.0 ** -math.ceil(math.log2(largest)) if largest > 0 else 1.0
    return np.multiply(points, np.float32(scale), out=points), scale, square * scale**2


def _seed_centers(
    points: Tensor,
    rows: Rows | None,
    known: Tensor,
    n_clusters: int,
    n_runs: int,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Centers ``(c, d)`` of each run: means of labeled classes, the others by k-means++."""
    is_labeled = known >= 0  # (n,)
    counts = torch.bincount(known[is_labeled], minlength=n_clusters)[:, None]  # (c, 1)
    centers = torch.zeros(n_clusters, points.shape[1], device=points.device)  # (c, d)
    centers.index_add_(0, known[is_labeled], points[is_labeled]).div_(counts.clamp(min=1))
    free = (counts[:, 0] == 0).nonzero()[:, 0]  # (f,)
    seeds = torch.empty((n_runs, 0), dtype=torch.int64, device=points.device)
    if len(free):
        given = centers[counts[:, 0] > 0]  # (c - f, d)
        seeds = _choose_seeds(points, rows, is_labeled, given, len(free), n_runs, generator)
    for chosen in seeds:
        yield centers.index_copy(0, free, points[chosen])


class _Field:
    """Squared distances of all points to the centers of several runs, as these are added.

    On a CPU products may be of digits of a byte: then it is the rounded points that are seeded,
    until their inertia comes near to what rounding took from them.
    """

    def __init__(
        self, points: Tensor, rows: Rows | None, is_labeled: Tensor, given: Tensor, n_runs: int
    ) -> None:
        """Measure distances to given centers.

        Args:
            points: Shape ``(n, d)``.
            rows: The same as they are multiplied on a CPU; None elsewhere.
            is_labeled: Shape ``(n,)``, points that no distance counts of.
            given: Shape ``(g, d)``, in all runs.
            n_runs: How many.
        """
        self._points = points
        if rows is None:
            self._norms = points.square().sum(dim=1)  # (n,)
        else:
            self._norms = torch.from_numpy(rows.squares).float()
        self.seeds = torch.empty((n_runs, 0), dtype=torch.int64, device=points.device)  # (s, f)
        self._multiply(rows)
        self._to_given = self._measure(given).masked_fill_(is_labeled, 0.0)  # (n,)
        self.closest = self._to_given.repeat(n_runs, 1)  # (s, n)

    def add(self, candidates: Tensor) -> None:
        """Add that of some points ``(s, t)`` to each run which leaves the least inertia."""
        chosen, inertias = self._lower(candidates)  # (s,) each
        self.seeds = torch.cat([self.seeds, chosen[:, None]], dim=1)
        if float(inertias.min()) < _COARSE * self._left_out:
            self._multiply(describe(self._points.numpy(), is_int8=False))
            own = [self._measure(self._points[seeds]) for seeds in self.seeds]  # (n,) each
            self.closest = torch.minimum(torch.stack(own), self._to_given)

    def _multiply(self, rows: Rows | None) -> None:
        """Take products of these rows from now on."""
        self._rows, self._left_out = rows, 0.0
        if rows is not None:
            self._lengths = _squared_lengths(rows)  # (n,)
            if rows.matrix.dtype == np.int8:
                self._left_out = float(np.square(rows.errors, dtype=np.float64).sum())

    def _measure(self, centers: Tensor) -> Tensor:
        """Squared distances ``(n,)`` to the nearest of centers ``(g, d)``, infinite without one."""
        closest = torch.full_like(self._norms, torch.inf)  # (n,)
        if len(centers):
            for block in centers.split(max(1, _GIVEN_ENTRIES // len(closest))):
                norms = block.square().sum(dim=1)  # (b,)
                distances = squared_distances(block, norms, self._points, self._norms)  # (b, n)
                closest = torch.minimum(closest, distances.amin(dim=0))
        return closest

    def _lower(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The best candidate of each run and the inertia that it leaves; lower the distances."""
        shape, numbers = candidates.shape, candidates.ravel()  # (s * t,)
        if self._rows is None:
            left, left_norms = self._points[numbers], self._norms[numbers]
            distances = squared_distances(left, left_norms, self._points, self._norms)
            distances = torch.minimum(distances.view(*shape, -1), self.closest[:, None])
            inertias, best = distances.sum(dim=2, dtype=torch.float64).min(dim=1)  # (s,) each
            self.closest = distances[torch.arange(len(best), device=best.device), best]
        else:
            matrix = torch.from_numpy(self._rows.matrix)  # (n, d)
            products = multiply(matrix[numbers], matrix).numpy()  # (s * t, n)
            parts = (products, self._rows.scales, self._lengths, numbers.numpy())
            sums = np.empty(len(numbers))
            sum_lowered(*parts, self.closest.numpy(), sums)
            inertias, best = torch.from_numpy(sums).view(shape).min(dim=1)  # (s,) each
            lower_closest(*parts, self.closest.numpy(), best.numpy())
        return candidates.gather(1, best[:, None])[:, 0], inertias


def _choose_seeds(
    points: Tensor,
    rows: Rows | None,
    is_labeled: Tensor,
    given: Tensor,
    n_seeds: int,
    n_runs: int,
    generator: torch.Generator,
) -> Tensor:
    """Unlabeled points ``(s, f)`` that greedy k-means++ adds to given centers in each run."""
    n_candidates = 2 + int(math.log(len(given) + n_seeds))
    n_at_once = max(1, _PRODUCT_ENTRIES // (n_candidates * len(points)))
    found = []
    for start in range(0, n_runs, n_at_once):
        n_group = min(n_at_once, n_runs - start)
        field = _Field(points, rows, is_labeled, given, n_group)
        for number in range(n_seeds):
            if number == 0 and not len(given):
                drawn = torch.randint(len(points), (n_group, 1), generator=generator)
                field.add(drawn.to(points.device))
                continue
            cumulative = field.closest.double().cumsum(dim=1)  # (s, n)
            draws = torch.rand(n_group, n_candidates, generator=generator, dtype=torch.float64)
            thresholds = draws.to(points.device) * cumulative[:, -1:]  # (s, t)
            candidates = torch.searchsorted(cumulative, thresholds, right=True)  # (s, t)
            # Where all points are seeds, every sum is 0.
            field.add(candidates.clamp_(max=len(points) - 1))
        found.append(field.seeds)
    return torch.cat(found)


def _squared_lengths(rows: Rows) -> NDArray[np.float32]:
    """Squared lengths ``(n,)`` of what is multiplied: equal points have distance 0."""
    if rows.matrix.dtype == np.float32:
        return rows.squares.astype(np.float32)
    lengths = np.empty(len(rows.matrix), dtype=np.float32)
    square_digits(rows.matrix, rows.scales, lengths)
    return lengths


def _check_arguments(
    features: NDArray[np.float32], n_clusters: int, n_restarts: int, max_iter: int
) -> None:
    check_n_clusters(n_clusters, len(features))
    if n_restarts < 1:
        raise ValueError(f"n_restarts must be at least 1, got {n_restarts}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")


def _check_labels(known_labels: NDArray[np.int64], n_images: int, n_clusters: int) -> None:
    check_known_labels(known_labels, n_images, n_clusters=n_clusters)
    n_free = n_clusters - len(np.unique(known_labels[known_labels >= 0]))
    n_unlabeled = int((known_labels < 0).sum())
    if n_unlabeled < n_free:
        raise ValueError(
            f"n_clusters must leave an unlabeled image for each cluster without a label, got "
            f"{n_unlabeled} images for {n_free} clusters"
        )
