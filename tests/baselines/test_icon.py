import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.baselines.blobs import (
    three_blobs,
)
from unic.baselines.icon import _add_neighbors, find_positives, icon_loss, walk


def random_log_probs(n_images: int, n_clusters: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n_images, n_clusters, generator=generator, dtype=torch.float64)
    return (2.0 * logits).log_softmax(dim=1)


def random_positives(n_images: int, share: float) -> Tensor:
    drawn = torch.rand(n_images, n_images, generator=torch.Generator().manual_seed(1))
    return (drawn < share).fill_diagonal_(False)


def reference_loss(log_probs: Tensor, is_positive: Tensor, a: float) -> float:
    """KL of the debiased distributions, image by image."""
    n_images, n_clusters = log_probs.shape
    probs = log_probs.exp().tolist()
    sizes = [sum(probs[k][c] for k in range(n_images)) for c in range(n_clusters)]
    losses = []
    for i in range(n_images):
        n_positives = int(is_positive[i].sum())
        if n_positives == 0:
            continue
        loss = 0.0
        for j in range(n_images):
            q = sum(probs[i][c] * probs[j][c] / sizes[c] for c in range(n_clusters))
            q = (1 - a) * q + a / n_images
            p = (1 - a) * float(is_positive[i, j]) / n_positives + a / n_images
            loss += p * math.log(p / q)
        losses.append(loss)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("share", [0.02, 0.3])  # some images without a positive, and none
def test_the_loss_equals_plain_loops(share: float) -> None:
    log_probs, is_positive = random_log_probs(40, 6), random_positives(40, share)
    assert bool(is_positive.any(dim=1).all()) == (share == 0.3)
    found = icon_loss(log_probs, is_positive, debiasing=0.7)
    assert float(found) == pytest.approx(reference_loss(log_probs, is_positive, 0.7), rel=1e-6)


def test_the_loss_is_zero_where_positives_are_the_clusters() -> None:
    labels = torch.arange(12) % 3
    log_probs = torch.eye(3, dtype=torch.float64)[labels].clamp(min=1e-15).log()
    is_positive = labels[:, None] == labels
    assert float(icon_loss(log_probs, is_positive, debiasing=0.7)) == pytest.approx(0, abs=1e-9)
    merged = torch.eye(3, dtype=torch.float64)[labels.clamp(max=1)].clamp(min=1e-15).log()
    assert float(icon_loss(merged, is_positive, debiasing=0.7)) > 0.01


def test_a_batch_without_positives_costs_nothing() -> None:
    log_probs = random_log_probs(5, 3).requires_grad_()
    loss = icon_loss(log_probs, torch.zeros(5, 5, dtype=torch.bool), debiasing=0.7)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert log_probs.grad is not None
    assert (log_probs.grad == 0).all()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_positives_equal_powers_of_the_graph(length: int) -> None:
    inputs, _ = three_blobs(std=4.0)
    neighbors = torch.from_numpy(inputs.neighbors[:, 1:4])
    steps = np.zeros((240, 240))
    for image, row in enumerate(neighbors.tolist()):
        steps[image, row] = 1 / 3
    power, total = np.eye(240), np.zeros((240, 240))
    for _ in range(length):
        power = power @ steps
        total += power
    np.fill_diagonal(total, 0)
    batch = torch.randperm(240, generator=torch.Generator().manual_seed(0))[:70]
    found = find_positives(batch, walk(neighbors, length))
    assert found.tolist() == (total[batch][:, batch] > 0).tolist()


def test_a_batch_holds_two_neighbors_of_each_anchor_and_no_image_twice() -> None:
    inputs, _ = three_blobs()
    neighbors = torch.from_numpy(inputs.neighbors[:, 1:4])
    anchors = torch.arange(0, 240, 5)
    batch = _add_neighbors(anchors, neighbors, torch.Generator().manual_seed(0))
    assert len(set(batch.tolist())) == len(batch)
    assert set(anchors.tolist()) <= set(batch.tolist())
    assert (find_positives(batch, neighbors)[torch.isin(batch, anchors)].sum(dim=1) >= 2).all()
    single = _add_neighbors(anchors, neighbors[:, :1], torch.Generator().manual_seed(0))
    assert set(single.tolist()) == set(torch.cat([anchors, neighbors[anchors, 0]]).tolist())
