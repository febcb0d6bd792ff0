"""I-Con: a linear layer whose clusters match the graph of neighbors, debiased."""

import logging

import torch
from torch import Tensor
from tqdm import tqdm

from unic.baselines.assignment import assign_by_probs
from unic.baselines.batches import count_steps, draw_batches, standardize
from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs

logger = logging.getLogger(__name__)

# Alshammari et al., 2025, sections 3.3 to 4.3.
N_NEIGHBORS, WALK_LENGTH, DEBIASING = 3, 1, 0.7
N_DRAWN = 2  # neighbors of each anchor in a batch
HALVED_AFTER, N_EPOCHS = 10, 30

LEARNING_RATE = 1e-2  # theirs is 1e-3, for 9000 steps
BATCH_SIZE = 2048  # theirs is 4096; a step takes its square
MIN_STEPS, MAX_STEPS = 300, 800  # ours
_WEIGHT_STD = 0.01


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Train one linear layer by debiased InfoNCE clustering; it predicts all splits.

    Known labels are not used. What departs from the paper (Alshammari et al., 2025):

    - No views of images, since there are features alone: the supervisory distribution is that of
      neighbors alone, and an image is no positive of itself. The moving average is left out.
    - Features are centered and divided by one number, which makes the variance of a dim 1 on
      average, near that of DINOv2's features, which the paper takes as they are.
    - Batches of 2048 images and not 4096, of which a third are anchors and the rest two
      neighbors of each; 30 epochs of anchors, but at least 300 and at most 800 steps, the rate
      halved after each third of them, from 1e-2 and not 1e-3, since there are so few: 20,000
      images of 1280 dims in 10 clusters take about a minute of one core.
    - A batch holds an image once, also where it is a neighbor of several anchors.

    Args:
        inputs: Features of all splits, neighbors in training, of which 3 are used.
        n_clusters: K.
        generator: Source of initial weights and batches.
        device: Where the layer is trained.

    Returns:
        Clusters of all splits; confidence is the probability.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`, or all training
            features are the same.
    """
    check_inputs(inputs, n_clusters)
    splits = standardize(inputs.features, device=device)
    neighbors = torch.from_numpy(inputs.neighbors[:, 1 : 1 + N_NEIGHBORS])  # (n, k)
    weight, bias = train_layer(splits["train"], neighbors, n_clusters, generator)
    return assign_by_probs(splits, lambda rows: (rows @ weight.T + bias).softmax(dim=1))


def icon_loss(log_probs: Tensor, is_positive: Tensor, *, debiasing: float) -> Tensor:
    """Debiased InfoNCE clustering over a batch (Alshammari et al., 2025, sections 3.3 and 4).

    ``L = mean_i KL(p~(.|i) || q~(.|i))`` with ``q(j|i) = sum_c P_c(i) P_c(j) / sum_k P_c(k)``,
    ``p(.|i)`` uniform over the positives of ``i``, ``p~ = (1 - a) p + a / N`` and
    ``q~ = (1 - a) q + a / N``. An image without a positive in the batch does not count; without
    any the loss is 0.

    Args:
        log_probs: Shape ``(b, c)``, log-probabilities ``log P_c(i)``.
        is_positive: Shape ``(b, b)``, bool, whether image ``j`` is a positive of image ``i``.
        debiasing: a, in (0, 1).
    """
    n_images = len(log_probs)
    n_positives = is_positive.sum(dim=1)  # (b,)
    has_positive = n_positives > 0  # (b,)
    # q(j|i) = sum_c P_c(i) R_c(j), R_c the share that image j has of cluster c.
    shares = log_probs.log_softmax(dim=0).exp()  # (b, c)
    learned = log_probs[has_positive].exp() @ shares.T  # (r, b)
    learned = (1.0 - debiasing) * learned + debiasing / n_images
    given = is_positive[has_positive].to(learned.dtype) / n_positives[has_positive, None]  # (r, b)
    given = (1.0 - debiasing) * given + debiasing / n_images
    divergences = (given * (given.log() - learned.log())).sum(dim=1)  # (r,)
    return divergences.sum() / has_positive.sum().clamp(min=1)


def walk(neighbors: Tensor, length: int) -> Tensor:
    """Images ``(n, r)`` that at most ``length`` steps to a neighbor reach; some more than once.

    ``1[P + P^2 + ... + P^s > 0]`` as lists: with ``P`` the steps to one of ``k`` neighbors,
    column ``r`` goes over ``k + k^2 + ... + k^s`` ways. The image itself may be reached.

    Args:
        neighbors: Shape ``(n, k)``, without the image itself.
        length: s, at least 1.
    """
    last, reached = neighbors, [neighbors]
    for _ in range(length - 1):
        last = neighbors[last].flatten(1)  # (n, k^s)
        reached.append(last)
    return torch.cat(reached, dim=1)


def find_positives(batch: Tensor, reached: Tensor) -> Tensor:
    """Whether image ``j`` of a batch is reached from image ``i``: ``(b, b)``, bool.

    Args:
        batch: Shape ``(b,)``, images, each once.
        reached: Shape ``(n, r)``, see :func:`walk`; an image is no positive of itself.
    """
    places = torch.full((len(reached),), -1)  # (n,)
    places[batch] = torch.arange(len(batch))
    columns = places[reached[batch]]  # (b, r)
    # What is not in the batch goes to a column of its own.
    found = torch.zeros(len(batch), len(batch) + 1, dtype=torch.bool)  # (b, b + 1)
    found.scatter_(1, torch.where(columns < 0, len(batch), columns), True)
    return found[:, :-1].fill_diagonal_(False)


def train_layer(
    features: Tensor, neighbors: Tensor, n_clusters: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Weight ``(c, d)`` and bias ``(c,)`` of the layer.

    Args:
        features: Shape ``(n, d)``.
        neighbors: Shape ``(n, k)``, without the image itself, on the CPU.
        n_clusters: K.
        generator: Source of initial weights and batches.
    """
    (n_images, n_dims), device = features.shape, features.device
    drawn = torch.randn(n_clusters, n_dims, generator=generator)  # (c, d)
    weight = (_WEIGHT_STD * drawn).to(device).requires_grad_()
    bias = torch.zeros(n_clusters, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    n_anchors = BATCH_SIZE // (1 + N_DRAWN)
    n_steps = count_steps(
        n_images, n_anchors, n_epochs=N_EPOCHS, min_steps=MIN_STEPS, max_steps=MAX_STEPS
    )
    step_size = max(1, n_steps * HALVED_AFTER // N_EPOCHS)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma=0.5)
    reached, loss = walk(neighbors, WALK_LENGTH), torch.zeros(())
    batches = draw_batches(n_images, n_anchors, n_steps, generator)
    for anchors in tqdm(batches, desc="icon", total=n_steps, unit="step", disable=None):
        batch = _add_neighbors(anchors, neighbors, generator)  # (b,)
        logits = features[batch.to(device)] @ weight.T + bias  # (b, c)
        is_positive = find_positives(batch, reached).to(device)  # (b, b)
        loss = icon_loss(logits.log_softmax(dim=1), is_positive, debiasing=DEBIASING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    logger.info(
        "I-Con in %d clusters: last loss %.4g after %d steps", n_clusters, loss.detach(), n_steps
    )
    return weight.detach(), bias.detach()


def _add_neighbors(anchors: Tensor, neighbors: Tensor, generator: torch.Generator) -> Tensor:
    """Anchors ``(a,)`` and two neighbors of each, every image once and in order: ``(b,)``."""
    n_drawn = min(N_DRAWN, neighbors.shape[1])
    order = torch.rand(len(anchors), neighbors.shape[1], generator=generator).argsort(dim=1)
    drawn = neighbors[anchors].gather(1, order[:, :n_drawn])  # (a, 2)
    return torch.cat([anchors, drawn.flatten()]).unique()
