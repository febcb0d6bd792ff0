import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from unic.images.datasets import list_images, open_images
from unic.images.images import Images
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.neighbors.mining import mine_neighbors
from unic.training.contrastive import PretrainingSettings, pretrain

VIEW = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
SETTINGS = PretrainingSettings(
    epochs=2,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=1e-4,
    temperature=0.3,
    pixel_neighbors=3,
    feature_neighbors=5,
    pixel_fraction=0.5,
    remine_every=1,
    seed=0,
)


def digits(n_images: int = 96) -> Images:
    return open_images("digits", list_images("digits", root=None)["train"][:n_images], root=None)


def make_backbone() -> Backbone:
    return load_backbone("test_resnet", weights="random", options={}, image_size=32)


def run(settings: PretrainingSettings = SETTINGS) -> tuple[dict[str, Tensor], pd.DataFrame]:
    backbone = make_backbone()
    history = pretrain(backbone, digits(), VIEW, settings, device=torch.device("cpu"))
    return backbone.model.state_dict(), history


# Training


def test_training_lowers_the_loss_and_keeps_weights_finite() -> None:
    state, history = run(replace(SETTINGS, epochs=10, learning_rate=5e-3, pixel_fraction=1.0))
    assert list(history) == ["epoch", "loss", "learning_rate"]
    assert history["epoch"].tolist() == list(range(1, 11))
    assert history["loss"].iloc[-3:].mean() < history["loss"].iloc[:3].mean() - 0.15
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    before = make_backbone().model.state_dict()
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    assert {"conv1.0.weight", "layer4.0.conv1.weight"} <= changed  # the whole is trained
    assert any(name.endswith("running_mean") for name in changed)


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    (ours, history), (same, history_again) = run(), run()
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    pd.testing.assert_frame_equal(history, history_again, check_exact=True)
    other, _ = run(replace(SETTINGS, seed=1))
    assert not torch.equal(ours["conv1.0.weight"], other["conv1.0.weight"])


def test_neighbors_are_mined_in_pixels_then_in_features(monkeypatch: pytest.MonkeyPatch) -> None:
    mined = []

    def note(features: np.ndarray, *, n_neighbors: int, far_rank: int) -> object:
        mined.append((features.shape[1], n_neighbors))
        return mine_neighbors(features, n_neighbors=n_neighbors, far_rank=far_rank)

    monkeypatch.setattr("unic.training.contrastive.mine_neighbors", note)
    run(replace(SETTINGS, epochs=6, pixel_fraction=0.3, remine_every=3))
    assert mined == [(3 * 32 * 32, 3), (96, 5), (96, 5)]  # before epochs 1, 3 and 6


def test_the_learning_rate_warms_up_and_falls() -> None:
    _, history = run(replace(SETTINGS, epochs=3, pixel_fraction=1.0))
    expected = [
        2e-3 * (step + 1) / 50 * 0.5 * (1 + math.cos(math.pi * step / 9)) for step in range(0, 9, 3)
    ]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)


def test_the_backbone_is_left_in_evaluation_mode() -> None:
    backbone = make_backbone()
    settings = replace(SETTINGS, epochs=1)
    pretrain(backbone, digits(64), VIEW, settings, device=torch.device("cpu"))
    assert not any(module.training for module in backbone.model.modules())


# Refusals


def test_refuses_a_batch_larger_than_the_data() -> None:
    message = "pretraining.neighbors.batch_size must be at most the 96 training images, got 97"
    with pytest.raises(ValueError, match=message):
        run(replace(SETTINGS, batch_size=97))


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    backbone = make_backbone()
    with torch.no_grad():
        next(backbone.model.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="must stay finite, it is nan in epoch 1; lower"):
        pretrain(backbone, digits(), VIEW, SETTINGS, device=torch.device("cpu"))
