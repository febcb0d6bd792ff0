"""The consensus of several heads: clusters are matched, probabilities averaged."""

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def match_clusters(probs: Tensor) -> NDArray[np.int64]:
    """Match the clusters of every head to those of the heads before it.

    The second head is matched to the first by the shared probability of their clusters, the next
    to the mean of these, and so on (Hungarian method).

    Args:
        probs: Shape ``(n, h, c)``, the best head first.

    Returns:
        Shape ``(h, c)``: which cluster of a head is cluster ``j`` of the consensus.
    """
    total = probs[:, 0].clone()  # (n, c)
    orders = [np.arange(probs.shape[2])]
    for head in range(1, probs.shape[1]):
        shared = (total.T @ probs[:, head]).numpy()  # (c, c)
        order = linear_sum_assignment(shared, maximize=True)[1]
        total += probs[:, head, order]
        orders.append(order)
    return np.stack(orders)


def order_by_labels(probs: Tensor, known_labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each label the cluster that its images share most (Hungarian method).

    Args:
        probs: Shape ``(n, c)``.
        known_labels: Shape ``(n,)``, below c, -1 = unknown.

    Returns:
        Which cluster is to have each number, ``(c,)``; those without a label keep their order.
    """
    n_clusters = probs.shape[1]
    labeled = np.flatnonzero(known_labels >= 0)
    shared = np.zeros((n_clusters, n_clusters))  # label, cluster
    np.add.at(shared, known_labels[labeled], probs[torch.from_numpy(labeled)].numpy())
    used = np.unique(known_labels[labeled])
    order = np.full(n_clusters, -1)
    order[used] = linear_sum_assignment(shared[used], maximize=True)[1]
    order[order < 0] = np.setdiff1d(np.arange(n_clusters), order)
    return order


def measure_agreements(probs: Tensor) -> NDArray[np.float64]:
    """Share of the images that two heads put into the same cluster, once these are matched.

    Args:
        probs: Shape ``(n, h, c)``.

    Returns:
        Shape ``(h, h)``, symmetric, in ``[0, 1]``, 1 on the diagonal.
    """
    n_images, n_heads, n_clusters = probs.shape
    clusters = probs.argmax(2).numpy()  # (n, h)
    shares = np.eye(n_heads)
    for one, other in combinations(range(n_heads), 2):
        pairs = clusters[:, one] * n_clusters + clusters[:, other]  # (n,)
        shared = np.bincount(pairs, minlength=n_clusters**2).reshape(n_clusters, n_clusters)
        rows, columns = linear_sum_assignment(shared, maximize=True)
        shares[one, other] = shares[other, one] = shared[rows, columns].sum() / n_images
    return shares


def average(probs: Tensor, orders: NDArray[np.int64]) -> Tensor:
    """Mean of the matched probabilities.

    Args:
        probs: Shape ``(n, h, c)``.
        orders: Shape ``(h, c)``, from :func:`match_clusters`.

    Returns:
        Shape ``(n, c)``.
    """
    index = torch.from_numpy(orders).expand(len(probs), -1, -1)  # (n, h, c)
    return probs.gather(2, index).mean(1)


def smooth(probs: Tensor, neighbor_probs: Tensor, neighbors: NDArray[np.int64]) -> Tensor:
    """Half an image's own prediction, half the mean of its nearest training images'.

    Args:
        probs: Shape ``(n, c)``.
        neighbor_probs: Of the training images, ``(m, c)``.
        neighbors: Rows of training images, ``(n, k)``.

    Returns:
        Shape ``(n, c)``.
    """
    return 0.5 * probs + 0.5 * neighbor_probs[torch.from_numpy(neighbors)].mean(1)
