"""How often neighbors are of one group: by rank, by the size of their unions (Figs. 4, 8-10)."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unic.evaluation.groups import Groups
from unic.neighbors.checks import check_neighbors
from unic.neighbors.cleaning import union_sizes
from unic.neighbors.exact.ranking import ExactRows
from unic.neighbors.metric import to_euclidean

N_ANCHORS = 1000
_NEAR = 100  # ranks at least that are tabulated one by one
_PAIRS = 2**21  # of anchors and images that are ranked at a time: about 150 MB


class NeighborCurves(NamedTuple):
    """What Figures 4, 8, 9 and 10 draw; shares are of :func:`sweep_union_sizes`.

    ``facts`` has ``experiment``, ``kind`` (``class``, or ``cluster`` where true labels are not
    known), ``n_images``, ``n_neighbors``, ``far_rank``, ``max_union_size``; of the ranks
    ``n_anchors``, ``n_single`` that have a row each, and the share ``by_chance``.
    """

    facts: dict[str, Any]  # JSON
    thresholds: pd.DataFrame  # max_union_size, kept, alike
    ranks: pd.DataFrame  # of `tabulate_ranks`
    removed: pd.DataFrame  # n_neighbors (a list of fewer, and all), max_union_size, removed
    purity: pd.DataFrame  # n_neighbors, removed, alike


class RankAgreement(NamedTuple):
    """How often the image at a rank is of the anchor's group."""

    share: NDArray[np.float64]  # (n - 1,), of the anchors, by rank from 1 on
    n_anchors: int
    by_chance: float  # share of the images that are of an anchor's group, itself not counted


def measure_neighbors(
    features: NDArray[np.float32],
    indices: NDArray[np.int64],
    union_size: NDArray[np.int32],
    groups: Groups,
    *,
    metric: str,
    far_rank: int,
    max_union_size: int,
    experiment: str,
) -> NeighborCurves:
    """Measure what thresholds of the union size keep, and how far ranks agree.

    Args:
        features: Shape ``(n, d)``, float32.
        indices: Shape ``(n, k)``, column 0 the image itself.
        union_size: Shape ``(n,)``, of these neighbors.
        groups: Class or cluster of each image.
        metric: In which neighbors were mined.
        far_rank: tau_2 of the paper.
        max_union_size: eta of the paper.
        experiment: Its name.

    Raises:
        ValueError: If the inputs do not fit together, or images have no neighbors.
    """
    n_images, n_neighbors = indices.shape
    shorter = shorter_list(n_neighbors)
    lists = {shorter: np.ascontiguousarray(indices[:, :shorter]), n_neighbors: indices}
    sizes = {n: union_sizes(found) for n, found in lists.items()} | {n_neighbors: union_size}
    sweeps = [
        sweep_union_sizes(sizes[n], share_alike(groups.numbers, found)).assign(n_neighbors=n)
        for n, found in lists.items()
    ]
    swept = pd.concat(sweeps, ignore_index=True)
    own = swept[swept["n_neighbors"] == n_neighbors]
    agreement = measure_rank_agreement(
        to_euclidean(features, metric), groups.numbers, generator=np.random.default_rng(0)
    )
    n_single = min(n_images - 1, max(_NEAR, 2 * n_neighbors))
    facts = {
        "experiment": experiment,
        "kind": groups.kind,
        "n_images": n_images,
        "n_neighbors": n_neighbors,
        "far_rank": far_rank,
        "max_union_size": max_union_size,
        "n_anchors": agreement.n_anchors,
        "n_single": n_single,
        "by_chance": agreement.by_chance,
    }
    return NeighborCurves(
        facts,
        thresholds=own[["max_union_size", "kept", "alike"]].reset_index(drop=True),
        ranks=tabulate_ranks(agreement, n_single=n_single),
        removed=swept[["n_neighbors", "max_union_size", "removed"]],
        purity=swept[["n_neighbors", "removed", "alike"]],
    )


