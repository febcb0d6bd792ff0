"""TURTLE: labels that a linear classifier learns quickly and well, in one space or several."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

from unic.baselines.assignment import assign_by_probs
from unic.baselines.batches import draw_batches, standardize
from unic.baselines.checks import check_inputs
from unic.baselines.methods import Found, MethodInputs

logger = logging.getLogger(__name__)

# Gadetsky et al., 2024.
ENTROPY_WEIGHT = 10.0  # gamma
N_INNER_STEPS = 10  # M
LEARNING_RATE = 1e-3  # of both problems

BATCH_SIZE = 1000  # theirs is 10,000
N_STEPS = 1000  # theirs is 6000


class TaskEncoder(NamedTuple):
    """A linear layer for each of ``r`` spaces, its weights of a length a cluster that is learned.

    ``tau(x) = mean_r softmax(W_r phi_r(x) + b_r)`` with row ``c`` of ``W_r`` being
    ``g_rc v_rc / |v_rc|`` (weight norm).
    """

    directions: list[Tensor]  # v: (c, d) of each space
    lengths: list[Tensor]  # g: (c,) of each space
    biases: list[Tensor]  # b: (c,) of each space


def cluster(
    inputs: MethodInputs,
    *,
    n_clusters: int,
    generator: torch.Generator,
    device: str | torch.device,
) -> Found:
    """Search for the labeling that linear classifiers, trained anew at each step, fit best.

    All splits are predicted by the task encoder. Neighbors and known labels are not used. What
    departs from the paper (Gadetsky et al., 2024):

    - One space, that of the features, centered and divided by one number (what was done to
      theirs is unchecked).
    - 1000 steps and not 6000, of batches of 1000 images and not 10,000: 20,000 images of 1280
      dims in 10 clusters take about a minute of one core.
    - Inner classifiers start at 0: the problem is convex, and a start at random is but noise
      (theirs is unchecked).
    - One learning rate, the default; the choice among several, and between cold and warm start,
      by the cross-validated accuracy of a linear classifier is left out.

    Args:
        inputs: Features of all splits.
        n_clusters: K.
        generator: Source of initial weights and batches.
        device: Where the encoder is trained.

    Returns:
        Clusters of all splits; confidence is the probability.

    Raises:
        ValueError: If the inputs do not fit together, see :func:`check_inputs`, or all training
            features are the same.
    """
    check_inputs(inputs, n_clusters)
    splits = standardize(inputs.features, device=device)
    encoder = train_encoder([splits["train"]], n_clusters, generator)
    return assign_by_probs(splits, lambda rows: encode(encoder, [rows]).exp().mean(dim=0))


def encode(encoder: TaskEncoder, spaces: Sequence[Tensor]) -> Tensor:
    """Log-probabilities ``(r, b, c)`` of images by each space, features ``(b, d)`` of each."""
    logits = [
        rows @ (normalize(direction, dim=1) * length[:, None]).T + bias
        for rows, direction, length, bias in zip(spaces, *encoder, strict=True)
    ]  # (b, c) each
    return torch.stack(logits).log_softmax(dim=2)


def turtle_loss(classified: Tensor, log_probs: Tensor) -> Tensor:
    """The outer objective (Gadetsky et al., 2024): the classifiers' loss less gamma entropies.

    ``L = sum_r mean_x CE(w_r phi_r(x), tau(x)) - gamma sum_r H(mean_x tau_r(x))``, where
    ``tau = mean_r tau_r`` and the classifiers ``w_r`` are constants.

    Args:
        classified: Shape ``(r, b, c)``, log-probabilities of the classifiers, without gradient.
        log_probs: Shape ``(r, b, c)``, log-probabilities of the task encoder.
    """
    labels = log_probs.exp().mean(dim=0)  # (b, c)
    errors = -(labels * classified).sum(dim=2).mean(dim=1).sum()
    means = log_probs.exp().mean(dim=1)  # (r, c)
    entropies = -torch.xlogy(means, means.clamp(min=torch.finfo(means.dtype).tiny)).sum()
    return errors - ENTROPY_WEIGHT * entropies


def fit_classifier(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The inner problem: 10 steps of Adam from 0 on the cross-entropy against soft labels.

    Args:
        features: Shape ``(b, d)``.
        labels: Shape ``(b, c)``, probabilities, without gradient.

    Returns:
        Weight ``(c, d)`` and bias ``(c,)``.
    """
    weight = torch.zeros(labels.shape[1], features.shape[1]).to(features)
    bias = torch.zeros(labels.shape[1]).to(features)
    optimizer = torch.optim.Adam([weight, bias], lr=LEARNING_RATE)
    for _ in range(N_INNER_STEPS):
        # The gradient of the cross-entropy with respect to the logits.
        errors = ((features @ weight.T + bias).softmax(dim=1) - labels) / len(labels)  # (b, c)
        weight.grad, bias.grad = errors.T @ features, errors.sum(dim=0)
        optimizer.step()
    return weight, bias


def train_encoder(
    spaces: Sequence[Tensor], n_clusters: int, generator: torch.Generator
) -> TaskEncoder:
    """The outer problem: Adam on :func:`turtle_loss`, the classifiers fitted to each batch anew.

    The gradient is of first order: it goes through the labels alone.

    Args:
        spaces: Features ``(n, d)`` of the same images in each space, d of each its own.
        n_clusters: K.
        generator: Source of initial weights and batches.
    """
    n_images, device = len(spaces[0]), spaces[0].device
    encoder = _draw_encoder(spaces, n_clusters, generator)
    optimizer = torch.optim.Adam([each for part in encoder for each in part], lr=LEARNING_RATE)
    batches, loss = draw_batches(n_images, BATCH_SIZE, N_STEPS, generator), torch.zeros(())
    for batch in tqdm(batches, desc="turtle", total=N_STEPS, unit="step", disable=None):
        shown = [features[batch.to(device)] for features in spaces]  # (b, d) each
        log_probs = encode(encoder, shown)  # (r, b, c)
        with torch.no_grad():
            classified = _classify(shown, log_probs.exp().mean(dim=0))  # (r, b, c)
        loss = turtle_loss(classified, log_probs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logger.info(
        "TURTLE in %d clusters: last loss %.4g after %d steps", n_clusters, loss.detach(), N_STEPS
    )
    return TaskEncoder(*([each.detach() for each in part] for part in encoder))


def _classify(spaces: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Log-probabilities ``(r, b, c)`` of new classifiers, each fitted in its space."""
    logits = []
    for features in spaces:
        weight, bias = fit_classifier(features, labels)
        logits.append(features @ weight.T + bias)  # (b, c)
    return torch.stack(logits).log_softmax(dim=2)


def _draw_encoder(
    spaces: Sequence[Tensor], n_clusters: int, generator: torch.Generator
) -> TaskEncoder:
    """Weights and biases uniform within ``1 / sqrt(d)``, lengths those of the weights."""
    encoder = TaskEncoder([], [], [])
    for features in spaces:
        bound = features.shape[1] ** -0.5
        weight = bound * (2.0 * torch.rand(n_clusters, features.shape[1], generator=generator) - 1)
        bias = bound * (2.0 * torch.rand(n_clusters, generator=generator) - 1)
        parts = (weight, weight.norm(dim=1), bias)
        for part, values in zip(encoder, parts, strict=True):
            part.append(values.to(features.device).requires_grad_())
    return encoder
