"""Many linear heads at once, each from a partition that it is given, all in one matrix."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from unic.neighbors.label_groups import LabelGroups

SCALE = 20.0  # of the cosine to the mean of a cluster: logits that are sure, but not hard
LENGTH = 24.0  # root mean square of the inputs that random heads are trained on
_BOUND = 1 / 16  # of their weights: at this length logits differ by about 1 at first
_MIN_PROB = 1e-12
_BLOCK_ENTRIES = 2**24  # of a block of probabilities: 64 MB in float32


class Heads(NamedTuple):
    """Linear heads of ``h`` partitions: ``y = softmax(W z + b)`` each."""

    weights: Tensor  # (h, c, r)
    biases: Tensor  # (h, c)

    def predict(self, points: NDArray[np.float32]) -> Tensor:
        """Probabilities ``(n, h, c)`` of points ``(n, r)``."""
        n_heads, n_clusters, n_dims = self.weights.shape
        flat = self.weights.reshape(n_heads * n_clusters, n_dims)
        logits = torch.addmm(self.biases.reshape(-1), torch.from_numpy(points), flat.T)
        return logits.view(-1, n_heads, n_clusters).softmax(2)

    def select(self, heads: NDArray[np.int64]) -> "Heads":
        """Some of the heads, in a given order."""
        rows = torch.from_numpy(heads)
        return Heads(self.weights[rows], self.biases[rows])

    def soften(self, factor: float) -> "Heads":
        """Heads whose logits are multiplied by a factor, at most 1: less sure, easier to move."""
        return Heads(factor * self.weights, factor * self.biases)

    def rescale(self, factor: float) -> "Heads":
        """Heads that say of points what these say of points that are multiplied by a factor."""
        return Heads(factor * self.weights, self.biases)


class Training(NamedTuple):
    """How heads are trained."""

    n_steps: int = 50
    learning_rate: float = 0.01
    balance: float = 3.0  # weight of the sizes' divergence from their prior
    batch_size: int = 4096  # anchors a step; all where there are fewer
    supervised: float = 1.0  # weight of the cross-entropy of known labels, where there are some
    pairs_labels: bool = False  # whether a labeled anchor's neighbor is any image of its label


def start_heads(
    points: NDArray[np.float32], partitions: NDArray[np.int64], n_clusters: int
) -> Heads:
    """Heads that tell clusters by the cosine to their means.

    Args:
        points: Shape ``(n, r)``, of unit length.
        partitions: Shape ``(h, n)``, in ``[0, c)``.
        n_clusters: c.
    """
    means = np.zeros((len(partitions), n_clusters, points.shape[1]), dtype=np.float32)
    for head, clusters in enumerate(partitions):
        np.add.at(means[head], clusters, points)
    weights = SCALE * normalize(torch.from_numpy(means), dim=2)  # (h, c, r)
    return Heads(weights, torch.zeros(weights.shape[:2]))


def draw_heads(n_heads: int, n_clusters: int, n_dims: int, *, generator: torch.Generator) -> Heads:
    """Heads of uniform random weights, for inputs of a mean length of :data:`LENGTH`.

    Args:
        n_heads: h.
        n_clusters: c.
        n_dims: r.
        generator: Source of the weights.
    """
    weights = torch.rand(n_heads, n_clusters, n_dims, generator=generator)  # (h, c, r)
    return Heads(_BOUND * (2.0 * weights - 1.0), torch.zeros(n_heads, n_clusters))


def train_heads(
    heads: Heads,
    points: NDArray[np.float32],
    neighbors: NDArray[np.int64],
    *,
    priors: NDArray[np.float32],
    known_labels: NDArray[np.int64],
    settings: Training,
    generator: torch.Generator,
) -> Heads:
    """Train all heads beside each other, so that neighbors agree (UNIC, Eq. 6, upper line).

    Each minimizes ``mean_i -log <y_i, y_p> + balance * KL(mean_i y_i || prior)``, with one random
    neighbor ``p`` of each anchor a step. A uniform prior gives the entropy of the paper's Eq. 8;
    the sizes of the partition that a head starts from assume no equal sizes. Where labels are
    known, the cross-entropy of these is added, or the neighbor of a labeled anchor is a random
    image of its label (UNIC, Section 3.2).

    Args:
        heads: To start from.
        points: Shape ``(n, r)``.
        neighbors: Of each point, without itself: ``(n, k)``.
        priors: Expected share of each cluster, ``(h, c)``, positive.
        known_labels: Shape ``(n,)``, -1 = unknown.
        settings: See :class:`Training`.
        generator: Draws batches and neighbors.

    Returns:
        The trained heads.
    """
    n_heads, n_clusters, n_dims = heads.weights.shape
    weights = heads.weights.reshape(n_heads * n_clusters, n_dims).clone()  # (h * c, r)
    biases = heads.biases.reshape(-1).clone()  # (h * c,)
    optimizer = torch.optim.Adam([weights, biases], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.n_steps)
    rows, others = torch.from_numpy(points), torch.from_numpy(neighbors)
    log_priors = torch.from_numpy(priors).log()  # (h, c)
    labels = torch.from_numpy(known_labels)
    groups = LabelGroups(known_labels) if settings.pairs_labels else None
    for _ in range(settings.n_steps):
        batch = _draw_batch(others, groups, settings.batch_size, generator)
        of_batch = rows if batch.is_whole else rows[batch.images]  # (b, r)
        logits = torch.addmm(biases, of_batch, weights.T)  # (b, h * c)
        probs = logits.view(-1, n_heads, n_clusters).softmax(2)
        slope = loss_slope(
            probs, batch.partners, log_priors, labels[batch.images], settings=settings
        ).view(len(probs), -1)  # (b, h * c)
        weights.grad, biases.grad = slope.T @ of_batch, slope.sum(0)
        optimizer.step()
        schedule.step()
    return Heads(weights.view(n_heads, n_clusters, n_dims), biases.view(n_heads, -1))


def loss_slope(
    probs: Tensor,
    partners: Tensor,
    log_priors: Tensor,
    labels: Tensor,
    *,
    settings: Training,
) -> Tensor:
    """Slope of the sum of the heads' losses in their logits, in closed form.

    With ``s_i = <y_i, y_p(i)>`` of ``a`` anchors and their mean ``m``, the slope in ``y_i`` is
    ``(balance * (log m - log prior + 1) - y_p(i) / s_i) / a``, and ``-y_i / (a s_i)`` in that of
    the partner; then that of the softmax, ``y * (g - <y, g>)``. A known label ``l`` adds
    ``y - e_l`` over the number of labeled anchors.

    Args:
        probs: Shape ``(b, h, c)``, the anchors first.
        partners: Row of each anchor's neighbor, ``(a,)``.
        log_priors: Shape ``(h, c)``.
        labels: Shape ``(b,)``, -1 = unknown.
        settings: Weights of the terms.

    Returns:
        Shape ``(b, h, c)``.
    """
    n_anchors = len(partners)
    anchors, chosen = probs[:n_anchors], probs[partners]  # (a, h, c) each
    same = (anchors * chosen).sum(2, keepdim=True).clamp_(min=_MIN_PROB)  # (a, h, 1)
    mean = anchors.mean(0).clamp_(min=_MIN_PROB)  # (h, c)
    slope = torch.zeros_like(probs)
    slope[:n_anchors] = settings.balance * (mean.log() - log_priors + 1.0) - chosen / same
    slope.index_add_(0, partners, anchors / same, alpha=-1.0)
    slope -= (probs * slope).sum(2, keepdim=True)
    slope *= probs
    slope /= n_anchors
    labeled = (labels[:n_anchors] >= 0).nonzero()[:, 0]  # (l,)
    if len(labeled):
        wrong = probs[labeled]  # (l, h, c)
        known = labels[labeled][:, None, None].expand(-1, wrong.shape[1], 1)
        wrong.scatter_add_(2, known, probs.new_full(known.shape, -1.0))
        slope[labeled] += settings.supervised * wrong / len(labeled)
    return slope


class _Batch(NamedTuple):
    images: Tensor  # (b,), the anchors first
    partners: Tensor  # (a,), row of each anchor's neighbor in the batch
    is_whole: bool  # whether the batch is all images, in their order


def _draw_batch(
    others: Tensor, groups: LabelGroups | None, batch_size: int, generator: torch.Generator
) -> _Batch:
    """Anchors and a random neighbor of each; all images where a batch has room for them."""
    n_images, n_neighbors = others.shape
    is_whole = n_images <= batch_size
    anchors = torch.arange(n_images)
    if not is_whole:
        anchors = torch.randint(n_images, (batch_size,), generator=generator)  # (a,)
    ranks = torch.randint(n_neighbors, (len(anchors),), generator=generator)
    partners = others[anchors, ranks]  # (a,)
    if groups is not None:
        labeled = torch.from_numpy(groups.is_labeled)[anchors].nonzero()[:, 0]  # (l,)
        uniform = torch.rand(len(labeled), generator=generator, dtype=torch.float64)
        same = groups.draw_same(anchors[labeled].numpy(), uniform.numpy())  # (l,)
        partners[labeled] = torch.from_numpy(same)
    if is_whole:
        return _Batch(anchors, partners, is_whole=True)
    images = torch.cat([anchors, partners])  # (2 a,)
    return _Batch(images, torch.arange(batch_size, 2 * batch_size), is_whole=False)


class Fit(NamedTuple):
    """How well heads do without labels: lower is better."""

    disagreement: NDArray[np.float64]  # (h,), mean_i -log <y_i, y_p> over neighbors
    imbalance: NDArray[np.float64]  # (h,), log K - H(mean_i y_i)


def measure_fit(probs: Tensor, neighbors: NDArray[np.int64], *, n_ranks: int = 4) -> Fit:
    """Measure how far heads agree about neighbors, and how unequal their clusters are.

    Args:
        probs: Shape ``(n, h, c)``.
        neighbors: Without the images themselves, ``(n, k)``.
        n_ranks: How many of the nearest are compared.
    """
    total = torch.zeros(probs.shape[1], dtype=torch.float64)  # (h,)
    block_rows = max(1, _BLOCK_ENTRIES // probs[0].numel())
    for rank in range(min(n_ranks, neighbors.shape[1])):
        others = torch.from_numpy(neighbors[:, rank].copy())  # (n,)
        for rows in torch.arange(len(probs)).split(block_rows):
            same = (probs[rows] * probs[others[rows]]).sum(2).clamp(min=_MIN_PROB)  # (b, h)
            total -= same.log().sum(0, dtype=torch.float64)
    n_pairs = len(probs) * min(n_ranks, neighbors.shape[1])
    mean = probs.mean(0, dtype=torch.float64).clamp(min=_MIN_PROB)  # (h, c)
    imbalance = math.log(probs.shape[2]) + (mean * mean.log()).sum(1)
    return Fit((total / n_pairs).numpy(), imbalance.numpy())
