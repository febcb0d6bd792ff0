"""The losses of the paper and of SimGCD, one function an equation; each gives a scalar >= 0.

Those of Eqs. 6 and 8 take several heads at once: predictions ``(b, h, c)`` give losses ``(h,)``.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

MAX_SIMILARITY = 1.0 - 1e-6  # keeps log(1 - s) finite where two predictions agree fully


def log_similarity(log_probs: Tensor, other_log_probs: Tensor) -> Tensor:
    """Log of the dot product of two predictions, ``log <y_i, y_j>``, row by row.

    Args:
        log_probs: Shape ``(b, c)`` or ``(b, h, c)``, log-probabilities.
        other_log_probs: Of the same shape, log-probabilities.

    Returns:
        Shape ``(b,)`` or ``(b, h)``, at most 0 up to rounding.
    """
    return torch.logsumexp(log_probs + other_log_probs, dim=-1)  # (b,) or (b, h)


def positive_loss(anchor_log_probs: Tensor, positive_log_probs: Tensor) -> Tensor:
    """Binary cross-entropy of ``<y_i, y_p>`` against 1 (UNIC, Eq. 6, upper line).

    ``L_pos = mean_i -log <y_i, y_p>``, computed in log space so that it stays finite and keeps
    its gradient where the two predictions share no cluster yet.

    Args:
        anchor_log_probs: Shape ``(b, c)`` or ``(b, h, c)``, log-probabilities of the anchors.
        positive_log_probs: Of the same shape, row ``i`` belongs to a positive of anchor ``i``.

    Example:
        >>> sure, unsure = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()
        >>> round(positive_loss(sure, sure).item(), 3), round(positive_loss(sure, unsure).item(), 3)
        (0.198, 0.693)
    """
    return -log_similarity(anchor_log_probs, positive_log_probs).mean(0)


def negative_loss(anchor_log_probs: Tensor, negative_log_probs: Tensor) -> Tensor:
    """Binary cross-entropy of ``<y_i, y_n>`` against 0 (UNIC, Eq. 6, lower line).

    ``L_neg = mean_i -log(1 - <y_i, y_n>)``, with the dot product clamped to ``1 - 1e-6``.

    Args:
        anchor_log_probs: Shape ``(b, c)`` or ``(b, h, c)``, log-probabilities of the anchors.
        negative_log_probs: Of the same shape, row ``i`` belongs to a negative of anchor ``i``.

    Example:
        >>> one, other = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.1, 0.9]]).log()
        >>> round(negative_loss(one, other).item(), 3), round(negative_loss(one, one).item(), 3)
        (0.198, 1.715)
    """
    similarity = log_similarity(anchor_log_probs, negative_log_probs).exp()  # (b,) or (b, h)
    return -torch.log1p(-similarity.clamp(max=MAX_SIMILARITY)).mean(0)


def batch_negative_loss(log_probs: Tensor, is_far: Tensor) -> Tensor:
    """Binary cross-entropy of ``<y_i, y_j>`` against 0 over the far pairs of a batch (UNIC, Eq. 6).

    ``L_neg = mean_i mean_{j far from i} -log(1 - <y_i, y_j>)``, the inner mean being that of
    Eq. 7 over the far set. An anchor without a far image in the batch does not count.

    Args:
        log_probs: Shape ``(b, c)`` or ``(b, h, c)``, log-probabilities of the anchors.
        is_far: Shape ``(b, b)``, bool, whether image ``j`` is a negative of anchor ``i``.

    Example:
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> round(batch_negative_loss(log_probs, ~torch.eye(2, dtype=torch.bool)).item(), 3)
        0.198
    """
    n_far = is_far.sum(1, keepdim=True)  # (b, 1)
    n_counted = (n_far > 0).sum().clamp(min=1)
    weights = is_far.to(log_probs.dtype) / (n_far.clamp(min=1) * n_counted)  # (b, b)
    probs = log_probs.exp().movedim(0, -2)  # (b, c) or (h, b, c)
    loss: Tensor = _WeightedNegatives.apply(probs, weights)
    return loss


def entropy_loss(log_probs: Tensor, past: Tensor | None = None, *, momentum: float = 0.0) -> Tensor:
    """What the mean prediction lacks of maximal entropy (UNIC, Eq. 8): ``log K - H(mean_i y_i)``.

    The paper's Eq. 9 adds ``H`` itself to a minimized sum, which read literally collapses all
    images into one cluster; as SCAN does, the entropy is maximized. The constant ``log K``
    makes the term 0 when the clusters are used evenly and positive otherwise.

    With a mean ``r`` of past batches the entropy is that of ``(1 - momentum) mean_i y_i +
    momentum r``, less noisy where a batch is small beside K. Its gradient with respect to
    ``mean_i y_i`` is taken there and not scaled by ``1 - momentum``, so the term keeps its weight.

    Args:
        log_probs: Shape ``(b, c)`` or ``(b, h, c)``, log-probabilities.
        past: Shape ``(c,)`` or ``(h, c)``, mean prediction of past batches, without gradient.
        momentum: Share of ``past``, in [0, 1).

    Example:
        >>> evenly = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> bool(entropy_loss(evenly).abs() < 1e-6)
        True
        >>> collapsed = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).log()
        >>> round(entropy_loss(collapsed).item(), 3)
        0.368
    """
    n_images, n_clusters = len(log_probs), log_probs.shape[-1]
    # In log space: the gradient of p log p is not finite where p is rounded to 0.
    log_mean_probs = torch.logsumexp(log_probs, dim=0) - math.log(n_images)  # (c,) or (h, c)
    mean_probs = log_mean_probs.exp()
    if past is not None:
        mean_probs = mean_probs + momentum * (past - mean_probs).detach()
        log_mean_probs = mean_probs.clamp(min=torch.finfo(mean_probs.dtype).tiny).log()
    entropy = -(mean_probs * log_mean_probs).sum(-1)
    return math.log(n_clusters) - entropy


def contrastive_loss(features: Tensor, *, temperature: float) -> Tensor:
    """NT-Xent (Chen et al., 2020, Eq. 1): tell the other views of an image from all other views.

    :func:`supervised_contrastive_loss` where each image is a class of its own.

    Args:
        features: Shape ``(b, v, d)``, ``v`` views of each image, of unit length.
        temperature: Above 0.

    Example:
        >>> features = torch.eye(2)[:, None].expand(2, 2, 2)  # both views of an image agree
        >>> round(contrastive_loss(features, temperature=1.0).item(), 3)
        0.551
    """
    own = torch.arange(len(features), device=features.device)  # (b,)
    return supervised_contrastive_loss(features, own, temperature=temperature)


def supervised_contrastive_loss(features: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Tell the views of a class from all other views (Khosla et al., 2020, Eq. 2).

    With ``s_ij = <z_i, z_j> / temperature`` of views ``i`` and ``j``, and ``P(i)`` the views other
    than ``i`` that share its label, ``L = mean_i mean_{p in P(i)} -log exp(s_ip) /
    sum_{a != i} exp(s_ia)``. A view without another of its label does not count; without any
    pair, so in an empty batch, the loss is 0.

    Args:
        features: Shape ``(b, v, d)``, ``v`` views of each image, of unit length.
        labels: Shape ``(b,)``, integers.
        temperature: Above 0.

    Example:
        >>> features = torch.eye(2)[:, None].expand(2, 2, 2)  # two images, at right angles
        >>> labels = torch.tensor([0, 0])
        >>> round(supervised_contrastive_loss(features, labels, temperature=1.0).item(), 3)
        1.218
    """
    n_images, n_views = features.shape[:2]
    views = features.flatten(0, 1)  # (b v, d)
    labels = labels.repeat_interleave(n_views)  # (b v,)
    is_self = torch.eye(n_images * n_views, dtype=torch.bool, device=features.device)
    is_positive = (labels[:, None] == labels) & ~is_self  # (b v, b v)
    similarity = views @ views.T / temperature  # (b v, b v)
    log_sums = torch.logsumexp(similarity.masked_fill(is_self, -torch.inf), dim=1)  # (b v,)
    n_positives = is_positive.sum(1)  # (b v,)
    means = (similarity * is_positive).sum(1) / n_positives.clamp(min=1)  # (b v,)
    has_positive = n_positives > 0
    # Not a product with the mask: of a view that is alone, the sum is empty and its log infinite.
    losses = torch.where(has_positive, log_sums - means, 0.0)  # (b v,)
    return losses.sum() / has_positive.sum().clamp(min=1)


