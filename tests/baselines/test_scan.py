import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.baselines.blobs import (
    run,
    three_blobs,
)
from unic.baselines import scan
from unic.baselines.scan import (
    cluster,
    label_by_itself,
    measure_heads,
    scan_loss,
    self_label_loss,
    train_heads,
)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "N_STEPS", 100)


def random_log_probs(n_images: int, n_heads: int, n_clusters: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n_images, n_heads, n_clusters, generator=generator, dtype=torch.float64)
    return (3.0 * logits).log_softmax(dim=2)


def reference_loss(anchors: Tensor, neighbors: Tensor) -> float:
    """Equation 2 of one head, pair by pair and cluster by cluster."""
    n_images, n_clusters = anchors.shape
    p, q = anchors.exp().tolist(), neighbors.exp().tolist()
    total = 0.0
    for i in range(n_images):
        total -= math.log(sum(p[i][c] * q[i][c] for c in range(n_clusters))) / n_images
    for c in range(n_clusters):
        mean = sum(p[i][c] for i in range(n_images)) / n_images
        total += 5.0 * mean * math.log(mean)
    return total


def test_the_loss_of_every_head_equals_plain_loops() -> None:
    anchors, neighbors = random_log_probs(30, 4, 7, 0), random_log_probs(30, 4, 7, 1)
    expected = [reference_loss(anchors[:, head], neighbors[:, head]) for head in range(4)]
    np.testing.assert_allclose(scan_loss(anchors, neighbors), expected, rtol=1e-6)


def test_the_loss_has_a_gradient_where_a_probability_is_rounded_to_zero() -> None:
    logits = torch.tensor([[[0.0, 500.0]], [[0.0, 400.0]]], requires_grad=True)
    loss = scan_loss(logits.log_softmax(dim=2), logits.flip(0).log_softmax(dim=2)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_the_loss_is_least_where_neighbors_agree_and_clusters_are_even() -> None:
    even = torch.eye(4, dtype=torch.float64).repeat(5, 1)[:, None].clamp(min=1e-12).log()
    least = float(scan_loss(even, even))
    assert least == pytest.approx(-5.0 * math.log(4), abs=1e-6)
    for seed in range(5):
        found = random_log_probs(20, 1, 4, seed)
        assert float(scan_loss(found, found)) > least


def test_self_labels_equal_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 8.0 * torch.randn(40, 5, generator=generator, dtype=torch.float64)
    losses = []
    for row in logits.tolist():
        total = sum(math.exp(value) for value in row)
        if math.exp(max(row)) / total > 0.99:
            losses.append(-math.log(math.exp(max(row)) / total))
    assert 5 < len(losses) < 35
    found = self_label_loss(logits)
    assert found is not None
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_nothing_is_learned_of_images_that_are_unsure() -> None:
    assert self_label_loss(torch.zeros(6, 3)) is None
    features, weight, bias = torch.randn(20, 4), torch.zeros(3, 4), torch.zeros(3)
    found = label_by_itself(features, weight, bias, torch.Generator().manual_seed(0))
    assert (found[0] == 0).all()
    assert (found[1] == 0).all()


def test_self_labels_make_sure_images_surer_and_keep_their_clusters() -> None:
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    weight, bias = 3.0 * torch.eye(3, 4), torch.zeros(3)
    before = (features @ weight.T).softmax(dim=1)
    found = label_by_itself(features, weight, bias, torch.Generator().manual_seed(0))
    after = (features @ found[0].T + found[1]).softmax(dim=1)
    is_sure = before.amax(dim=1) > 0.99
    assert (after.argmax(dim=1) == before.argmax(dim=1))[is_sure].all()
    assert after[is_sure].amax(dim=1).mean() > before[is_sure].amax(dim=1).mean()


def test_heads_do_not_hear_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, _ = three_blobs()
    features = torch.from_numpy(inputs.features["train"]) / 10.0
    neighbors = torch.from_numpy(inputs.neighbors[:, 1:])
    monkeypatch.setattr(scan, "_WEIGHT_STD", 0.0)  # all heads start alike and have to stay so
    weights, biases = train_heads(features, neighbors, 3, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(weights, weights[:1].expand_as(weights), atol=1e-5)
    np.testing.assert_allclose(biases, biases[:1].expand_as(biases), atol=1e-5)


def test_heads_are_measured_over_all_images() -> None:
    inputs, _ = three_blobs()
    features, neighbors = torch.from_numpy(inputs.features["train"]), inputs.neighbors[:, 1:2]
    generator = torch.Generator().manual_seed(0)
    weights = 0.1 * torch.randn(2, 3, features.shape[1], generator=generator)
    biases = torch.randn(2, 3, generator=generator)
    losses = measure_heads(features, torch.from_numpy(neighbors), weights, biases, generator)
    for head in range(2):
        logits = features.double() @ weights[head].double().T + biases[head].double()
        log_probs = logits.log_softmax(dim=1)
        expected = reference_loss(log_probs, log_probs[neighbors[:, 0]])
        assert float(losses[head]) == pytest.approx(expected, rel=1e-4)


# Laws


def test_refuses_features_that_are_all_the_same() -> None:
    inputs, _ = three_blobs()
    inputs.features["train"][:] = 1.0
    with pytest.raises(ValueError, match="features must differ to be standardized"):
        run(cluster, inputs)
