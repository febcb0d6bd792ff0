"""Clusters of images that a method did not cluster itself: by class means, by a vote, by heads."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.baselines.kmeans import assign_clusters
from unic.baselines.methods import Found
from unic.neighbors.metric import to_euclidean

N_VOTERS = 10
_BLOCK_ROWS = 2048  # of images whose probabilities are computed at a time
_BLOCK_ENTRIES = 2**25  # of a block of cosines: 128 MB in float32


def class_means(
    points: NDArray[np.float32], clusters: NDArray[np.int64], n_clusters: int
) -> NDArray[np.float32]:
    """Mean point ``(c, d)`` of each cluster, none of which may be empty, summed in float64."""
    sums = np.zeros((n_clusters, points.shape[1]))  # (c, d)
    for cluster in range(n_clusters):
        sums[cluster] = points[clusters == cluster].mean(axis=0, dtype=np.float64)
    return sums.astype(np.float32)


def assign_to_means(
    splits: Mapping[str, NDArray[np.float32]],
    fitted: NDArray[np.int64],
    rows: NDArray[np.int64],
    n_clusters: int,
    *,
    device: str | torch.device,
) -> Found:
    """Keep the clusters of the fitted training rows; all others go to the nearest class mean.

    Args:
        splits: Split to points ``(n, d)`` of the space that was clustered.
        fitted: Shape ``(m,)``, the clusters of ``rows``, none empty.
        rows: Shape ``(m,)``, rows of the training split.
        n_clusters: K.
        device: Where distances are computed.

    Returns:
        Clusters of all splits; confidence is 1.
    """
    means = class_means(splits["train"][rows], fitted, n_clusters)  # (c, d)
    found: Found = {}
    for split, points in splits.items():
        clusters = assign_clusters(points, means, device=device)  # (n,)
        if split == "train":
            clusters[rows] = fitted
        found[split] = clusters, np.ones(len(clusters), dtype=np.float32)
    return found


def find_nearest(asking: Tensor, known: Tensor, n_nearest: int) -> Iterator[Tensor]:
    """Yield the rows of the highest products, block by block of the images that ask.

    Args:
        asking: Shape ``(n, d)``.
        known: Shape ``(m, d)``, on the device where products are computed; they are cosines where
            both are of unit length.
        n_nearest: At most m.

    Yields:
        Rows of ``known``, shape ``(b, n_nearest)``, the nearest first.
    """
    for block in asking.split(max(1, _BLOCK_ENTRIES // len(known))):
        yield (block.to(known.device) @ known.T).topk(n_nearest, dim=1).indices


def vote(
    features: NDArray[np.float32],
    voters: NDArray[np.float32],
    clusters: NDArray[np.int64],
    n_clusters: int,
    *,
    device: str | torch.device,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The commonest cluster among the 10 images of the highest cosine, ties to the lower cluster.

    Args:
        features: Shape ``(n, d)``, of the images that ask.
        voters: Shape ``(m, d)``, of the images that answer; all of them where there are fewer.
        clusters: Shape ``(m,)``, those of the voters.
        n_clusters: K.
        device: Where cosines are computed.

    Returns:
        Clusters ``(n,)`` and the share of the votes ``(n,)`` that each had.
    """
    known = torch.from_numpy(to_euclidean(voters, "cosine")).to(device)  # (m, d)
    labels = torch.from_numpy(clusters).to(device)  # (m,)
    n_voters = min(N_VOTERS, len(voters))
    winners, shares = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    asking = torch.from_numpy(to_euclidean(features, "cosine"))  # (n, d)
    for nearest in find_nearest(asking, known, n_voters):
        votes = torch.zeros(len(nearest), n_clusters, device=known.device)  # (b, c)
        votes.scatter_add_(1, labels[nearest], torch.ones_like(nearest, dtype=votes.dtype))
        # By numpy: it promises the first of equal ones.
        counts = votes.cpu().numpy()
        winners.append(counts.argmax(axis=1))
        shares.append((counts.max(axis=1) / n_voters).astype(np.float32))
    return np.concatenate(winners), np.concatenate(shares)


@torch.no_grad()
def assign_by_probs(splits: Mapping[str, Tensor], predict: Callable[[Tensor], Tensor]) -> Found:
    """The likeliest cluster of each image, and its probability as the confidence.

    Args:
        splits: Split to features ``(n, d)``.
        predict: From features ``(b, d)`` to probabilities ``(b, c)``.
    """
    found: Found = {}
    for split, features in splits.items():
        best = [predict(rows).max(dim=1) for rows in features.split(_BLOCK_ROWS)]
        clusters = torch.cat([each.indices for each in best]) if best else torch.empty(0)
        confidence = torch.cat([each.values for each in best]) if best else torch.empty(0)
        found[split] = (
            clusters.cpu().numpy().astype(np.int64),
            confidence.cpu().clamp(0.0, 1.0).numpy().astype(np.float32),
        )
    return found
