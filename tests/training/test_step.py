"""Steps of the finetuning, against plain loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.colors import SETTINGS, make_loader, make_model, make_pairs, train, weights_of
from unic.models.heads import Projector
from unic.training.losses import entropy_loss, negative_loss, positive_loss
from unic.training.step import FinetuningSettings


def test_a_constant_schedule_keeps_the_learning_rate() -> None:
    _, _, history = train(settings=replace(SETTINGS, epochs=4, schedule="constant"))
    assert history["learning_rate"].tolist() == [1e-3] * 4


def test_the_learning_rate_falls_along_a_cosine_over_all_steps() -> None:
    _, _, history = train(settings=replace(SETTINGS, epochs=4))
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)


def test_accumulation_takes_a_step_with_the_mean_gradient() -> None:
    settings = replace(SETTINGS, trainable=None, epochs=1, batch_size=16, weight_decay=0.0)
    _, head, history = train(settings=replace(settings, accumulation=3))
    assert history["step"].tolist() == [2]  # three batches, and the one that is left
    reference_backbone, reference_head = make_model()
    pairs, generator = make_pairs(), np.random.default_rng(0)
    batches = pairs.draw_epoch(16, generator)
    views = list(make_loader().batches([rows.ravel() for rows in batches], generator))
    optimizer = torch.optim.Adam(reference_head.parameters(), lr=1e-3)
    for part, rate in ((views[:3], 1e-3), (views[3:], 0.5e-3)):  # a cosine of two steps
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        for pixels in part:
            with torch.no_grad():
                features = reference_backbone(pixels)
            log_probs = torch.log_softmax(reference_head(features), 1).view(3, 16, -1)
            loss = positive_loss(log_probs[0], log_probs[1])
            loss = loss + negative_loss(log_probs[0], log_probs[2])
            ((loss + 3 * entropy_loss(log_probs[0])) / len(part)).backward()
        optimizer.step()
    for ours, theirs in zip(head.parameters(), reference_head.parameters(), strict=True):
        assert (ours - theirs).abs().max() < 1e-4  # of steps of 1e-3


def first_step(settings: FinetuningSettings) -> dict[str, torch.Tensor]:
    """Weights after a single step of a head on features that stay."""
    return weights_of(*train(settings=replace(settings, epochs=1, batch_size=64))[:2])


def test_clipping_scales_the_gradient() -> None:
    # Adam forgets the scale of the first gradient but for its epsilon of 1e-8.
    free = first_step(replace(SETTINGS, trainable=None))
    wide = first_step(replace(SETTINGS, trainable=None, clip_norm=1e9))
    tight = first_step(replace(SETTINGS, trainable=None, clip_norm=1e-12))
    start = weights_of(*make_model())
    name = "head.2.weight"
    assert torch.equal(free[name], wide[name])
    assert (free[name] - start[name]).abs().max() > 1e-4
    assert (tight[name] - start[name]).abs().max() < 1e-6


def test_the_past_enters_the_entropy_from_the_second_step_on() -> None:
    settings = replace(SETTINGS, trainable=None, epochs=1, batch_size=32, learning_rate=0.05)
    _, _, plain = train(settings=settings)
    history = train(settings=replace(settings, entropy_momentum=0.9))[2]
    assert history["loss_ent"].iloc[0] != plain["loss_ent"].iloc[0]
    reference_backbone, reference_head = make_model()
    pairs, generator = make_pairs(), np.random.default_rng(0)
    batches = pairs.draw_epoch(32, generator)
    views = make_loader().batches([rows.ravel() for rows in batches], generator)
    optimizer, past, terms = torch.optim.Adam(reference_head.parameters(), lr=0.05), None, []
    for pixels in views:
        with torch.no_grad():
            features = reference_backbone(pixels)
        log_probs = torch.log_softmax(reference_head(features), 1).view(3, 32, -1)
        loss = positive_loss(log_probs[0], log_probs[1])
        loss = loss + negative_loss(log_probs[0], log_probs[2])
        entropy = entropy_loss(log_probs[0], past, momentum=0.9)
        mean = log_probs[0].detach().exp().mean(0)
        past = mean if past is None else 0.1 * mean + 0.9 * past
        optimizer.zero_grad()
        (loss + 3 * entropy).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.025
        terms.append(float(entropy.detach()))
    assert history["loss_ent"].iloc[0] == pytest.approx(np.mean(terms), rel=1e-4)


def test_the_contrastive_loss_is_that_of_anchors_and_positives() -> None:
    """The first step of the head, the last block and the projector, written out."""
    settings = replace(SETTINGS, epochs=1, batch_size=32, lambda_con=5.0)
    _, head, history = train(settings=settings, seed=3)
    reference_backbone, reference_head = make_model()
    reference_backbone.set_trainable("last_block")
    projector = Projector(reference_backbone.n_dims, generator=torch.Generator().manual_seed(3))
    modules = (reference_backbone, reference_head, projector)
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    generator, terms = np.random.default_rng(3), []
    batches = make_pairs().draw_epoch(32, generator)
    for pixels in make_loader().batches([rows.ravel() for rows in batches], generator):
        features = reference_backbone(pixels)
        log_probs = torch.log_softmax(reference_head(features), 1).view(3, 32, -1)
        rows = projector(features[:64])
        similarity = rows @ rows.T / 0.07
        con = 0
        for i in range(64):
            others = torch.tensor([j for j in range(64) if j != i])
            con = con + (similarity[i, others].logsumexp(0) - similarity[i, (i + 32) % 64]) / 64
        loss = positive_loss(log_probs[0], log_probs[1])
        loss = loss + negative_loss(log_probs[0], log_probs[2]) + 3 * entropy_loss(log_probs[0])
        optimizer.zero_grad()
        (loss + 5 * con).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = settings.learning_rate / 2
        terms.append(float(con.detach()))
    assert history["loss_con"].iloc[0] == pytest.approx(np.mean(terms), rel=1e-3)
    for ours, theirs in zip(head.parameters(), reference_head.parameters(), strict=True):
        assert (ours - theirs).abs().max() < 1e-4
    plain = train(settings=replace(settings, lambda_con=0.0), seed=3)[2]
    assert plain["loss_con"].iloc[0] == 0