def self_distillation_loss(
    logits: Tensor, *, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy of each view against the sharper prediction of the other (SimGCD).

    ``L = 1/2 sum_{v != w} mean_i -sum_c q_iw(c) log p_iv(c)`` with ``p = softmax(logits /
    student_temperature)`` and ``q = softmax(logits / teacher_temperature)``, through which no
    gradient goes (Wen et al., 2023; the teacher is the same network).

    Args:
        logits: Shape ``(b, 2, c)``, two views of each image.
        student_temperature: Above 0.
        teacher_temperature: Above 0, below the student's to sharpen.

    Example:
        >>> agree = torch.tensor([[[2.0, 0.0], [2.0, 0.0]]])  # one image, two views, two clusters
        >>> loss = self_distillation_loss(agree, student_temperature=1.0, teacher_temperature=0.5)
        >>> round(loss.item(), 3)
        0.163
    """
    targets = torch.softmax(logits.detach().flip(1) / teacher_temperature, dim=2)  # (b, 2, c)
    students = (logits / student_temperature).flatten(0, 1)  # (2 b, c)
    return cross_entropy(students, targets.flatten(0, 1))


class _WeightedNegatives(torch.autograd.Function):
    """``-sum_ij w_ij log(1 - <y_i, y_j>)`` of predictions ``(..., b, c)``, weights ``(b, b)``.

    Autograd would go over the pairs twenty times, which takes as long as the products. Head by
    head, pairs stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, probs: Tensor, weights: Tensor) -> Tensor:
        """Loss ``(...)``."""
        by_head = probs.reshape(-1, *probs.shape[-2:])  # (h, b, c)
        slopes = probs.new_empty(len(by_head), *weights.shape)  # (h, b, b), of each pair's loss
        pairs = torch.empty_like(weights)
        losses = []
        for own, slope in zip(by_head, slopes, strict=True):
            torch.mm(own, own.T, out=pairs)
            is_clamped = pairs > MAX_SIMILARITY
            pairs.clamp_(max=MAX_SIMILARITY)
            torch.sub(1, pairs, out=slope)
            torch.div(weights, slope, out=slope).masked_fill_(is_clamped, 0.0)
            losses.append(-pairs.neg_().log1p_().mul_(weights).sum())
        ctx.save_for_backward(by_head, slopes)
        ctx.shape = probs.shape
        return torch.stack(losses).view(probs.shape[:-2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Gradients of the predictions."""
        by_head, slopes = ctx.saved_tensors
        # Not as products of batches, which take several times as long for few clusters.
        found = [slope @ own + slope.T @ own for own, slope in zip(by_head, slopes, strict=True)]
        return torch.stack(found).mul_(grads[0].reshape(-1, 1, 1)).view(ctx.shape), None
