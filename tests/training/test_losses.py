import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unic.training.losses import (
    batch_negative_loss,
    contrastive_loss,
    entropy_loss,
    log_similarity,
    negative_loss,
    positive_loss,
    self_distillation_loss,
    supervised_contrastive_loss,
)

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
PAIR_LOSSES = pytest.mark.parametrize("loss", [positive_loss, negative_loss])
PairLoss = Callable[[Tensor, Tensor], Tensor]


def draw_log_probs(
    n_images: int, n_clusters: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_images, n_clusters, generator=generator, dtype=torch.float64)
    return torch.log_softmax(logits, dim=1).to(dtype)


def one_hot(clusters: list[int], n_clusters: int, *, logit: float = 1000.0) -> Tensor:
    """Log-probabilities of certain predictions, as a head with large logits gives them."""
    return torch.log_softmax(logit * torch.eye(n_clusters)[clusters], dim=1)


def reference_similarities(ours: Tensor, others: Tensor) -> list[float]:
    rows = zip(ours.double().exp().tolist(), others.double().exp().tolist(), strict=True)
    similarities = []
    for row, other in rows:
        total = 0.0
        for p, q in zip(row, other, strict=True):
            total += p * q
        similarities.append(total)
    return similarities


def reference_positive_loss(ours: Tensor, others: Tensor) -> float:
    terms = [-math.log(s) for s in reference_similarities(ours, others)]
    return sum(terms) / len(terms)


def reference_negative_loss(ours: Tensor, others: Tensor) -> float:
    terms = [-math.log(1.0 - min(s, 1.0 - 1e-6)) for s in reference_similarities(ours, others)]
    return sum(terms) / len(terms)


def reference_entropy_loss(log_probs: Tensor) -> float:
    probs = log_probs.double().exp().tolist()
    n_clusters = len(probs[0])
    entropy = 0.0
    for cluster in range(n_clusters):
        mean = 0.0
        for row in probs:
            mean += row[cluster] / len(probs)
        if mean > 0:
            entropy -= mean * math.log(mean)
    return math.log(n_clusters) - entropy


# Against plain loops


@PRECISIONS
@pytest.mark.parametrize(("n_images", "n_clusters"), [(1, 2), (7, 3), (64, 50)])
def test_losses_equal_plain_loops(n_images: int, n_clusters: int, dtype: torch.dtype) -> None:
    anchors, others = (
        draw_log_probs(n_images, n_clusters, seed=seed, dtype=dtype) for seed in (1, 2)
    )
    similarities = log_similarity(anchors, others).exp().tolist()
    assert similarities == pytest.approx(reference_similarities(anchors, others), abs=1e-6)
    for ours, reference in (
        (positive_loss(anchors, others), reference_positive_loss(anchors, others)),
        (negative_loss(anchors, others), reference_negative_loss(anchors, others)),
        (entropy_loss(anchors), reference_entropy_loss(anchors)),
    ):
        assert ours.dtype == dtype
        assert ours.shape == ()
        assert float(ours) == pytest.approx(reference, rel=1e-6, abs=1e-6)


@PAIR_LOSSES
def test_gradients_of_pair_losses(loss: PairLoss) -> None:
    anchors, others = (draw_log_probs(5, 4, seed=seed).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(loss, (anchors, others))


def test_gradient_of_the_entropy_loss() -> None:
    assert torch.autograd.gradcheck(entropy_loss, (draw_log_probs(5, 4).requires_grad_(),))


# Laws


@PAIR_LOSSES
@settings(max_examples=20, deadline=None)
@given(
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)), shape=st.sampled_from([(1, 2), (9, 5)])
)
def test_pair_losses_are_symmetric_and_not_negative(
    loss: PairLoss, seeds: tuple[int, int], shape: tuple[int, int]
) -> None:
    anchors, others = (draw_log_probs(*shape, seed=seed) for seed in seeds)
    torch.testing.assert_close(loss(anchors, others), loss(others, anchors))
    assert float(loss(anchors, others)) >= -1e-12  # 0 up to rounding


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), shape=st.sampled_from([(1, 2), (9, 5), (40, 3)]))
def test_entropy_loss_lies_between_0_and_log_k(seed: int, shape: tuple[int, int]) -> None:
    assert (
        -1e-12
        <= float(entropy_loss(draw_log_probs(*shape, seed=seed)))
        <= math.log(shape[1]) + 1e-12
    )


