import math

import numpy as np
import torch
from torch import Tensor

from unic.baselines.temi import (
    Heads,
    _both_directions,
    _draw_heads,
    _follow,
    apply_heads,
    reduce,
    temi_loss,
    weigh_pairs,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_log_probs(seed: int) -> Tensor:
    """Of 3 heads, 12 images and 5 clusters."""
    return draw(3, 12, 5, seed=seed).log_softmax(dim=2)


def reference_weights(teacher: Tensor, others: Tensor) -> list[float]:
    q, r = teacher.exp().tolist(), others.exp().tolist()
    n_heads, n_images, n_clusters = teacher.shape
    return [
        sum(q[h][i][c] * r[h][i][c] for h in range(n_heads) for c in range(n_clusters)) / n_heads
        for i in range(n_images)
    ]


def reference_loss(
    student: Tensor, others: Tensor, weights: list[float], priors: Tensor
) -> list[float]:
    s, q = student.exp().tolist(), others.exp().tolist()
    n_heads, n_images, n_clusters = student.shape
    losses = []
    for h in range(n_heads):
        total = 0.0
        for i in range(n_images):
            shared = sum(
                (s[h][i][c] * q[h][i][c]) ** 0.6 / float(priors[h, c]) for c in range(n_clusters)
            )
            total -= weights[i] * math.log(shared) / n_images
        losses.append(total)
    return losses


def test_weights_and_loss_equal_plain_loops() -> None:
    student, teacher, others = (random_log_probs(seed) for seed in range(3))
    priors = draw(3, 5, seed=3).softmax(dim=1)
    weights = weigh_pairs(teacher, others)
    expected = reference_weights(teacher, others)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    found = temi_loss(student, others, weights, priors)
    np.testing.assert_allclose(found, reference_loss(student, others, expected, priors), rtol=1e-6)


def test_each_image_of_a_pair_follows_the_teacher_of_the_other() -> None:
    student, teacher = random_log_probs(0), random_log_probs(1)
    priors = draw(3, 5, seed=3).softmax(dim=1)
    weights = reference_weights(teacher[:, :6], teacher[:, 6:])
    forth = reference_loss(student[:, :6], teacher[:, 6:], weights, priors)
    back = reference_loss(student[:, 6:], teacher[:, :6], weights, priors)
    expected = [(a + b) / 2 for a, b in zip(forth, back, strict=True)]
    np.testing.assert_allclose(_both_directions(student, teacher, priors), expected, rtol=1e-6)


def test_even_clusters_cost_less_than_one_cluster() -> None:
    def loss(labels: list[int]) -> float:
        probs = torch.eye(4, dtype=torch.float64)[labels][None].clamp(min=1e-9)
        log_probs = (probs / probs.sum(dim=2, keepdim=True)).log()
        priors = log_probs.exp().mean(dim=1)
        return float(temi_loss(log_probs, log_probs, torch.ones(8), priors))

    assert loss([0, 0, 1, 1, 2, 2, 3, 3]) < loss([0] * 4 + [1] * 4) < loss([0] * 8)


def test_the_loss_is_finite_where_a_prior_is_zero() -> None:
    student = torch.tensor([[[0.0, -300.0]]], requires_grad=True)
    loss = temi_loss(student, student.detach(), torch.ones(1), torch.tensor([[1.0, 0.0]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_heads_equal_plain_loops() -> None:
    shapes = [(2, 4, 6), (2, 1, 6), (2, 6, 3), (2, 1, 3), (2, 3, 5), (2, 1, 5)]
    heads = Heads(*(draw(*shape, seed=seed) for seed, shape in enumerate(shapes)))
    features = draw(7, 4, seed=9)
    found = apply_heads(heads, features)
    for h in range(2):
        for i, row in enumerate(features.tolist()):
            hidden = []
            for u in range(6):
                value = sum(row[d] * float(heads.hidden[h, d, u]) for d in range(4))
                value += float(heads.hidden_bias[h, 0, u])
                hidden.append(value * 0.5 * (1 + math.erf(value / math.sqrt(2))))
            point = [
                sum(hidden[u] * float(heads.bottleneck[h, u, e]) for u in range(6))
                + float(heads.bottleneck_bias[h, 0, e])
                for e in range(3)
            ]
            length = math.sqrt(sum(value**2 for value in point))
            logits = []
            for c in range(5):
                column = heads.directions[h, :, c].tolist()
                norm = math.sqrt(sum(value**2 for value in column))
                dot = sum(a * b for a, b in zip(point, column, strict=True)) / length / norm
                logits.append(dot * float(heads.lengths[h, 0, c]) / 0.1)
            total = math.log(sum(math.exp(value) for value in logits))
            np.testing.assert_allclose(found[h, i], [v - total for v in logits], rtol=1e-6)


def test_the_teacher_moves_by_a_fiftieth() -> None:
    teacher = _draw_heads(4, 3, torch.Generator().manual_seed(0), torch.device("cpu"))
    student = _draw_heads(4, 3, torch.Generator().manual_seed(1), torch.device("cpu"))
    expected = [0.98 * slow + 0.02 * fast for slow, fast in zip(teacher, student, strict=True)]
    _follow(teacher, student)
    for found, wanted in zip(teacher, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_turning_keeps_distances_and_cutting_the_widest_directions() -> None:
    rows = draw(50, 6).float()
    rows = rows - rows.mean(dim=0)
    turned = reduce({"train": rows, "test": rows[:9] + 1})
    assert torch.cdist(turned["test"], turned["train"]).allclose(
        torch.cdist(rows[:9] + 1, rows), atol=1e-4
    )
    spreads = turned["train"].square().sum(dim=0)
    assert (spreads.diff() <= 0).all()
