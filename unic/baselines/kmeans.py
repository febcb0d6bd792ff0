"""k-means: greedy k-means++ seeding and Lloyd's iterations, the best of several restarts.

Semi-supervised k-means is the same with some images kept in the cluster of their known label.
"""

import logging
import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unic.neighbors.metric import check_features
from unic.storage.known_labels import UNKNOWN, check_known_labels

logger = logging.getLogger(__name__)

_BLOCK_ENTRIES = 2**25  # of a block of distances to the centers: 128 MB in float32


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
    # Centering leaves the clusters as they are and saves digits in the expanded distances.
    points = torch.as_tensor((features - mean).astype(np.float32), device=device)  # (n, d)
    max_shift = tol * float(points.var(dim=0, correction=0).mean())
    if not math.isfinite(max_shift):
        raise ValueError("features must have a variance that fits float32, got one that overflows")
    known = torch.from_numpy(known_labels).to(points.device)  # (n,)
    norms = points.square().sum(dim=1)  # (n,)
    runs = []
    for _ in tqdm(range(n_restarts), desc="fit_kmeans", unit="restart", disable=None):
        seeds = _seed_centers(points, norms, known, n_clusters, generator)  # (c, d)
        runs.append(_iterate(points, norms, known, seeds, max_iter, max_shift))
    inertia, n_iter, centers = min(runs, key=lambda run: run[0])
    logger.info(
        "k-means of %d images in %d clusters on %s: inertia %.6g after %d iterations, best of %d",
        len(points),
        n_clusters,
        device,
        inertia,
        n_iter,
        n_restarts,
    )
    return KMeansFit((centers.cpu().double().numpy() + mean).astype(np.float32), inertia, n_iter)


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
    points = torch.as_tensor((features - mean).astype(np.float32), device=device)  # (n, d)
    means = torch.as_tensor((centers - mean).astype(np.float32), device=device)  # (c, d)
    return _find_nearest(points, points.square().sum(dim=1), means)[0].cpu().numpy()


def _seed_centers(
    points: Tensor, norms: Tensor, known: Tensor, n_clusters: int, generator: torch.Generator
) -> Tensor:
    """Choose centers ``(c, d)``: means of the labeled classes, the others by greedy k-means++."""
    is_labeled = known >= 0  # (n,)
    counts = torch.bincount(known[is_labeled], minlength=n_clusters)[:, None]  # (c, 1)
    centers = torch.zeros(n_clusters, points.shape[1], device=points.device)  # (c, d)
    centers.index_add_(0, known[is_labeled], points[is_labeled]).div_(counts.clamp(min=1))
    free = (counts[:, 0] == 0).nonzero()[:, 0]  # (f,)
    if len(free):
        given = centers[counts[:, 0] > 0]  # (c - f, d)
        seeds = _choose_seeds(points, norms, is_labeled, given, len(free), generator)  # (f,)
        centers[free] = points[seeds]
    return centers


