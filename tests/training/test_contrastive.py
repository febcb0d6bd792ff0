import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from unic.images.datasets import list_images, open_images
from unic.images.images import Images
from unic.images.views import View
from unic.images.writing import writing_views
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


def strokes(n_images: int = 12, side: int = 32) -> Tensor:
    """Digits as pixels in [0, 1], shape ``(n, 3, s, s)``."""
    images = torch.tensor(load_digits().images[:n_images] / 16, dtype=torch.float32)
    large = torch.nn.functional.interpolate(images[:, None], (side, side), mode="bilinear")
    return large.expand(-1, 3, -1, -1).contiguous()


def views_of(seed: int, pixels: Tensor | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return writing_views(strokes() if pixels is None else pixels, generator)


# Views


def test_views_keep_shape_dtype_and_about_the_range() -> None:
    views = views_of(0)
    assert views.shape == (12, 3, 32, 32)
    assert views.dtype == torch.float32
    assert torch.isfinite(views).all()
    assert float(views.min()) > -0.5
    assert float(views.max()) < 1.5
    assert torch.equal(views[:, 0], views[:, 1])  # gray stays gray


def test_views_are_those_of_their_generator() -> None:
    assert torch.equal(views_of(3), views_of(3))
    assert not torch.equal(views_of(3), views_of(4))


def test_views_leave_their_pixels_alone() -> None:
    pixels = strokes()
    views_of(0, pixels)
    assert torch.equal(pixels, strokes())


def test_views_of_one_image_differ_but_resemble_it() -> None:
    pixels = strokes(1).expand(200, -1, -1, -1)
    views = views_of(0, pixels)
    assert float((views[0] - views[1]).abs().mean()) > 0.01
    mean = views.mean(0).flatten()
    assert float(torch.corrcoef(torch.stack([mean, pixels[0].flatten()]))[0, 1]) > 0.8


def test_what_comes_in_from_outside_is_black() -> None:
    views = views_of(0, torch.ones(300, 3, 16, 16))
    corners = views[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.min(dim=1).values.median()) < 0.3
    assert float(views[:, 0, 8, 8].median()) > 0.9


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
