"""SCAN: heads whose predictions agree between neighbors, then on their own sure ones."""

import logging
import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from unic.baselines.assignment import assign_by_probs
from unic.baselines.batches import count_steps, draw_batches, draw_neighbors, standardize
from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs

logger = logging.getLogger(__name__)

# Step A (van Gansbeke et al., 2020, their settings on subsets of ImageNet).
ENTROPY_WEIGHT = 5.0
N_HEADS, N_NEIGHBORS, BATCH_SIZE = 10, 50, 1024
LEARNING_RATE, MOMENTUM = 5.0, 0.9
# Step B.
THRESHOLD, SELF_BATCH_SIZE, SELF_EPOCHS, SELF_LEARNING_RATE = 0.99, 512, 25, 0.03

N_STEPS = 2000  # of step A, ours
MAX_SELF_STEPS = 1000  # of step B, ours
MAX_MEASURED = 20_000  # images over which the final loss of heads is taken, ours
_WEIGHT_STD = 0.01


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Train 10 linear heads on frozen features, keep that of the lowest loss, label by itself.

    All splits are predicted by the head. Known labels are not used. What departs from the paper:

    - Features are centered, and scaled so that their squared length is 1 on average: the rate of
      5 is for features of another scale with each backbone, and there for one backbone.
    - 2000 steps of batches of 1024, which are 100 epochs of 20,000 images, and about a minute of
      one core there; fewer images in many clusters are far from done after 100 epochs.
    - The loss by which a head is kept is that over the training images, at most 20,000, and a
      neighbor of each, after the training.
    - Up to 50 neighbors, where as many are at hand.
    - Step B has no strong views, since there are features alone: a head learns what it predicts of
      the very same features, so that it grows surer but hears nothing new. The average of
      weights (0.999) is left out. 25 epochs, at most 1000 steps.

    Args:
        inputs: Features of all splits, neighbors in training.
        n_clusters: K.
        generator: Source of initial weights, batches and neighbors.
        device: Where heads are trained.

    Returns:
        Clusters of all splits; confidence is the probability.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`, or all training
            features are the same.
    """
    check_inputs(inputs, n_clusters)
    scale = 1.0 / math.sqrt(inputs.features["train"].shape[1])
    splits = {
        split: rows * scale for split, rows in standardize(inputs.features, device=device).items()
    }
    neighbors = torch.from_numpy(inputs.neighbors[:, 1 : 1 + N_NEIGHBORS])  # (n, k)
    weights, biases = train_heads(splits["train"], neighbors, n_clusters, generator)
    losses = measure_heads(splits["train"], neighbors, weights, biases, generator)  # (h,)
    best = int(losses.argmin())
    weight, bias = weights[best], biases[best]  # (c, d), (c,)
    weight, bias = label_by_itself(splits["train"], weight, bias, generator)
    logger.info(
        "SCAN in %d clusters: loss %.4g, best of %d heads", n_clusters, losses[best], N_HEADS
    )
    return assign_by_probs(splits, lambda rows: (rows @ weight.T + bias).softmax(dim=1))


def scan_loss(anchor_log_probs: Tensor, neighbor_log_probs: Tensor) -> Tensor:
    """The loss of step A of each head (van Gansbeke et al., 2020, Eq. 2).

    ``L = -mean_i log <p_i, p_j> + lambda sum_c pbar_c log pbar_c``, ``pbar`` the mean of the
    predictions of the anchors.

    Args:
        anchor_log_probs: Shape ``(b, h, c)``, log-probabilities of the anchors by each head.
        neighbor_log_probs: Shape ``(b, h, c)``, row ``i`` of a neighbor of anchor ``i``.

    Returns:
        Shape ``(h,)``.
    """
    agreement = torch.logsumexp(anchor_log_probs + neighbor_log_probs, dim=2).mean(dim=0)  # (h,)
    n_anchors = len(anchor_log_probs)
    # In log space: the gradient of p log p is not finite where p is rounded to 0.
    log_means = torch.logsumexp(anchor_log_probs, dim=0) - math.log(n_anchors)  # (h, c)
    entropy = -(log_means.exp() * log_means).sum(dim=1)  # (h,)
    return -agreement - ENTROPY_WEIGHT * entropy


def self_label_loss(logits: Tensor) -> Tensor | None:
    """Cross-entropy of the images that are sure of their cluster against it (step B).

    ``L = mean_{i: max_c p_ic > 0.99} -log p_ic*``, ``c* = argmax_c p_ic``.

    Args:
        logits: Shape ``(b, c)``.

    Returns:
        A scalar, None where no image is sure enough.
    """
    confidence, labels = logits.detach().softmax(dim=1).max(dim=1)  # (b,) each
    is_sure = confidence > THRESHOLD  # (b,)
    return cross_entropy(logits[is_sure], labels[is_sure]) if is_sure.any() else None


def train_heads(
    features: Tensor, neighbors: Tensor, n_clusters: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Step A: weights ``(h, c, d)`` and biases ``(h, c)`` of heads trained on the same batches.

    Heads share nothing but the batches, so that the gradient of the sum of their losses is that
    of each.

    Args:
        features: Shape ``(n, d)``.
        neighbors: Shape ``(n, k)``, without the image itself, on the CPU.
        n_clusters: K.
        generator: Source of initial weights, batches and neighbors.
    """
    n_images, n_dims = features.shape
    drawn = torch.randn(N_HEADS, n_clusters, n_dims, generator=generator)  # (h, c, d)
    weights = (_WEIGHT_STD * drawn).to(features.device).requires_grad_()
    biases = torch.zeros(N_HEADS, n_clusters, device=features.device, requires_grad=True)
    optimizer = torch.optim.SGD([weights, biases], lr=LEARNING_RATE, momentum=MOMENTUM)
    batches = draw_batches(n_images, BATCH_SIZE, N_STEPS, generator)
    for anchors in tqdm(batches, desc="scan", total=N_STEPS, unit="step", disable=None):
        others = draw_neighbors(neighbors, anchors, generator)  # (b,)
        log_probs = [
            _apply(features[rows.to(features.device)], weights, biases)
            for rows in (anchors, others)
        ]  # (b, h, c) each
        optimizer.zero_grad()
        scan_loss(*log_probs).sum().backward()
        optimizer.step()
    return weights.detach(), biases.detach()


@torch.no_grad()
def measure_heads(
    features: Tensor,
    neighbors: Tensor,
    weights: Tensor,
    biases: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Loss ``(h,)`` of each head over all images, or a random 20,000, and a neighbor of each."""
    anchors = torch.randperm(len(features), generator=generator)[:MAX_MEASURED]  # (m,)
    others = draw_neighbors(neighbors, anchors, generator)  # (m,)
    log_probs = [
        _apply(features[rows.to(features.device)], weights, biases) for rows in (anchors, others)
    ]  # (m, h, c) each
    return scan_loss(*log_probs)


def label_by_itself(
    features: Tensor, weight: Tensor, bias: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Step B: weight ``(c, d)`` and bias ``(c,)`` trained on what they are sure of."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight, bias], lr=SELF_LEARNING_RATE, momentum=MOMENTUM)
    n_steps = count_steps(
        len(features), SELF_BATCH_SIZE, n_epochs=SELF_EPOCHS, min_steps=1, max_steps=MAX_SELF_STEPS
    )
    for rows in draw_batches(len(features), SELF_BATCH_SIZE, n_steps, generator):
        loss = self_label_loss(features[rows.to(features.device)] @ weight.T + bias)
        if loss is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return weight.detach(), bias.detach()


def _apply(features: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """Log-probabilities ``(b, h, c)`` of features ``(b, d)`` by all heads in one product."""
    logits = features @ weights.flatten(0, 1).T + biases.flatten()  # (b, h c)
    return logits.unflatten(1, biases.shape).log_softmax(dim=2)
