import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from unic.neighbors.label_groups import LabelGroups
from unic.recipe.heads import (
    LENGTH,
    SCALE,
    Heads,
    Training,
    _draw_batch,
    draw_heads,
    loss_slope,
    measure_fit,
    start_heads,
    train_heads,
)


def unit_points(n_images: int = 40, n_dims: int = 5) -> NDArray[np.float64]:
    points = np.random.default_rng(0).normal(size=(n_images, n_dims))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def random_logits(n_images: int = 20, n_heads: int = 3, n_clusters: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = n_images, n_heads, n_clusters
    return 2.0 * torch.randn(shape, generator=generator, dtype=torch.float64)


def random_heads(n_heads: int = 3, n_clusters: int = 4, n_dims: int = 5) -> Heads:
    generator = torch.Generator().manual_seed(1)
    shape = n_heads, n_clusters, n_dims
    weights = 3.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return Heads(weights, torch.randn(shape[:2], generator=generator, dtype=torch.float64))


def random_priors(n_heads: int = 3, n_clusters: int = 4) -> NDArray[np.float64]:
    return np.random.default_rng(2).dirichlet(np.full(n_clusters, 3.0), size=n_heads)


def one_neighbor(n_images: int = 40) -> NDArray[np.int64]:
    """Of one neighbor none is drawn, so that training has nothing random."""
    return np.random.default_rng(3).integers(n_images, size=(n_images, 1))


def some_labels(n_images: int, share: float) -> NDArray[np.int64]:
    rng = np.random.default_rng(4)
    return np.where(rng.random(n_images) < share, rng.integers(4, size=n_images), -1)


def reference_loss(
    logits: Tensor, partners: Tensor, log_priors: Tensor, labels: Tensor, settings: Training
) -> Tensor:
    """As written, head by head and anchor by anchor."""
    n_anchors = len(partners)
    total = torch.zeros((), dtype=logits.dtype)
    for head in range(logits.shape[1]):
        probs = logits[:, head].softmax(1)
        for anchor, partner in enumerate(partners.tolist()):
            total = total - (probs[anchor] @ probs[partner]).log() / n_anchors
        mean = probs[:n_anchors].mean(0)
        divergence = (mean * (mean.log() - log_priors[head])).sum()
        total = total + settings.balance * divergence
        labeled = [anchor for anchor in range(n_anchors) if labels[anchor] >= 0]
        for anchor in labeled:
            entropy = -probs[anchor, labels[anchor]].log()
            total = total + settings.supervised * entropy / len(labeled)
    return total


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("n_anchors", [20, 12])
@pytest.mark.parametrize("settings", [Training(), Training(balance=0.5, supervised=2.5)])
def test_slope_equals_that_of_the_written_loss(
    share: float, n_anchors: int, settings: Training
) -> None:
    logits = random_logits().requires_grad_()
    partners = torch.from_numpy(np.random.default_rng(0).integers(20, size=n_anchors))
    assert len(set(partners.tolist())) < n_anchors  # some are of several anchors
    log_priors = torch.from_numpy(random_priors()).log()
    labels = torch.from_numpy(some_labels(20, share))
    found = loss_slope(logits.detach().softmax(2), partners, log_priors, labels, settings=settings)
    reference_loss(logits, partners, log_priors, labels, settings).backward()
    np.testing.assert_allclose(found, logits.grad, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_training_equals_the_plain_loop_of_an_optimizer(share: float) -> None:
    heads, points, neighbors = random_heads(), unit_points(), one_neighbor()
    labels, settings = some_labels(40, share), Training(n_steps=6, learning_rate=0.1)
    found = train_heads(
        heads,
        points,
        neighbors,
        priors=random_priors(),
        known_labels=labels,
        settings=settings,
        generator=torch.Generator(),
    )
    weights, biases = (each.clone().requires_grad_() for each in heads)
    optimizer = torch.optim.Adam([weights, biases])
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.05 * (1.0 + np.cos(np.pi * step / 6))
        optimizer.zero_grad()
        reference_loss(
            torch.einsum("nr,hcr->nhc", torch.from_numpy(points), weights) + biases,
            torch.from_numpy(neighbors[:, 0]),
            torch.from_numpy(random_priors()).log(),
            torch.from_numpy(labels),
            settings,
        ).backward()
        optimizer.step()
    np.testing.assert_allclose(found.weights, weights.detach(), atol=1e-6)
    np.testing.assert_allclose(found.biases, biases.detach(), atol=1e-6)


def test_predictions_equal_plain_loops() -> None:
    heads, points = random_heads(), unit_points()
    expected = np.zeros((40, 3, 4))
    for image, head in np.ndindex(40, 3):
        logits = [
            float(heads.weights[head, c].numpy() @ points[image] + heads.biases[head, c].item())
            for c in range(4)
        ]
        expected[image, head] = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(heads.predict(points), expected, atol=1e-12)


def test_softer_heads_are_less_sure_of_the_same_clusters() -> None:
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    heads = start_heads(points, np.arange(100).reshape(2, 50) % 3, 3)
    sure, soft = heads.predict(points), heads.soften(0.25).predict(points)
    assert soft.argmax(2).equal(sure.argmax(2))
    assert (soft.amax(2) < sure.amax(2)).all()


def test_heads_start_from_the_directions_of_means() -> None:
    points = unit_points().astype(np.float32)
    partitions = np.random.default_rng(0).integers(3, size=(2, 40))  # the fourth one is empty
    heads = start_heads(points, partitions, 4)
    for head, cluster in np.ndindex(2, 3):
        rows = points[partitions[head] == cluster].astype(np.float64)
        mean = rows.mean(axis=0)
        expected = SCALE * mean / np.sqrt((mean**2).sum())
        np.testing.assert_allclose(heads.weights[head, cluster], expected, atol=1e-4)
    assert not heads.weights[:, 3].any()
    assert not heads.biases.any()


@pytest.mark.parametrize("n_ranks", [1, 3, 9])
def test_fit_equals_plain_loops(n_ranks: int) -> None:
    probs = random_logits().softmax(2)
    neighbors = np.random.default_rng(0).integers(20, size=(20, 5))
    found = measure_fit(probs, neighbors, n_ranks=n_ranks)
    for head in range(3):
        pairs = [(i, j) for i in range(20) for j in neighbors[i, :n_ranks]]
        agreed = [-np.log(float(probs[i, head] @ probs[j, head])) for i, j in pairs]
        mean = probs[:, head].numpy().mean(axis=0)
        assert found.disagreement[head] == pytest.approx(sum(agreed) / len(pairs), rel=1e-12)
        expected = np.log(4) + sum(share * np.log(share) for share in mean)
        assert found.imbalance[head] == pytest.approx(expected, rel=1e-9)


# Laws


def train(
    heads: Heads, priors: NDArray[np.float64], labels: NDArray[np.int64], **settings: float
) -> Heads:
    return train_heads(
        heads,
        unit_points(),
        np.random.default_rng(3).integers(40, size=(40, 4)),
        priors=priors,
        known_labels=labels,
        settings=Training(**settings),  # type: ignore[arg-type]
        generator=torch.Generator().manual_seed(0),
    )


UNKNOWN = np.full(40, -1, dtype=np.int64)


@pytest.mark.parametrize("batch_size", [4096, 16])
def test_a_head_is_trained_as_if_it_were_alone(batch_size: int) -> None:
    heads, priors = random_heads(), random_priors()
    together = train(heads, priors, UNKNOWN, batch_size=batch_size)
    for head in range(3):
        own = heads.select(np.array([head]))
        alone = train(own, priors[head : head + 1], UNKNOWN, batch_size=batch_size)
        np.testing.assert_allclose(together.weights[head], alone.weights[0], atol=1e-6)
        np.testing.assert_allclose(together.biases[head], alone.biases[0], atol=1e-6)


def test_names_of_clusters_do_not_matter() -> None:
    heads, priors, order = random_heads(), random_priors(), np.array([2, 0, 3, 1])
    renamed = Heads(heads.weights[:, order], heads.biases[:, order])
    found, expected = train(renamed, priors[:, order], UNKNOWN), train(heads, priors, UNKNOWN)
    np.testing.assert_allclose(found.weights, expected.weights[:, order], atol=1e-6)
    np.testing.assert_allclose(found.biases, expected.biases[:, order], atol=1e-6)


@pytest.mark.parametrize("batch_size", [4096, 16])
def test_the_same_seed_gives_the_same_bytes_and_heads_are_left_alone(batch_size: int) -> None:
    heads = random_heads()
    before = [each.clone() for each in heads]
    first = train(heads, random_priors(), UNKNOWN, batch_size=batch_size)
    torch.manual_seed(7)
    second = train(heads, random_priors(), UNKNOWN, batch_size=batch_size)
    assert first.weights.equal(second.weights)
    assert first.biases.equal(second.biases)
    assert not first.weights.equal(heads.weights)
    assert all(left.equal(right) for left, right in zip(before, heads, strict=True))


def test_training_makes_neighbors_agree() -> None:
    heads, neighbors = random_heads(), np.random.default_rng(3).integers(40, size=(40, 4))
    trained = train(heads, random_priors(), UNKNOWN, learning_rate=0.1)
    before = measure_fit(heads.predict(unit_points()), neighbors).disagreement
    after = measure_fit(trained.predict(unit_points()), neighbors).disagreement
    assert (after < before).all()


def test_sizes_follow_the_prior() -> None:
    priors = np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.2, 0.6]])
    trained = train(random_heads(), priors, UNKNOWN, balance=1000.0, n_steps=300, learning_rate=0.1)
    np.testing.assert_allclose(trained.predict(unit_points()).mean(0), priors, atol=0.02)


