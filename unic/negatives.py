"""Negatives: images drawn at random from beyond the far rank of each anchor."""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from unic.mining import DistanceBlocks

logger = logging.getLogger(__name__)


def index_negatives(
    features: NDArray[np.float32],
    far_radius: NDArray[np.float32],
    *,
    far_rank: int,
    n_negatives: int,
    known_labels: NDArray[np.int64],
    generator: np.random.Generator,
    exclude_known_same_label: bool = True,
    device: str | torch.device = "cpu",
    block_size: int | None = None,
) -> NDArray[np.int64]:
    """Draw negatives of every image uniformly, with replacement, from its far set (UNIC, Eq. 3).

    The far set ``Q_i[tau_2:n]`` holds the images from rank ``far_rank`` on, in the very order of
    :func:`unic.mining.mine_neighbors`, less the images known to share the label of ``i``.

    The radius spares a second selection at ``far_rank``, but cannot bound the far set alone: it
    is rounded to float32, where images a few ranks apart may agree, and images may be equally
    far. The few images that agree with it in float32 are therefore ranked again by float64
    distance and index, so that exactly ``far_rank`` images are inside.

    Args:
        features: Shape ``(n, d)``, float32, those that were mined.
        far_radius: Shape ``(n,)``, float32, of :class:`unic.mining.Neighbors`.
        far_rank: tau_2 of the paper, the one that gave ``far_radius``.
        n_negatives: Images drawn per anchor, at least 1.
        known_labels: Shape ``(n,)``, int64, -1 where unknown.
        generator: Source of the draws; the same state gives the same negatives, whatever the
            ``block_size`` and ``device``.
        exclude_known_same_label: Whether images known to share the anchor's label are left out.
        device: Where the distances are computed, in the words of torch.
        block_size: Rows of the distance matrix held at a time; by default as many as fit 256 MB.

    Returns:
        Indices of shape ``(n, n_negatives)``, int64.

    Raises:
        ValueError: If ``far_radius`` is not that of these features and this rank, if an anchor is
            left without any far image (names the row), or if a shape or number is off.
    """
    n_images = len(features)
    _check_arguments(n_images, far_radius, far_rank, n_negatives, known_labels)
    blocks = DistanceBlocks(features, device=device, block_size=block_size)
    labels = torch.tensor(known_labels, device=device)  # (n,)
    radius = torch.tensor(far_radius, device=device)[:, None]  # (n, 1)
    indices = np.empty((n_images, n_negatives), dtype=np.int64)
    n_far = 0
    for rows in tqdm(blocks.rows, desc="index_negatives", unit="block", disable=None):
        is_far = _find_far(blocks, rows, radius[rows], far_rank)  # (b, n)
        if exclude_known_same_label:
            anchor_labels = labels[rows, None]  # (b, 1)
            is_far &= (anchor_labels < 0) | (anchor_labels != labels)  # (b, n)
        n_far += _count_far(is_far, rows.start)
        # One uniform number a draw, in the order of the rows: blocks do not show in the result.
        uniform = torch.from_numpy(generator.random((len(is_far), n_negatives)))  # (b, m)
        indices[rows] = _draw(is_far, uniform.to(device)).cpu().numpy()
    logger.info(
        "drew %d negatives of each of %d images from far sets of %.1f images on average, on %s",
        n_negatives,
        n_images,
        n_far / n_images,
        device,
    )
    return indices


def _find_far(blocks: DistanceBlocks, rows: slice, radius: Tensor, far_rank: int) -> Tensor:
    """Mark the images from ``far_rank`` on: shape ``(b, n)``, bool."""
    screened = blocks.screen(rows)  # (b, n)
    slack = 2 * blocks.slack[rows]  # (b, 1)
    # The exact distance at far_rank lies between the float32 neighbors of its rounded value.
    inner = torch.nextafter(radius, torch.zeros_like(radius)).double().square() - slack  # (b, 1)
    outer = torch.nextafter(radius, torch.full_like(radius, torch.inf)).double().square() + slack
    is_nearer = screened < inner  # (b, n)
    is_far: Tensor = screened > outer  # (b, n)
    doubtful = blocks.rank(rows, ~is_nearer & ~is_far)
    n_missing = far_rank - is_nearer.sum(dim=1)  # (b,), doubtful images that are inside
    mismatch = (n_missing < 0) | (n_missing >= doubtful.counts)  # (b,)
    if mismatch.any():
        row = int(mismatch.nonzero()[0, 0])
        raise ValueError(
            f"far_radius must be the distance at far_rank={far_rank} in these features, "
            f"got {float(radius[row, 0])} for row {rows.start + row}"
        )
    position = torch.arange(len(doubtful.rows), device=screened.device)  # (p,)
    is_outside = position >= (doubtful.first + n_missing)[doubtful.rows]  # (p,)
    is_far[doubtful.rows, doubtful.columns] = is_outside
    return is_far


def _count_far(is_far: Tensor, start: int) -> int:
    """Count the far images of a block ``(b, n)``, refusing rows that have none."""
    counts = is_far.sum(dim=1)  # (b,)
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        raise ValueError(
            "every anchor must keep at least 1 far image, got none for row "
            f"{start + int(empty[0])}: all images beyond far_rank are known to share its label"
        )
    return int(counts.sum())


def _draw(is_far: Tensor, uniform: Tensor) -> Tensor:
    """Turn numbers in [0, 1) ``(b, m)`` into marked columns ``(b, m)``, each equally likely."""
    cumulative = is_far.cumsum(dim=1, dtype=torch.int32)  # (b, n)
    ranks = (uniform * cumulative[:, -1:]).to(torch.int32)  # (b, m), rounds down
    return torch.searchsorted(cumulative, ranks + 1)  # (b, m)


def _check_arguments(
    n_images: int,
    far_radius: NDArray[np.float32],
    far_rank: int,
    n_negatives: int,
    known_labels: NDArray[np.int64],
) -> None:
    if far_radius.shape != (n_images,) or far_radius.dtype != np.float32:
        raise ValueError(
            f"far_radius must be a float32 array of shape ({n_images},), "
            f"got {far_radius.dtype} of shape {far_radius.shape}"
        )
    if known_labels.shape != (n_images,) or known_labels.dtype != np.int64:
        raise ValueError(
            f"known_labels must be an int64 array of shape ({n_images},), "
            f"got {known_labels.dtype} of shape {known_labels.shape}"
        )
    bad_rows = np.flatnonzero(~(np.isfinite(far_radius) & (far_radius >= 0)))
    if bad_rows.size:
        row = bad_rows[0]
        raise ValueError(
            f"far_radius must be finite and at least 0, got {far_radius[row]} for row {row}"
        )
    if not 2 <= far_rank < n_images:
        raise ValueError(f"far_rank must be at least 2 and below n={n_images}, got {far_rank}")
    if n_negatives < 1:
        raise ValueError(f"n_negatives must be at least 1, got {n_negatives}")