def share_alike(groups: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the neighbors of each image, itself not counted, that are of its group.

    Args:
        groups: Shape ``(n,)``: class or cluster of each image.
        indices: Shape ``(n, k)``, column 0 the image itself, k at least 2.

    Returns:
        Shape ``(n,)``, in [0, 1].

    Raises:
        ValueError: If the neighbors are not as described.

    Example:
        >>> share_alike(np.array([0, 0, 1]), np.array([[0, 1], [1, 2], [2, 0]])).tolist()
        [1.0, 0.0, 0.0]
    """
    check_neighbors(indices, len(groups))
    is_alike = groups[indices[:, 1:]] == groups[:, None]  # (n, k - 1)
    return np.asarray(is_alike.mean(axis=1))


def sweep_union_sizes(
    union_size: NDArray[np.integer[Any]], alike: NDArray[np.float64]
) -> pd.DataFrame:
    """What each threshold of the union size keeps, and how pure it is (UNIC, Figs. 4, 9, 10).

    Args:
        union_size: Shape ``(n,)``, images in each second-order neighborhood (Eq. 4).
        alike: Shape ``(n,)``, of :func:`share_alike`.

    Returns:
        A row for each union size that occurs, ascending: ``max_union_size``; ``kept`` and
        ``removed``, shares of the images by this threshold; ``alike``, the share of the kept
        images' neighbors that are of their group.

    Raises:
        ValueError: If there is no image, or lengths differ.

    Example:
        >>> sweep_union_sizes(np.array([2, 5, 2, 3]), np.array([1.0, 0.0, 0.5, 1.0]))["alike"]
        0    0.750000
        1    0.833333
        2    0.625000
        Name: alike, dtype: float64
    """
    if union_size.shape != alike.shape or union_size.ndim != 1 or not len(union_size):
        raise ValueError(
            "union_size and alike must be of one shape (n,), n > 0, "
            f"got {union_size.shape} and {alike.shape}"
        )
    sizes, places, counts = np.unique(union_size, return_inverse=True, return_counts=True)
    totals = np.bincount(places, weights=alike)  # (u,)
    n_kept = np.cumsum(counts)  # (u,)
    return pd.DataFrame(
        {
            "max_union_size": sizes.astype(np.int64),
            "kept": n_kept / len(union_size),
            "removed": 1 - n_kept / len(union_size),
            "alike": np.cumsum(totals) / n_kept,
        }
    )


def shorter_list(n_neighbors: int) -> int:
    """How many neighbors Figures 9 and 10 compare a list with, itself counted as in tau_1.

    Ten as in the paper, or half of a list that has no more; at least two.

    Example:
        >>> shorter_list(50), shorter_list(10), shorter_list(2)
        (10, 5, 2)
    """
    return 10 if n_neighbors > 10 else max(2, n_neighbors // 2)


def measure_rank_agreement(
    features: NDArray[np.float32],
    groups: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    n_anchors: int = N_ANCHORS,
) -> RankAgreement:
    """How often the image at each rank is of the anchor's group, over all ranks (UNIC, Fig. 8).

    All ``n - 1`` other images of an anchor are ranked exactly, as in mining: by the float64
    distance, ties to the lower index. Doing so for every image would take ``n^2 log n`` steps;
    the anchors are a sample without replacement, or all images where there are no more.

    Args:
        features: Shape ``(n, d)``, float32, finite, n at least 2; their Euclidean distance ranks.
        groups: Shape ``(n,)``: class or cluster of each image.
        generator: Draws the anchors.
        n_anchors: How many, at least 1.

    Raises:
        ValueError: If there are fewer than two images, no anchor, or lengths differ.
    """
    n_images = len(features)
    if n_images < 2 or groups.shape != (n_images,):
        raise ValueError(
            f"features and groups must be of the same images, at least 2, got {n_images} and "
            f"groups of shape {groups.shape}"
        )
    if n_anchors < 1:
        raise ValueError(f"n_anchors must be at least 1, got {n_anchors}")
    n_anchors = min(n_anchors, n_images)
    anchors = np.sort(generator.choice(n_images, size=n_anchors, replace=False))  # (a,)
    exact = ExactRows(features)
    n_alike = np.zeros(n_images - 1, dtype=np.int64)
    block_size = max(1, _PAIRS // n_images)
    for start in range(0, n_anchors, block_size):
        rows = torch.from_numpy(anchors[start : start + block_size])  # (b,)
        every = torch.ones((len(rows), n_images), dtype=torch.bool)
        ranked = exact.rank(rows, every).columns.reshape(len(rows), n_images).numpy()  # (b, n)
        n_alike += (groups[ranked[:, 1:]] == groups[rows.numpy(), None]).sum(axis=0)
    share = n_alike / n_anchors  # (n - 1,)
    return RankAgreement(share, n_anchors, float(share.mean()))


def tabulate_ranks(agreement: RankAgreement, *, n_single: int, n_bins: int = 400) -> pd.DataFrame:
    """Put agreement by rank into a table: near ranks one by one, then means of equal ranges.

    Args:
        agreement: Of :func:`measure_rank_agreement`.
        n_single: Ranks that have a row each.
        n_bins: Rows at most of all others.

    Returns:
        ``first_rank`` and ``last_rank``, counted from 1, and ``share``.
    """
    n_ranks = len(agreement.share)
    n_single = min(n_single, n_ranks)
    n_bins = min(n_bins, n_ranks - n_single)
    edges = np.unique(np.linspace(n_single, n_ranks, n_bins + 1).astype(np.int64))
    starts = np.concatenate([np.arange(n_single), edges[:-1] if n_bins else edges[:0]])
    ends = np.append(starts[1:], n_ranks)
    totals = np.append(0.0, np.cumsum(agreement.share))  # (n,)
    return pd.DataFrame(
        {
            "first_rank": starts + 1,
            "last_rank": ends,
            "share": (totals[ends] - totals[starts]) / (ends - starts),
        }
    )