def test_permuting_clusters_changes_nothing() -> None:
    anchors, others = draw_log_probs(9, 6, seed=1), draw_log_probs(9, 6, seed=2)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    for loss in (positive_loss, negative_loss):
        torch.testing.assert_close(loss(anchors[:, order], others[:, order]), loss(anchors, others))
    torch.testing.assert_close(entropy_loss(anchors[:, order]), entropy_loss(anchors))


def test_permuting_pairs_changes_nothing() -> None:
    anchors, others = draw_log_probs(9, 6, seed=1), draw_log_probs(9, 6, seed=2)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for loss in (positive_loss, negative_loss):
        torch.testing.assert_close(loss(anchors[order], others[order]), loss(anchors, others))
    torch.testing.assert_close(entropy_loss(anchors[order]), entropy_loss(anchors))


@PRECISIONS
def test_entropy_loss_at_its_ends(dtype: torch.dtype) -> None:
    uniform = torch.full((4, 5), -math.log(5), dtype=dtype)
    even = one_hot([0, 1, 2, 3, 4], 5).to(dtype)
    collapsed = one_hot([2, 2, 2, 2], 5).to(dtype)
    assert float(entropy_loss(uniform)) == pytest.approx(0, abs=1e-6)
    assert float(entropy_loss(even)) == pytest.approx(0, abs=1e-6)
    assert float(entropy_loss(collapsed)) == pytest.approx(math.log(5), rel=1e-6)


def test_certain_pairs_reach_the_ends_of_the_pair_losses() -> None:
    first, second = one_hot([0, 1], 3), one_hot([1, 2], 3)
    assert float(positive_loss(first, first)) == 0
    assert float(positive_loss(first, second)) == pytest.approx(1000, rel=1e-3)  # no floor
    assert float(negative_loss(first, second)) == 0
    assert float(negative_loss(first, first)) == pytest.approx(-math.log(1e-6), rel=0.05)


@pytest.mark.parametrize("logit", [1e2, 1e4, 1e30])
@pytest.mark.parametrize("clusters", list(product([0, 1], repeat=2)))
def test_gradients_stay_finite_at_extreme_logits(logit: float, clusters: tuple[int, int]) -> None:
    for loss in (positive_loss, negative_loss, lambda anchors, _: entropy_loss(anchors)):
        logits = (logit * torch.eye(3)[list(clusters)]).requires_grad_()
        log_probs = torch.log_softmax(logits, dim=1)
        value = loss(log_probs[:1], log_probs[1:])
        value.backward()
        assert torch.isfinite(value)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


def test_positive_loss_keeps_its_gradient_where_no_cluster_is_shared() -> None:
    logits = (50.0 * torch.eye(2)).requires_grad_()
    log_probs = torch.log_softmax(logits, dim=1)
    positive_loss(log_probs[:1], log_probs[1:]).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) > 0.1


# Negatives within a batch


