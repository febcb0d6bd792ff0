"""TEMI: heads that agree with a slow teacher on pairs of neighbors, by mutual information."""

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, normalize
from tqdm import tqdm

from unic.baselines.assignment import assign_by_probs
from unic.baselines.batches import count_steps, draw_batches, draw_neighbors, standardize
from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs

logger = logging.getLogger(__name__)

# Adaloglou et al., 2023.
N_HEADS, N_NEIGHBORS, BETA = 16, 50, 0.6
TEMPERATURE = 0.1  # of student and teacher
PRIOR_MOMENTUM = 0.9
WEIGHT_STD = 0.02  # of a truncated normal
WEIGHT_DECAY, N_EPOCHS = 1e-4, 100

# Ours, for a minute of one core.
N_DIRECTIONS = 128  # of the features
WIDTH, BOTTLENECK = 256, 128  # theirs are 512 and 256
BATCH_SIZE = 256  # pairs, theirs are 512
MIN_STEPS, MAX_STEPS = 300, 500
LEARNING_RATE = 1e-3  # theirs is 1e-4
TEACHER_MOMENTUM = 0.98  # theirs is 0.996
_BLOCK_ROWS = 4096  # of features that are float64 at a time


class Heads(NamedTuple):
    """The weights of ``h`` heads; ``d`` dims, ``u`` units, ``e`` dims of the bottleneck."""

    hidden: Tensor  # (h, d, u)
    hidden_bias: Tensor  # (h, 1, u)
    bottleneck: Tensor  # (h, u, e)
    bottleneck_bias: Tensor  # (h, 1, e)
    directions: Tensor  # (h, e, c), their lengths do not matter
    lengths: Tensor  # (h, 1, c), those of the weights of the last layer


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Train 16 heads on pairs of neighbors, keep that of the lowest loss; it predicts all splits.

    Known labels are not used. What departs from the paper (Adaloglou et al., 2023), whose 16 heads
    of 0.8 million weights would need hours of one core for 20,000 images of 1280 dims:

    - Features are centered and divided by one number, not by one a dim, then turned and cut to
      the 128 directions in which they vary most.
    - Hidden layers of 256 and 128 units, not 512 and 256; batches of 256 pairs, not 512.
    - 100 epochs, but at least 300 and at most 500 steps: about a minute of one core. So few need
      a larger rate (1e-3, not 1e-4) and a faster teacher (0.98, not 0.996). No warm-up, and the
      last layer is not frozen at first.
    - Up to 50 neighbors, where as many are at hand.
    - A head is kept by its mean loss over the last fifth of the steps. The teacher predicts.

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
    splits = reduce(standardize(inputs.features, device=device))
    neighbors = torch.from_numpy(inputs.neighbors[:, 1 : 1 + N_NEIGHBORS])  # (n, k)
    teacher, losses = train_heads(splits["train"], neighbors, n_clusters, generator)
    best = int(losses.argmin())
    logger.info(
        "TEMI in %d clusters: loss %.4g, best of %d heads", n_clusters, losses[best], N_HEADS
    )
    kept = Heads(*(part[best : best + 1] for part in teacher))
    return assign_by_probs(splits, lambda rows: apply_heads(kept, rows)[0].exp())


def reduce(splits: dict[str, Tensor]) -> dict[str, Tensor]:
    """Coordinates ``(n, p)`` of centered features along the directions of most variance.

    Turned features have the same distances; what is cut has the least variance.
    """
    n_dims = splits["train"].shape[1]
    covariance = torch.zeros(n_dims, n_dims, dtype=torch.float64, device=splits["train"].device)
    for rows in splits["train"].split(_BLOCK_ROWS):
        covariance.addmm_(rows.double().T, rows.double())
    directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :N_DIRECTIONS].float()
    return {split: features @ directions for split, features in splits.items()}


def apply_heads(heads: Heads, features: Tensor) -> Tensor:
    """Log-probabilities ``(h, b, c)`` of features ``(b, d)``.

    Linear, GELU, Linear, unit length, then a linear layer whose weights have a length of their
    own (weight norm), without bias; ``softmax`` at a temperature of 0.1.
    """
    units = gelu(features @ heads.hidden + heads.hidden_bias)  # (h, b, u)
    points = normalize(units @ heads.bottleneck + heads.bottleneck_bias, dim=2)  # (h, b, e)
    logits = points @ (normalize(heads.directions, dim=1) * heads.lengths)  # (h, b, c)
    return (logits / TEMPERATURE).log_softmax(dim=2)


def weigh_pairs(teacher: Tensor, teacher_others: Tensor) -> Tensor:
    """How far the teachers of all heads, on average, put the two of a pair together: ``(b,)``.

    ``w_ij = mean_h sum_c q_h(c|i) q_h(c|j)``, so that false pairs count less.

    Args:
        teacher: Shape ``(h, b, c)``, log-probabilities of the anchors.
        teacher_others: Shape ``(h, b, c)``, those of their neighbors.
    """
    return (teacher + teacher_others).exp().sum(dim=2).mean(dim=0)