@pytest.mark.parametrize(("supervised", "pairs_labels"), [(50.0, False), (1.0, True)])
def test_known_labels_are_learned(supervised: float, pairs_labels: bool) -> None:
    labels = unit_points()[:, :4].argmax(axis=1)
    labels[::3] = -1
    settings = {"supervised": supervised, "pairs_labels": pairs_labels}
    trained = train(
        random_heads(), np.full((3, 4), 0.25), labels, n_steps=300, learning_rate=0.1, **settings
    )
    found = trained.predict(unit_points()).argmax(2).numpy()[labels >= 0]
    assert (found == labels[labels >= 0, None]).mean() > 0.95


def test_the_slope_of_an_image_sums_to_zero_and_stays_finite() -> None:
    logits = 1e4 * random_logits().float()  # neighbors share no probability at all
    partners = torch.arange(20).roll(1)
    log_priors = torch.from_numpy(random_priors()).float().log()
    labels = torch.from_numpy(some_labels(20, 0.5))
    found = loss_slope(logits.softmax(2), partners, log_priors, labels, settings=Training())
    assert found.isfinite().all()
    np.testing.assert_allclose(found.sum(2), 0.0, atol=1e-5)


@pytest.mark.parametrize("n_images", [6, 20])
def test_labeled_anchors_are_paired_with_any_image_of_their_label(n_images: int) -> None:
    others = torch.from_numpy(np.random.default_rng(0).integers(n_images, size=(n_images, 3)))
    known = np.where(np.arange(n_images) < 5, np.arange(n_images) % 2, -1)  # 0, 2, 4 and 1, 3
    groups, seen = LabelGroups(known), set()
    for seed in range(60):
        batch = _draw_batch(others, groups, 6, torch.Generator().manual_seed(seed))
        anchors = batch.images[: len(batch.partners)].numpy()
        partners = batch.images[batch.partners].numpy()
        labeled = known[anchors] >= 0
        assert (known[anchors] == known[partners])[labeled].all()
        is_neighbor = (others.numpy()[anchors] == partners[:, None]).any(1)
        assert is_neighbor[~labeled].all()
        seen |= set(zip(anchors[labeled].tolist(), partners[labeled].tolist(), strict=True))
    assert len(seen) == 3 * 3 + 2 * 2