def _choose_seeds(
    points: Tensor,
    norms: Tensor,
    is_labeled: Tensor,
    given: Tensor,
    n_seeds: int,
    generator: torch.Generator,
) -> Tensor:
    """Rows ``(f,)`` of unlabeled points that greedy k-means++ adds to given centers."""
    n_candidates = 2 + int(math.log(len(given) + n_seeds))
    seeds = []
    if not len(given):
        seeds.append(torch.randint(len(points), (1,), generator=generator).to(points.device))
        given = points[seeds[0]]
    closest = torch.full_like(norms, torch.inf)  # (n,)
    for block in given.split(max(1, _BLOCK_ENTRIES // len(points))):
        distances = _squared_distances(block, block.square().sum(dim=1), points, norms)  # (g, n)
        closest = torch.minimum(closest, distances.amin(dim=0))
    closest = closest.masked_fill(is_labeled, 0.0)  # what is labeled stays in its cluster
    while len(seeds) < n_seeds:
        cumulative = closest.double().cumsum(dim=0)  # (n,)
        draws = torch.rand(n_candidates, generator=generator, dtype=torch.float64)  # (t,)
        thresholds = draws.to(points.device) * cumulative[-1]  # (t,)
        candidates = torch.searchsorted(cumulative, thresholds, right=True)  # (t,)
        candidates.clamp_(max=len(points) - 1)  # where all points are seeds, every sum is 0
        chosen, chosen_norms = points[candidates], norms[candidates]  # (t, d), (t,)
        distances = _squared_distances(chosen, chosen_norms, points, norms)  # (t, n)
        distances = torch.minimum(distances, closest)  # (t, n)
        best = distances.sum(dim=1, dtype=torch.float64).argmin()
        closest = distances[best]  # (n,)
        seeds.append(candidates[best, None])
    return torch.cat(seeds)


def _iterate(
    points: Tensor, norms: Tensor, known: Tensor, centers: Tensor, max_iter: int, max_shift: float
) -> tuple[float, int, Tensor]:
    """Run Lloyd's iterations from given centers; returns inertia, iterations and centers."""
    labels, squared = _assign(points, norms, known, centers)  # (n,) each
    n_iter, has_settled = 0, False
    while n_iter < max_iter and not has_settled:
        n_iter += 1
        previous_centers, previous_labels = centers, labels
        centers = _update_centers(points, centers, labels, squared)  # (c, d)
        labels, squared = _assign(points, norms, known, centers)  # (n,) each
        shift = float((centers - previous_centers).square().sum())
        has_settled = shift <= max_shift or torch.equal(labels, previous_labels)
    inertia = (points - centers[labels]).square().sum(dtype=torch.float64)
    return float(inertia), n_iter, centers


def _assign(points: Tensor, norms: Tensor, known: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Cluster of each point, the known one or the nearest, and its squared distance.

    That of a labeled point is -1: no empty cluster may take it.
    """
    labels, squared = _find_nearest(points, norms, centers)  # (n,) each
    return torch.where(known >= 0, known, labels), squared.masked_fill(known >= 0, -1.0)


def _update_centers(points: Tensor, centers: Tensor, labels: Tensor, squared: Tensor) -> Tensor:
    """Mean of the points of each cluster ``(c, d)``; empty ones take the farthest points."""
    n_clusters = len(centers)
    empty = (torch.bincount(labels, minlength=n_clusters) == 0).nonzero()[:, 0]  # (e,)
    if len(empty):
        labels = labels.index_copy(0, squared.topk(len(empty)).indices, empty)  # (n,)
    counts = torch.bincount(labels, minlength=n_clusters)[:, None]  # (c, 1)
    sums = torch.zeros_like(centers).index_add_(0, labels, points)  # (c, d)
    # A cluster of one point may just have lost it to an empty one: its center stays.
    return torch.where(counts > 0, sums / counts.clamp(min=1), centers)


def _find_nearest(points: Tensor, norms: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest center of each point ``(n,)`` int64, and its squared distance ``(n,)``.

    The squared lengths of the points, ``norms``, take longer than the products with few centers.
    """
    block_size = max(1, _BLOCK_ENTRIES // len(centers))
    center_norms = centers.square().sum(dim=1)  # (c,)
    nearest = [
        _squared_distances(block, norms_of_block, centers, center_norms).min(dim=1)
        for block, norms_of_block in zip(
            points.split(block_size), norms.split(block_size), strict=True
        )
    ]
    return torch.cat([m.indices for m in nearest]), torch.cat([m.values for m in nearest])


def _squared_distances(
    left: Tensor, left_norms: Tensor, right: Tensor, right_norms: Tensor
) -> Tensor:
    """Squared distances ``(l, r)`` of two sets of points by one matrix product."""
    distances = torch.addmm(right_norms[None, :], left, right.T, alpha=-2.0)  # (l, r)
    return distances.add_(left_norms[:, None]).clamp_(min=0.0)


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