def draw_far(n_images: int, share: float, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    is_far = torch.rand(n_images, n_images, generator=generator) < share
    return is_far.fill_diagonal_(False)


@PRECISIONS
def test_batch_negatives_equal_plain_loops(dtype: torch.dtype) -> None:
    log_probs, is_far = draw_log_probs(9, 4, dtype=dtype), draw_far(9, 0.5)
    is_far[3] = False  # no negative in the batch
    probs, means = log_probs.double().exp().tolist(), []
    for i in range(9):
        terms = [
            -math.log(1 - sum(p * q for p, q in zip(probs[i], probs[j], strict=True)))
            for j in range(9)
            if is_far[i, j]
        ]
        means += [sum(terms) / len(terms)] if terms else []
    assert len(means) == 8
    found = float(batch_negative_loss(log_probs, is_far))
    assert found == pytest.approx(sum(means) / 8, rel=1e-5)


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("n_clusters", [1, 2, 37])
def test_losses_of_several_heads_are_those_of_each(n_heads: int, n_clusters: int) -> None:
    shape = (n_heads, 9, n_clusters)
    ours, others, past = (
        draw_log_probs(9 * n_heads, n_clusters, seed=seed).view(shape).transpose(0, 1)
        for seed in range(3)
    )  # (b, h, c)
    is_far = torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    is_far[4] = False
    means = past.exp().mean(0)  # (h, c)
    found = [
        positive_loss(ours, others),
        negative_loss(ours, others),
        batch_negative_loss(ours, is_far),
        entropy_loss(ours),
        entropy_loss(ours, means, momentum=0.3),
    ]
    for head in range(n_heads):
        mine, theirs = ours[:, head], others[:, head]
        alone = [
            positive_loss(mine, theirs),
            negative_loss(mine, theirs),
            batch_negative_loss(mine, is_far),
            entropy_loss(mine),
            entropy_loss(mine, means[head], momentum=0.3),
        ]
        torch.testing.assert_close([loss[head] for loss in found], alone, rtol=1e-12, atol=1e-12)


def test_pairs_at_the_clamp_pull_no_more() -> None:
    certain = one_hot([0, 0, 1], 2).double().requires_grad_()
    is_far = ~torch.eye(3, dtype=torch.bool)
    loss = batch_negative_loss(certain, is_far)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-6) / 3, rel=1e-6)
    assert certain.grad is not None
    assert certain.grad.isfinite().all()
    assert (certain.grad[:2, 0] == 0).all()


def test_one_batch_negative_each_is_a_drawn_negative() -> None:
    log_probs, others = draw_log_probs(6, 5), torch.tensor([3, 5, 1, 0, 2, 4])
    is_far = torch.zeros(6, 6, dtype=torch.bool)
    is_far[torch.arange(6), others] = True
    expected = negative_loss(log_probs, log_probs[others])
    torch.testing.assert_close(batch_negative_loss(log_probs, is_far), expected)


def test_batch_negatives_have_the_expectation_of_drawn_ones() -> None:
    log_probs, is_far = draw_log_probs(12, 5), draw_far(12, 0.6)
    weights = is_far.double()
    total = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4000):
        drawn = torch.multinomial(weights, 1, generator=generator)[:, 0]
        total += negative_loss(log_probs, log_probs[drawn])
    torch.testing.assert_close(
        total / 4000, batch_negative_loss(log_probs, is_far), rtol=0.02, atol=0
    )


def test_gradient_of_batch_negatives() -> None:
    log_probs, is_far = draw_log_probs(5, 4).requires_grad_(), draw_far(5, 0.5)
    assert torch.autograd.gradcheck(lambda p: batch_negative_loss(p, is_far), (log_probs,))


def test_batch_negatives_stay_finite_where_predictions_are_certain_or_none_is_far() -> None:
    log_probs = one_hot([0, 0, 1], 3).requires_grad_()
    loss = batch_negative_loss(log_probs, ~torch.eye(3, dtype=torch.bool))
    loss.backward()
    assert loss.isfinite()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all()
    none = batch_negative_loss(log_probs, torch.zeros(3, 3, dtype=torch.bool))
    assert float(none.detach()) == 0.0


# Past predictions


def test_entropy_with_a_past_is_that_of_the_weighted_mean() -> None:
    log_probs, past = draw_log_probs(7, 5), torch.tensor([0.1, 0.5, 0.2, 0.1, 0.1]).double()
    mean = 0.3 * log_probs.exp().mean(0) + 0.7 * past
    expected = math.log(5) + float((mean * mean.log()).sum())
    assert float(entropy_loss(log_probs, past, momentum=0.7)) == pytest.approx(expected, rel=1e-9)
    plain = entropy_loss(log_probs)
    torch.testing.assert_close(entropy_loss(log_probs, past, momentum=0.0), plain)