def temi_loss(student: Tensor, teacher_others: Tensor, weights: Tensor, priors: Tensor) -> Tensor:
    """The loss of each head in one direction (Adaloglou et al., 2023, Eqs. 4 to 8, unchecked).

    ``L_h = mean_ij -w_ij log sum_c (s_h(c|i) q_h(c|j))^beta / m_h(c)``, ``s`` the student, ``q``
    the teacher and ``m`` its mean prediction. With beta below 1 clusters do not collapse.

    Args:
        student: Shape ``(h, b, c)``, log-probabilities of one image of each pair.
        teacher_others: Shape ``(h, b, c)``, those of the other by the teacher.
        weights: Shape ``(b,)``.
        priors: Shape ``(h, c)``.

    Returns:
        Shape ``(h,)``.
    """
    # A prior may be rounded to 0 where no image is of the cluster.
    log_priors = priors.clamp(min=torch.finfo(priors.dtype).tiny).log()[:, None]  # (h, 1, c)
    shared = torch.logsumexp(BETA * (student + teacher_others) - log_priors, dim=2)  # (h, b)
    return -(weights * shared).mean(dim=1)


def train_heads(
    features: Tensor, neighbors: Tensor, n_clusters: int, generator: torch.Generator
) -> tuple[Heads, Tensor]:
    """The teachers of all heads, and the loss ``(h,)`` of each over the last fifth of the steps.

    Args:
        features: Shape ``(n, d)``.
        neighbors: Shape ``(n, k)``, without the image itself, on the CPU.
        n_clusters: K.
        generator: Source of initial weights, batches and neighbors.
    """
    (n_images, n_dims), device = features.shape, features.device
    teacher = _draw_heads(n_dims, n_clusters, generator, device)
    student = Heads(*(part.clone().requires_grad_() for part in teacher))
    priors = torch.full((N_HEADS, n_clusters), 1.0 / n_clusters, device=device)  # (h, c)
    optimizer = torch.optim.AdamW(student, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    n_steps = count_steps(
        n_images, BATCH_SIZE, n_epochs=N_EPOCHS, min_steps=MIN_STEPS, max_steps=MAX_STEPS
    )
    losses = []
    batches = draw_batches(n_images, BATCH_SIZE, n_steps, generator)
    for anchors in tqdm(batches, desc="temi", total=n_steps, unit="step", disable=None):
        others = draw_neighbors(neighbors, anchors, generator)  # (b,)
        pairs = features[torch.cat([anchors, others]).to(device)]  # (2 b, d)
        with torch.no_grad():
            targets = apply_heads(teacher, pairs)  # (h, 2 b, c)
        priors = PRIOR_MOMENTUM * priors + (1.0 - PRIOR_MOMENTUM) * targets.exp().mean(dim=1)
        loss = _both_directions(apply_heads(student, pairs), targets, priors)  # (h,)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        _follow(teacher, student)
        losses.append(loss.detach())
    return teacher, torch.stack(losses[-math.ceil(n_steps / 5) :]).mean(dim=0)


def _both_directions(student: Tensor, teacher: Tensor, priors: Tensor) -> Tensor:
    """Loss ``(h,)`` of pairs, whose anchors and neighbors follow one another: ``(h, 2 b, c)``."""
    students, teachers = student.chunk(2, dim=1), teacher.chunk(2, dim=1)  # (h, b, c) each
    weights = weigh_pairs(*teachers)  # (b,)
    forth = temi_loss(students[0], teachers[1], weights, priors)
    back = temi_loss(students[1], teachers[0], weights, priors)
    return (forth + back) / 2


@torch.no_grad()
def _follow(teacher: Heads, student: Heads) -> None:
    """Move the teacher towards the student, in place: an exponential moving average."""
    for slow, fast in zip(teacher, student, strict=True):
        slow.lerp_(fast, 1.0 - TEACHER_MOMENTUM)


def _draw_heads(
    n_dims: int, n_clusters: int, generator: torch.Generator, device: torch.device
) -> Heads:
    """Truncated normal weights, biases of 0 and lengths of 1."""

    def draw(*shape: int) -> Tensor:
        weights = torch.empty(N_HEADS, *shape)
        torch.nn.init.trunc_normal_(weights, std=WEIGHT_STD, generator=generator)
        return weights.to(device)

    return Heads(
        draw(n_dims, WIDTH),
        torch.zeros(N_HEADS, 1, WIDTH, device=device),
        draw(WIDTH, BOTTLENECK),
        torch.zeros(N_HEADS, 1, BOTTLENECK, device=device),
        draw(BOTTLENECK, n_clusters),
        torch.ones(N_HEADS, 1, n_clusters, device=device),
    )
