import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.baselines.blobs import (
    is_same_partition,
    three_blobs,
)
from unic.baselines import turtle
from unic.baselines.batches import standardize
from unic.baselines.turtle import (
    TaskEncoder,
    encode,
    fit_classifier,
    train_encoder,
    turtle_loss,
)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turtle, "N_STEPS", 150)


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_loss_equals_plain_loops() -> None:
    classified, encoded = draw(2, 20, 5).log_softmax(2), draw(2, 20, 5, seed=1).log_softmax(2)
    w, tau = classified.tolist(), encoded.exp().tolist()
    expected = 0.0
    for space in range(2):
        for i in range(20):
            for c in range(5):
                expected -= w[space][i][c] * (tau[0][i][c] + tau[1][i][c]) / 2 / 20
        for c in range(5):
            mean = sum(tau[space][i][c] for i in range(20)) / 20
            expected += 10.0 * mean * math.log(mean)
    assert float(turtle_loss(classified, encoded)) == pytest.approx(expected, rel=1e-6)


def test_the_loss_has_a_gradient_where_a_cluster_is_unused() -> None:
    logits = torch.tensor([[[0.0, 500.0], [0.0, 400.0]]], requires_grad=True)
    turtle_loss(torch.zeros(1, 2, 2).log_softmax(2), logits.log_softmax(2)).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_inner_problem_equals_plain_adam() -> None:
    features, labels = draw(15, 4), draw(15, 3, seed=1).softmax(1)
    x, y = features.tolist(), labels.tolist()
    # Rows of weights with the bias as the last column.
    w = [[0.0] * 5 for _ in range(3)]
    m, v = [[0.0] * 5 for _ in range(3)], [[0.0] * 5 for _ in range(3)]
    for step in range(1, 11):
        gradient = [[0.0] * 5 for _ in range(3)]
        for image, target in zip(x, y, strict=True):
            row = [*image, 1.0]
            logits = [sum(a * b for a, b in zip(w[c], row, strict=True)) for c in range(3)]
            total = sum(math.exp(value) for value in logits)
            for c in range(3):
                error = math.exp(logits[c]) / total - target[c]
                for d in range(5):
                    gradient[c][d] += error * row[d] / 15
        for c in range(3):
            for d in range(5):
                m[c][d] = 0.9 * m[c][d] + 0.1 * gradient[c][d]
                v[c][d] = 0.999 * v[c][d] + 0.001 * gradient[c][d] ** 2
                mean, spread = m[c][d] / (1 - 0.9**step), v[c][d] / (1 - 0.999**step)
                w[c][d] -= 1e-3 * mean / (math.sqrt(spread) + 1e-8)
    weight, bias = fit_classifier(features, labels)
    np.testing.assert_allclose(weight, [row[:4] for row in w], atol=1e-8)
    np.testing.assert_allclose(bias, [row[4] for row in w], atol=1e-8)


def test_the_encoder_has_weights_of_the_learned_length() -> None:
    directions, lengths, bias, rows = draw(3, 4), draw(3, seed=1), draw(3, seed=2), draw(6, 4)
    found = encode(TaskEncoder([directions], [lengths], [bias]), [rows])
    for i in range(6):
        logits = []
        for c in range(3):
            norm = math.sqrt(sum(value**2 for value in directions[c].tolist()))
            dot = sum(a * b for a, b in zip(rows[i].tolist(), directions[c].tolist(), strict=True))
            logits.append(float(lengths[c]) * dot / norm + float(bias[c]))
        total = sum(math.exp(value) for value in logits)
        expected = [value - math.log(total) for value in logits]
        np.testing.assert_allclose(found[0, i], expected, rtol=1e-6)


def test_several_spaces_find_the_blobs_together() -> None:
    inputs, truth = three_blobs()
    train = standardize(inputs.features, device="cpu")["train"]
    spaces = [train, train @ draw(12, 8).float()]  # of their own numbers of dims
    encoder = train_encoder(spaces, 3, torch.Generator().manual_seed(0))
    log_probs = encode(encoder, spaces)
    assert log_probs.shape == (2, 240, 3)
    found = log_probs.exp().mean(dim=0).argmax(dim=1).numpy()
    assert is_same_partition(found, truth["train"])