def test_the_gradient_of_the_entropy_is_taken_at_the_weighted_mean_unscaled() -> None:
    past = torch.tensor([0.1, 0.5, 0.2, 0.1, 0.1]).double()
    log_probs = draw_log_probs(7, 5).requires_grad_()
    entropy_loss(log_probs, past, momentum=0.7).backward()
    probs = log_probs.detach().exp()
    mean = 0.3 * probs.mean(0) + 0.7 * past
    expected = (mean.log() + 1) * probs / 7  # d sum(m log m) by d log p, where dm = dp / 7
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, expected)


def test_the_entropy_with_a_past_stays_finite_at_zero() -> None:
    log_probs = one_hot([0, 0], 3).requires_grad_()
    entropy_loss(log_probs, torch.tensor([1.0, 0.0, 0.0]), momentum=0.5).backward()
    assert log_probs.grad is not None
    assert log_probs.grad.isfinite().all()


# Contrastive losses


def draw_features(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.nn.functional.normalize(features, dim=-1).to(dtype)


def reference_supervised_contrastive_loss(
    features: Tensor, labels: list[int], temperature: float
) -> float:
    views = [
        (view, y) for image, y in zip(features.tolist(), labels, strict=True) for view in image
    ]
    losses = []
    for i, (anchor, label) in enumerate(views):
        weights, positives = {}, []
        for a, (other, other_label) in enumerate(views):
            if a != i:
                dot = sum(x * y for x, y in zip(anchor, other, strict=True))
                weights[a] = math.exp(dot / temperature)
                positives += [a] if other_label == label else []
        terms = [-math.log(weights[p] / sum(weights.values())) for p in positives]
        losses += [sum(terms) / len(terms)] if terms else []
    return sum(losses) / len(losses) if losses else 0.0


def reference_contrastive_loss(features: Tensor, temperature: float) -> float:
    """NT-Xent as Chen et al. write it: views 2k - 1 and 2k are partners."""
    views = features.flatten(0, 1).tolist()
    total = 0.0
    for i, view in enumerate(views):
        dots = [sum(x * y for x, y in zip(view, other, strict=True)) for other in views]
        others = [math.exp(dot / temperature) for j, dot in enumerate(dots) if j != i]
        total -= math.log(math.exp(dots[i ^ 1] / temperature) / sum(others))
    return total / len(views)


@PRECISIONS
@pytest.mark.parametrize("temperature", [0.07, 0.3, 1.0])
@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((2, 2, 3), [0, 0]),
        ((6, 2, 4), [0, 1, 0, 2, 2, 0]),
        ((5, 1, 4), [3, 3, 7, 3, 9]),  # two images are alone
        ((4, 3, 5), [1, 2, 1, 2]),
    ],
)
def test_supervised_contrastive_loss_equals_plain_loops(
    shape: tuple[int, int, int], labels: list[int], temperature: float, dtype: torch.dtype
) -> None:
    features = draw_features(*shape, dtype=dtype)
    expected = reference_supervised_contrastive_loss(features, labels, temperature)
    found = supervised_contrastive_loss(features, torch.tensor(labels), temperature=temperature)
    assert found.dtype == dtype
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("n_images", [2, 9])
def test_contrastive_loss_equals_plain_loops(n_images: int, temperature: float) -> None:
    features = draw_features(n_images, 2, 4)
    expected = reference_contrastive_loss(features, temperature)
    found = float(contrastive_loss(features, temperature=temperature))
    assert found == pytest.approx(expected, rel=1e-9)


