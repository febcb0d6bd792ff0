"""The losses of the paper, one function an equation; log-probabilities in, a scalar >= 0 out."""

import math

import torch
from torch import Tensor

MAX_SIMILARITY = 1.0 - 1e-6  # keeps log(1 - s) finite where two predictions agree fully


def log_similarity(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """Log of the dot product of two predictions, ``log <y_i, y_j>``, row by row.

    Args:
        log_probs: Shape ``(b, c)``, log-probabilities.
        other_log_probs: Shape ``(b, c)``, log-probabilities.

    Returns:
        Shape ``(b,)``, at most 0 up to rounding.
    """
    return torch.logsumexp(log_probs + other_log_probs, dim=1)  # (b,)


def positive_loss(anchor_log_probs: Tensor, positive_log_probs: Tensor) -> Tensor:
    """Binary cross-entropy of ``<y_i, y_p>`` against 1 (UNIC, Eq. 6, upper line).

    ``L_pos = mean_i -log <y_i, y_p>``, computed in log space so that it stays finite and keeps
    its gradient where the two predictions share no cluster yet.

    Args:
        anchor_log_probs: Shape ``(b, c)``, log-probabilities of the anchors.
        positive_log_probs: Shape ``(b, c)``, row ``i`` belongs to a positive of anchor ``i``.
    """
    return -log_similarity(anchor_log_probs, positive_log_probs).mean()


def negative_loss(anchor_log_probs: Tensor, negative_log_probs: Tensor) -> Tensor:
    """Binary cross-entropy of ``<y_i, y_n>`` against 0 (UNIC, Eq. 6, lower line).

    ``L_neg = mean_i -log(1 - <y_i, y_n>)``, with the dot product clamped to ``1 - 1e-6``.

    Args:
        anchor_log_probs: Shape ``(b, c)``, log-probabilities of the anchors.
        negative_log_probs: Shape ``(b, c)``, row ``i`` belongs to a negative of anchor ``i``.
    """
    similarity = log_similarity(anchor_log_probs, negative_log_probs).exp()  # (b,)
    return -torch.log1p(-similarity.clamp(max=MAX_SIMILARITY)).mean()


def entropy_loss(log_probs: Tensor) -> Tensor:
    """What the mean prediction lacks of maximal entropy (UNIC, Eq. 8): ``log K - H(mean_i y_i)``.

    The paper's Eq. 9 adds ``H`` itself to a minimized sum, which read literally collapses all
    images into one cluster; as SCAN does, the entropy is maximized. The constant ``log K``
    makes the term 0 when the clusters are used evenly and positive otherwise.

    Args:
        log_probs: Shape ``(b, c)``, log-probabilities.
    """
    n_images, n_clusters = log_probs.shape
    # In log space: the gradient of p log p is not finite where p is rounded to 0.
    log_mean_probs = torch.logsumexp(log_probs, dim=0) - math.log(n_images)  # (c,)
    entropy = -(log_mean_probs.exp() * log_mean_probs).sum()
    return math.log(n_clusters) - entropy
