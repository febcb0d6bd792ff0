"""Spherical k-means: k-means by cosine, on features of unit length."""

import logging
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs
from unic.neighbors.metric import to_euclidean

logger = logging.getLogger(__name__)

N_RESTARTS = 10  # as of the other k-means here
MAX_ITER = 300  # an iteration raises the objective, so that runs end by themselves long before
_BLOCK_ENTRIES = 2**25  # of a block of cosines: 128 MB in float32


class SphericalFit(NamedTuple):
    """The best of several runs of spherical k-means."""

    centers: NDArray[np.float32]  # (c, d), of unit length
    objective: float  # sum of cosines to the nearest center
    n_iter: int  # iterations of the best run


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Cluster features of unit length; all images go to the center of the highest cosine.

    Every split is assigned by the centers, which are the class means of the space that was
    clustered. Known labels and neighbors are not used.

    Args:
        inputs: Features of all splits.
        n_clusters: K.
        generator: Source of the seeds.
        device: Where cosines are computed.

    Returns:
        Clusters of all splits; confidence is 1.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`.
    """
    check_inputs(inputs, n_clusters)
    units = {
        split: torch.from_numpy(to_euclidean(features, "cosine")).to(device)
        for split, features in inputs.features.items()
    }
    fit = fit_spherical_kmeans(units["train"], n_clusters=n_clusters, generator=generator)
    centers = torch.from_numpy(fit.centers).to(device)  # (c, d)
    found: Found = {}
    for split, points in units.items():
        clusters = _find_nearest(points, centers)[0].cpu().numpy()  # (n,)
        found[split] = clusters, np.ones(len(clusters), dtype=np.float32)
    return found


def fit_spherical_kmeans(
    points: Tensor,
    *,
    n_clusters: int,
    n_restarts: int = N_RESTARTS,
    max_iter: int = MAX_ITER,
    generator: torch.Generator,
) -> SphericalFit:
    """Find unit centers that maximize ``sum_i max_c <x_i, mu_c>`` (Dhillon and Modha, 2001).

    Each restart seeds by k-means++ (Arthur and Vassilvitskii, 2007; squared distances of unit
    vectors are ``2 - 2 cos``), then alternates assignment and ``mu_c = s_c / |s_c|``, ``s_c``
    the sum of the points of the cluster, until no point moves. A center that loses all its
    points takes the point of the lowest cosine to its own; one whose points sum to 0 stays.

    Args:
        points: Shape ``(n, d)``, of unit length, or zero.
        n_clusters: K, at least 2 and at most ``n``.
        n_restarts: Runs from new seeds, of which the one of the highest objective is returned.
        max_iter: Iterations of a run at most.
        generator: Source of the seeds, on the CPU whatever the device.
    """
    best = SphericalFit(np.empty((0, 0), np.float32), -np.inf, 0)
    for _ in tqdm(range(n_restarts), desc="fit_spherical_kmeans", unit="restart", disable=None):
        seeds = _seed_centers(points, n_clusters, generator)  # (c, d)
        centers, n_iter = _iterate(points, seeds, max_iter)
        objective = measure_objective(points, centers)
        if objective > best.objective:
            best = SphericalFit(centers.cpu().numpy(), objective, n_iter)
    logger.info(
        "spherical k-means of %d images in %d clusters: objective %.6g after %d iterations, "
        "best of %d",
        len(points),
        n_clusters,
        best.objective,
        best.n_iter,
        n_restarts,
    )
    return best


def measure_objective(points: Tensor, centers: Tensor) -> float:
    """The sum of cosines of points ``(n, d)`` to the nearest of centers ``(c, d)``."""
    return float(_find_nearest(points, centers)[1].sum(dtype=torch.float64))


def _seed_centers(points: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Centers ``(c, d)`` by k-means++."""
    rows = [int(torch.randint(len(points), (1,), generator=generator))]
    distances = torch.full((len(points),), torch.inf, device=points.device)  # (n,)
    while len(rows) < n_clusters:
        to_last = (1.0 - points @ points[rows[-1]]).clamp(min=0.0)  # (n,)
        distances = torch.minimum(distances, to_last)
        distances[rows[-1]] = 0.0
        cumulative = distances.double().cumsum(dim=0)  # (n,)
        threshold = float(torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1])
        row = int((cumulative <= threshold).sum())
        rows.append(min(row, len(points) - 1))  # where all points are seeds, every sum is 0
    return points[rows]


def _iterate(points: Tensor, centers: Tensor, max_iter: int) -> tuple[Tensor, int]:
    clusters, cosines = _find_nearest(points, centers)  # (n,) each
    for n_iter in range(1, max_iter + 1):
        centers = _update_centers(points, centers, clusters, cosines)  # (c, d)
        previous = clusters
        clusters, cosines = _find_nearest(points, centers)  # (n,) each
        if torch.equal(clusters, previous):
            return centers, n_iter
    return centers, max_iter


def _update_centers(points: Tensor, centers: Tensor, clusters: Tensor, cosines: Tensor) -> Tensor:
    """Normalized sums ``(c, d)`` of the points; empty clusters take the points farthest off."""
    empty = (torch.bincount(clusters, minlength=len(centers)) == 0).nonzero()[:, 0]  # (e,)
    if len(empty):
        farthest = cosines.topk(len(empty), largest=False).indices  # (e,)
        clusters = clusters.index_copy(0, farthest, empty)  # (n,)
    sums = torch.zeros_like(centers).index_add_(0, clusters, points)  # (c, d)
    # A cluster of one point may just have lost it to an empty one: its center stays.
    is_defined = sums.square().sum(dim=1, keepdim=True) > 0  # (c, 1)
    return torch.where(is_defined, normalize(sums, dim=1), centers)


def _find_nearest(points: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Center of the highest cosine of each point ``(n,)`` int64, and that cosine ``(n,)``."""
    blocks = points.split(max(1, _BLOCK_ENTRIES // len(centers)))
    found = [(block @ centers.T).max(dim=1) for block in blocks]
    return torch.cat([m.indices for m in found]), torch.cat([m.values for m in found])
