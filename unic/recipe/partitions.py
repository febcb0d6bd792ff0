"""Partitions to start from: of several kinds, since no kind is good on all data."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from unic.baselines.spectral import embed_units
from unic.baselines.ward import merge
from unic.recipe.graphs import find_memberships, merge_clusters
from unic.storage.known_labels import UNKNOWN

logger = logging.getLogger(__name__)

MAX_ITER = 25  # the rest moves less than a thousandth of the images
_SETTLED_SHARE = 1e-3
_N_DIRECTIONS = 64  # for Ward and mixtures, which suffer from many
_BLOCK_ENTRIES = 2**25  # of a block of similarities: 128 MB in float32


class Counts(NamedTuple):
    """How many partitions of each kind; one of Ward in each of two spaces."""

    kmeans: int  # in each of three spaces
    graph: int  # of each kind that a graph has a part in, by each of two graphs
    mixtures: int = 3


def choose_counts(n_clusters: int) -> Counts:
    """Fewer starts where each has many clusters: they cost more, and differ less in quality."""
    return Counts(
        kmeans=min(24, max(8, 1200 // n_clusters)), graph=min(8, max(4, 400 // n_clusters))
    )


def find_partitions(
    spaces: Mapping[str, NDArray[np.float32]],
    graphs: Mapping[str, sp.csr_array],
    *,
    n_clusters: int,
    counts: Counts,
    known_labels: NDArray[np.int64],
    generator: torch.Generator,
) -> NDArray[np.int64]:
    """Cluster the same images in many ways, of which some should be good.

    Spherical k-means in all spaces, and of the leading eigenvectors of both graphs; k-means of
    2 K clusters that are merged by the graph, in the points and in the eigenvectors; Ward; tied
    Gaussian mixtures. Where labels are known: semi-supervised k-means of the main space alone,
    which is whitened by labels; the others cannot keep images in the cluster of their label.

    Args:
        spaces: ``main``, ``half`` and ``plain``: coordinates ``(n, r)`` of unit length, by how
            much they are whitened.
        graphs: ``main`` and ``plain``: who is whose neighbor in these spaces. Where labels are
            known, neither ``plain`` nor a graph is needed.
        n_clusters: K, at least 2.
        counts: How many of each kind.
        known_labels: Shape ``(n,)``, -1 = unknown.
        generator: Source of all random numbers.

    Returns:
        Shape ``(s, n)``, in ``[0, K)``.
    """
    is_labeled = bool((known_labels >= 0).any())
    found = [
        spherical_kmeans(
            points,
            n_clusters=n_clusters,
            n_runs=counts.kmeans,
            known_labels=known_labels,
            generator=generator,
        )
        for points in ([spaces["main"]] if is_labeled else spaces.values())
    ]
    if is_labeled:
        return np.concatenate(found)
    for name, graph in graphs.items():
        points, eigenvectors = spaces[name], embed_units(graph, n_clusters)
        found.append(merge(points[:, :_N_DIRECTIONS], n_clusters)[None])
        found.append(
            spherical_kmeans(
                eigenvectors, n_clusters=n_clusters, n_runs=counts.graph, generator=generator
            )
        )
        for rows in (points, eigenvectors):
            parts = spherical_kmeans(
                rows,
                n_clusters=min(2 * n_clusters, len(rows)),
                n_runs=counts.graph,
                generator=generator,
            )
            found.append(np.stack([merge_clusters(graph, each, n_clusters) for each in parts]))
    mixtures = [
        tied_mixture(spaces["plain"], n_clusters=n_clusters, generator=generator)
        for _ in range(counts.mixtures)
    ]
    partitions = np.concatenate([*found, np.stack(mixtures)])
    logger.info("%d partitions to start from", len(partitions))
    return partitions


def spherical_kmeans(
    points: NDArray[np.float32],
    *,
    n_clusters: int,
    n_runs: int,
    known_labels: NDArray[np.int64] | None = None,
    generator: torch.Generator,
) -> NDArray[np.int64]:
    """Run spherical k-means from several seedings at once, and keep every run.

    Each maximizes ``sum_i max_c <x_i, mu_c>`` over unit centers, from a seeding of k-means++. One
    matrix product assigns the images of all runs. Labeled images stay in the cluster of their
    label, whose center starts at their mean (GCD; Vaze et al., 2022).

    Args:
        points: Shape ``(n, r)``, of unit length.
        n_clusters: K, at most ``n``.
        n_runs: How many.
        known_labels: Shape ``(n,)``, below K, -1 = unknown; None where none is known.
        generator: Source of the seeds.

    Returns:
        Clusters ``(n_runs, n)``, int64.
    """
    rows = torch.from_numpy(points)  # (n, r)
    known = torch.full((len(rows),), UNKNOWN)
    if known_labels is not None:
        known = torch.from_numpy(known_labels)  # (n,)
    centers = _seed_centers(rows, known, n_clusters, n_runs, generator)  # (s, c, r)
    clusters, cosines = _assign(rows, known, centers)  # (s, n) each
    running = torch.arange(n_runs)
    for _ in range(MAX_ITER):
        moved = _update(rows, centers[running], clusters[running], cosines[running])
        centers[running] = moved
        new, cosines[running] = _assign(rows, known, moved)
        has_changed = (new != clusters[running]).sum(1) > _SETTLED_SHARE * len(rows)  # (s,)
        clusters[running] = new
        running = running[has_changed]
        if not len(running):
            break
    return clusters.numpy()


def tied_mixture(
    points: NDArray[np.float32],
    *,
    n_clusters: int,
    generator: torch.Generator,
    n_iter: int = 20,
) -> NDArray[np.int64]:
    """Fit a mixture of Gaussians of one shared covariance, from a run of spherical k-means.

    Expectation maximization; the shared covariance is that of the images about the centers of
    their clusters, so that directions in which classes spread count for less, which no whitening
    of all images can do. Sizes of clusters are free.

    Args:
        points: Shape ``(n, r)``, of which the first 64 columns are used.
        n_clusters: K.
        generator: Source of the start.
        n_iter: Iterations.

    Returns:
        Shape ``(n,)``, int64.
    """
    rows = torch.from_numpy(points[:, :_N_DIRECTIONS].astype(np.float64))  # (n, p)
    start = normalize(rows, dim=1).float().numpy()
    clusters = spherical_kmeans(start, n_clusters=n_clusters, n_runs=1, generator=generator)[0]
    shares = one_hot(torch.from_numpy(clusters), n_clusters).double()  # (n, c)
    total = rows.T @ rows / len(rows)  # (p, p)
    for _ in range(n_iter):
        sizes = shares.sum(0) + 1e-6  # (c,)
        means = (shares.T @ rows) / sizes[:, None]  # (c, p)
        within = total - (means.T * sizes) @ means / len(rows)  # (p, p)
        # Where copies leave no spread within clusters, rounding must not be taken for one.
        ridge = 1e-3 * within.diagonal().mean() + 1e-6 * total.diagonal().mean()
        eye = torch.eye(len(within), dtype=within.dtype)
        factor = torch.linalg.cholesky(within + ridge * eye)  # (p, p)
        white = torch.linalg.solve_triangular(factor, rows.T, upper=False).T  # (n, p)
        centers = torch.linalg.solve_triangular(factor, means.T, upper=False).T  # (c, p)
        offsets = (sizes / len(rows)).log() - 0.5 * centers.square().sum(1)  # (c,)
        shares = (white @ centers.T + offsets).softmax(1)  # (n, c)
    return shares.argmax(1).numpy()


def _seed_centers(
    rows: Tensor, known: Tensor, n_clusters: int, n_runs: int, generator: torch.Generator
) -> Tensor:
    """Seeds ``(s, c, r)`` of all runs: means of labeled classes, the others by k-means++."""
    is_labeled = known >= 0  # (n,)
    counts = torch.bincount(known[is_labeled], minlength=n_clusters)  # (c,)
    means = torch.zeros(n_clusters, rows.shape[1])  # (c, r)
    means.index_add_(0, known[is_labeled], rows[is_labeled])
    centers = normalize(means, dim=1).expand(n_runs, -1, -1).clone()  # (s, c, r)
    closest = torch.full((n_runs, len(rows)), 2.0)  # (s, n), the same of all before the first
    if counts.any():
        closest -= 2.0 * (rows @ centers[0, counts > 0].T).amax(1)
    closest = closest.clamp_(min=0.0) * ~is_labeled  # what is labeled stays in its cluster
    has_center = bool(counts.any())
    for cluster in (counts == 0).nonzero()[:, 0].tolist():
        cumulative = closest.double().cumsum(1)  # (s, n)
        draws = torch.rand(n_runs, 1, generator=generator, dtype=torch.float64)  # (s, 1)
        drawn = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)  # (s, 1)
        centers[:, cluster] = rows[drawn[:, 0].clamp_(max=len(rows) - 1)]
        distances = (2.0 - 2.0 * (centers[:, cluster] @ rows.T)).clamp_(min=0.0)  # (s, n)
        distances *= ~is_labeled
        closest = torch.minimum(closest, distances) if has_center else distances
        has_center = True
    return centers


def _assign(rows: Tensor, known: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Known label or nearest center of each image in each run, and its cosine: ``(s, n)`` each.

    That of a labeled image is 2: no empty cluster may take it.
    """
    n_runs, n_clusters, _ = centers.shape
    flat = centers.reshape(n_runs * n_clusters, -1)  # (s * c, r)
    found = [
        (block @ flat.T).view(len(block), n_runs, n_clusters).max(dim=2)
        for block in rows.split(max(1, _BLOCK_ENTRIES // len(flat)))
    ]
    clusters = torch.cat([each.indices for each in found])  # (n, s)
    cosines = torch.cat([each.values for each in found])  # (n, s)
    clusters = torch.where(known >= 0, known, clusters.T)  # (s, n)
    return clusters, cosines.T.masked_fill(known >= 0, 2.0)


def _update(rows: Tensor, centers: Tensor, clusters: Tensor, cosines: Tensor) -> Tensor:
    """Directions ``(s, c, r)`` of the sums of the clusters; an empty one takes a far image."""
    n_runs, n_clusters, _ = centers.shape
    clusters = clusters.clone()
    offsets = torch.arange(n_runs)[:, None] * n_clusters  # (s, 1)
    counts = torch.bincount((clusters + offsets).ravel(), minlength=n_runs * n_clusters)
    for run, cluster in (counts.view(n_runs, n_clusters) == 0).nonzero().tolist():
        far = int(cosines[run].argmin())
        clusters[run, far], cosines[run, far] = cluster, 1.0
    points = rows.numpy()
    sums = torch.from_numpy(
        np.stack([find_memberships(run, n_clusters).T @ points for run in clusters.numpy()])
    )  # (s, c, r)
    is_defined = sums.square().sum(2, keepdim=True) > 0
    return torch.where(is_defined, normalize(sums, dim=2), centers)