def test_gradients_of_contrastive_losses() -> None:
    features, labels = draw_features(4, 2, 3).requires_grad_(), torch.tensor([0, 1, 0, 2])

    def supervised(features: Tensor) -> Tensor:
        return supervised_contrastive_loss(features, labels, temperature=0.3)

    assert torch.autograd.gradcheck(supervised, (features,))
    assert torch.autograd.gradcheck(lambda f: contrastive_loss(f, temperature=0.3), (features,))


def test_permuting_images_views_or_class_names_keeps_contrastive_losses() -> None:
    features, labels = draw_features(6, 2, 3), torch.tensor([0, 1, 0, 2, 1, 0])
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    loss = supervised_contrastive_loss(features, labels, temperature=0.1)
    for same in (
        supervised_contrastive_loss(features[order], labels[order], temperature=0.1),
        supervised_contrastive_loss(features.flip(1), labels, temperature=0.1),
        supervised_contrastive_loss(features, 7 - labels, temperature=0.1),
    ):
        torch.testing.assert_close(same, loss)
    alone = contrastive_loss(features, temperature=0.1)
    torch.testing.assert_close(contrastive_loss(features[order], temperature=0.1), alone)
    torch.testing.assert_close(contrastive_loss(features.flip(1), temperature=0.1), alone)


def test_views_that_agree_lower_the_contrastive_loss() -> None:
    apart = torch.eye(4)
    agreeing = torch.stack([apart, apart], dim=1)
    crossed = torch.stack([apart, apart.roll(1, 0)], dim=1)
    assert float(contrastive_loss(agreeing, temperature=0.05)) < 1e-6
    assert float(contrastive_loss(crossed, temperature=0.05)) > 10


@pytest.mark.parametrize("shape", [(0, 2, 3), (1, 1, 3), (3, 1, 3)])
def test_without_a_pair_the_contrastive_loss_is_0(shape: tuple[int, int, int]) -> None:
    features = draw_features(*shape).requires_grad_()
    loss = supervised_contrastive_loss(features, torch.arange(shape[0]), temperature=0.07)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None
    assert (features.grad == 0).all()


# Self-distillation


def distil(logits: Tensor, teacher_temperature: float = 0.05) -> Tensor:
    return self_distillation_loss(
        logits, student_temperature=0.1, teacher_temperature=teacher_temperature
    )


def reference_softmax(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp(logit / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


@PRECISIONS
@pytest.mark.parametrize("teacher_temperature", [0.04, 0.07, 0.1])
def test_self_distillation_equals_plain_loops(
    teacher_temperature: float, dtype: torch.dtype
) -> None:
    logits = draw_features(5, 2, 4, dtype=dtype)
    terms = []
    for first, second in logits.tolist():
        for student, teacher in ((first, second), (second, first)):
            p, q = reference_softmax(student, 0.1), reference_softmax(teacher, teacher_temperature)
            terms.append(-sum(y * math.log(x) for x, y in zip(p, q, strict=True)))
    found = distil(logits, teacher_temperature)
    assert found.dtype == dtype
    assert float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_no_gradient_goes_through_the_teacher() -> None:
    logits = draw_features(5, 2, 4).requires_grad_()
    distil(logits).backward()
    students = torch.softmax(logits.detach() / 0.1, dim=2)
    teachers = torch.softmax(logits.detach().flip(1) / 0.05, dim=2)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, (students - teachers) / 0.1 / 10)


def test_self_distillation_knows_no_order_and_no_offset() -> None:
    logits, order = draw_features(5, 2, 4), torch.tensor([2, 0, 3, 1])
    loss = distil(logits)
    torch.testing.assert_close(distil(logits.flip(1)), loss)
    torch.testing.assert_close(distil(logits[:, :, order]), loss)
    torch.testing.assert_close(distil(logits + 3.0), loss)


def test_a_certain_view_that_the_other_contradicts_costs_its_logit() -> None:
    logits = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    assert float(distil(logits)) == pytest.approx(20.0, rel=1e-4)
    assert float(distil(logits[:, [0, 0]])) == pytest.approx(0.0, abs=1e-6)
