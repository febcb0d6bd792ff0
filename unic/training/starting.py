"""Where heads start: at random, or from clusters that were found before."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from unic.models.heads import Head

logger = logging.getLogger(__name__)

N_STEPS = 300
LEARNING_RATE = 0.003
BATCH_SIZE = 4096  # images a step; all where there are fewer


def learn_clusters(
    heads: Sequence[Head],
    features: NDArray[np.float32],
    clusters: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
) -> None:
    """Let heads learn given clusters of frozen features, by cross-entropy and Adam, in place.

    What follows trains them on neighbors: it begins with clusters that are good, and the head of
    one seed with those of the recipe of that seed.

    Args:
        heads: From features to logits.
        features: Shape ``(n, d)``, float32, of the backbone before it is trained.
        clusters: Shape ``(n,)``, in ``[0, c)``.
        seed: Of the batches.
        device: Where to compute.

    Raises:
        ValueError: If there is not a cluster for each image, or one is out of range.
    """
    n_clusters = heads[0].n_clusters
    if clusters.shape != (len(features),) or clusters.min() < 0 or clusters.max() >= n_clusters:
        raise ValueError(
            f"clusters must be {len(features)} in 0 to {n_clusters - 1}, got {len(clusters)} in "
            f"{clusters.min()} to {clusters.max()}"
        )
    rows, targets = torch.from_numpy(features), torch.from_numpy(clusters)
    generator = torch.Generator().manual_seed(seed)
    weights = [weight for head in heads for weight in head.to(device).parameters()]
    optimizer = torch.optim.Adam(weights, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N_STEPS)
    n_right = 0
    for _ in range(N_STEPS):
        batch = torch.randperm(len(rows), generator=generator)[:BATCH_SIZE]
        some, own = rows[batch].to(device), targets[batch].to(device)
        optimizer.zero_grad()
        logits = [head(some) for head in heads]
        torch.stack([cross_entropy(each, own) for each in logits]).sum().backward()
        optimizer.step()
        schedule.step()
        n_right = int((logits[0].argmax(1) == own).sum())
    share = n_right / min(BATCH_SIZE, len(rows))
    logger.info("heads start from %d clusters, %.1f %% of which they tell", n_clusters, 100 * share)