def test_random_heads_differ_and_are_unsure() -> None:
    points = (LENGTH * unit_points()).astype(np.float32)
    heads = draw_heads(5, 4, points.shape[1], generator=torch.Generator().manual_seed(0))
    probs = heads.predict(points)  # (n, h, c)
    assert probs.amax(2).median() < 0.9
    assert (heads.weights.abs().amax((1, 2)) <= 1 / 16).all()
    assert len({tuple(probs[:, head].argmax(1).tolist()) for head in range(5)}) == 5


def test_rescaled_heads_say_the_same_of_points_of_another_scale() -> None:
    heads, points = random_heads(), unit_points()
    np.testing.assert_allclose(
        heads.rescale(8.0).predict(points), heads.predict(8.0 * points), atol=1e-12
    )


@pytest.mark.parametrize("n_images", [6, 20])
def test_batches_hold_anchors_and_a_neighbor_of_each(n_images: int) -> None:
    others = torch.from_numpy(np.random.default_rng(0).integers(n_images, size=(n_images, 3)))
    seen = set()
    for seed in range(60):
        batch = _draw_batch(others, None, 6, torch.Generator().manual_seed(seed))
        anchors = batch.images[: len(batch.partners)]
        assert len(anchors) == 6
        assert batch.is_whole == (n_images == 6)
        partners = batch.images[batch.partners]
        assert (others[anchors] == partners[:, None]).any(1).all()
        seen |= set(zip(anchors.tolist(), partners.tolist(), strict=True))
    assert seen == {(i, j) for i in range(n_images) for j in others[i].tolist()}


def test_selecting_takes_heads_in_the_given_order() -> None:
    heads, points = random_heads(), unit_points()
    found = heads.select(np.array([2, 0])).predict(points)
    np.testing.assert_allclose(found, heads.predict(points)[:, [2, 0]], atol=1e-12)


def test_sure_equal_and_agreeing_heads_fit_perfectly() -> None:
    clusters = torch.arange(20) % 4
    probs = torch.eye(4)[clusters][:, None]
    neighbors = ((np.arange(20)[:, None] + [4, 8, 12]) % 20).astype(np.int64)
    fit = measure_fit(probs, neighbors)
    assert fit.disagreement.tolist() == [0.0]
    assert fit.imbalance[0] == pytest.approx(0.0, abs=1e-7)
    one = measure_fit(torch.eye(4)[clusters * 0][:, None], neighbors)
    assert one.imbalance[0] == pytest.approx(np.log(4), abs=1e-7)


# Refusals


def test_refuses_neighbors_that_are_no_images() -> None:
    with pytest.raises(IndexError, match=r"index 20 is out of bounds"):
        measure_fit(random_logits().softmax(2), np.full((20, 2), 20))


def test_refuses_partitions_of_more_clusters() -> None:
    with pytest.raises(IndexError, match=r"index 4 is out of bounds"):
        start_heads(unit_points().astype(np.float32), np.full((1, 40), 4), 4)


def test_refuses_points_of_other_dims() -> None:
    with pytest.raises(RuntimeError, match=r"cannot be multiplied"):
        random_heads().predict(unit_points(n_dims=6))
