import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.training.colors import (
    LABELS,
    N_CLASSES,
    N_IMAGES,
    SETTINGS,
    fresh_views,
    make_loader,
    make_model,
    make_pairs,
    train,
    weights_of,
)
from unic.evaluation.metrics import cluster_accuracy
from unic.features.sources import FrozenFeatures
from unic.images.augmentations import choose_augmentation
from unic.images.loaders import ViewLoader
from unic.models.backbones import Backbone, load_backbone
from unic.models.heads import Head, fit_norms, make_head, reads_tokens
from unic.neighbors.far_pairs import FarPairs
from unic.training.checkpoint import Checkpoint
from unic.training.finetuning import finetune
from unic.training.pairs import Pairs, PositiveSampler
from unic.training.step import FinetuningSettings

COLUMNS = [
    "epoch",
    "step",
    "loss",
    "loss_pos",
    "loss_neg",
    "loss_ent",
    "loss_con",
    "entropy",
    "used_clusters",
    "learning_rate",
    "images_per_second",
    "head",
]


def changed_weights(name: str, trainable: str | None) -> tuple[set[str], set[str], set[str]]:
    """Names of the weights that training changed, of the last block's, and of all."""
    backbone, head = make_model(name)
    before = weights_of(backbone, head)
    train((backbone, head), replace(SETTINGS, trainable=trainable, weight_decay=0.01))
    after = weights_of(backbone, head)
    block = {id(p) for p in backbone.block.parameters()}
    last = {f"backbone.{n}" for n, p in backbone.model.named_parameters() if id(p) in block}
    every = {f"backbone.{n}" for n, _ in backbone.model.named_parameters()}
    return {n for n in before if not torch.equal(before[n], after[n])}, last, every


# What is learned


def test_true_neighbors_give_the_classes(device: str) -> None:
    settings = replace(SETTINGS, epochs=20, lambda_ent=10.0)
    backbone, head, history = train(settings=settings, device=device)
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    pixels = next(make_loader().batches([np.arange(N_IMAGES)], np.random.default_rng(0)))
    with torch.no_grad():
        clusters = head(backbone(pixels.to(device))).argmax(1).cpu().numpy()
    assert cluster_accuracy(LABELS, clusters) > 0.95
    assert history["used_clusters"].iloc[-1] == N_CLASSES


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, "test_vit") for kind in ("mlp", "linear", "self_attention")),
        ("self_attention", "test_resnet"),
    ],
)
def test_every_head_learns_and_teaches_the_last_block(kind: str, name: str) -> None:
    options = {"img_size": 32} if name == "test_vit" else {}
    backbone = load_backbone(
        name, weights="random", options=options, image_size=32, all_tokens=reads_tokens(kind)
    )
    generator = torch.Generator().manual_seed(0)
    head = make_head(kind, backbone.n_token_dims, N_CLASSES, width=64, generator=generator)
    before = weights_of(backbone, head)
    settings = replace(SETTINGS, epochs=12, learning_rate=5e-3, lambda_ent=10.0)
    _, _, history = train((backbone, head), settings)
    after = weights_of(backbone, head)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    block = {id(p) for p in backbone.block.parameters()}
    parts = backbone.model.named_parameters()
    expected = {f"backbone.{key}" for key, p in parts if id(p) in block and p.ndim > 1}
    expected |= {f"head.{key}" for key, p in head.named_parameters() if p.ndim > 1}
    assert expected <= changed
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]


def test_the_final_norm_is_trained_where_asked_for() -> None:
    for is_trained in (False, True):
        backbone, head = make_model()
        before = backbone.model.norm.weight.detach().clone()
        train((backbone, head), replace(SETTINGS, epochs=1, train_final_norm=is_trained))
        assert torch.equal(backbone.model.norm.weight, before) is not is_trained


def test_history_has_a_row_an_epoch() -> None:
    _, _, history = train(settings=replace(SETTINGS, epochs=3, lambda_neg=0.5))
    assert list(history) == COLUMNS
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["step"].tolist() == [2, 4, 6]
    total = history["loss_pos"] + 0.5 * history["loss_neg"] + 3 * history["loss_ent"]
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    np.testing.assert_allclose(history["entropy"], math.log(4) - history["loss_ent"], rtol=1e-6)
    assert (history["images_per_second"] > 0).all()


# Several heads


def train_heads(
    seeds: list[int], settings: FinetuningSettings, backbone: Backbone | None = None
) -> tuple[list[Head], pd.DataFrame]:
    backbone = backbone or make_model()[0]
    heads: list[Head] = [make_model(seed=seed)[1] for seed in seeds]
    device = torch.device("cpu")
    history = finetune(
        backbone,
        heads,
        fresh_views(backbone, settings),
        make_pairs(),
        settings,
        seed=0,
        device=device,
    )
    return heads, history


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_heads_on_a_frozen_backbone_learn_as_if_alone(momentum: float) -> None:
    settings = replace(SETTINGS, trainable=None, epochs=3, entropy_momentum=momentum)
    together, history = train_heads([0, 1, 2], settings)
    alone = [train_heads([seed], settings) for seed in (0, 1, 2)]
    for ours, (theirs, _) in zip(together, alone, strict=True):
        for key, tensor in theirs[0].state_dict().items():
            # Adam takes steps of 1e-3 where a gradient is nothing but rounding, too.
            torch.testing.assert_close(ours.state_dict()[key], tensor, rtol=1e-4, atol=1e-4)
    # The head of an epoch is that of the lowest loss, and the row is its own.
    losses = np.array([h["loss"] for _, h in alone])  # (h, epochs)
    assert history["head"].tolist() == losses.argmin(0).tolist()
    np.testing.assert_allclose(history["loss"], losses.min(0), rtol=1e-5)
    used = np.array([h["used_clusters"] for _, h in alone])
    assert history["used_clusters"].tolist() == used[losses.argmin(0), range(3)].tolist()


def test_heads_share_the_last_block() -> None:
    backbone = make_model()[0]
    before = {k: v.clone() for k, v in backbone.block.state_dict().items()}
    heads, history = train_heads([0, 1], replace(SETTINGS, epochs=12, lambda_ent=10.0), backbone)
    assert any(not torch.equal(v, before[k]) for k, v in backbone.block.state_dict().items())
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert not torch.equal(heads[0][2].weight, heads[1][2].weight)


# Laws


@pytest.mark.parametrize("augmentation", [None, "warp", "scan"])
def test_the_same_seed_gives_the_same_weights_and_history(augmentation: str | None) -> None:
    # A second run may find the loader's images in memory already.
    loader, settings = make_loader(augmentation), replace(SETTINGS, epochs=1)
    first, second = (train(settings=settings, seed=3, loader=loader) for _ in range(2))
    ours, theirs = (weights_of(*found[:2]) for found in (first, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    tables = [found[2].drop(columns="images_per_second") for found in (first, second)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_another_seed_gives_other_weights() -> None:
    ours, theirs = (weights_of(*train(seed=seed)[:2]) for seed in (0, 1))
    assert not torch.equal(ours["head.2.weight"], theirs["head.2.weight"])


def test_training_leaves_the_global_generators_alone() -> None:
    model = make_model()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(model, replace(SETTINGS, epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_trainable_none_changes_the_head_alone(name: str) -> None:
    changed, _, _ = changed_weights(name, None)
    assert changed == {"head.0.weight", "head.0.bias", "head.2.weight", "head.2.bias"}


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_trainable_last_block_changes_it_and_the_head(name: str) -> None:
    changed, last, every = changed_weights(name, "last_block")
    assert {n for n in changed if n.startswith("backbone.")} == last
    assert last < every
    assert "head.0.weight" in changed


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_trainable_all_changes_the_trunk_too(name: str) -> None:
    changed, last, every = changed_weights(name, "all")
    assert changed & (every - last)
    assert last <= changed


def test_running_statistics_stay() -> None:
    backbone, head = make_model("test_resnet")
    backbone.train()
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    assert any(name.endswith("running_mean") for name in before)
    train((backbone, head), replace(SETTINGS, trainable="all", epochs=1))
    for name, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("trainable", [None, "last_block"])
def test_the_frozen_part_keeps_no_gradients(trainable: str | None) -> None:
    backbone, _, _ = train(settings=replace(SETTINGS, trainable=trainable, epochs=1))
    block = {id(p) for p in backbone.block.parameters()} if trainable == "last_block" else set()
    assert all(p.grad is None for p in backbone.parameters() if id(p) not in block)


# Negatives within the batch


def test_in_batch_negatives_give_the_classes() -> None:
    settings = replace(SETTINGS, epochs=20, lambda_ent=10.0)
    backbone, head, history = train(settings=settings, pairs=make_pairs(in_batch=True))
    pixels = next(make_loader().batches([np.arange(N_IMAGES)], np.random.default_rng(0)))
    with torch.no_grad():
        clusters = head(backbone(pixels)).argmax(1).numpy()
    assert cluster_accuracy(LABELS, clusters) > 0.95
    assert history["loss_neg"].iloc[-1] < history["loss_neg"].iloc[0]


# Options, against plain loops


def used_clusters(norm: str | None) -> int:
    """Clusters of 20 that are used, where features after a ReLU have 20 classes, with momentum."""
    backbone = load_backbone(
        "test_vit", weights="random", options={"img_size": 32}, image_size=32, is_frozen=True
    )
    generator = np.random.default_rng(0)
    labels = np.arange(600) % 20
    centers = generator.normal(size=(20, backbone.n_dims))
    noise = generator.normal(1, 1, size=(600, backbone.n_dims))
    features = np.maximum(centers[labels] + noise, 0).astype(np.float32)
    distances = np.linalg.norm(features[:, None] - features, axis=2)  # (n, n)
    unknown = np.full(600, -1, dtype=np.int64)
    radius = np.sort(distances, axis=1)[:, 60].astype(np.float32)
    weights = torch.Generator().manual_seed(0)
    head = make_head("linear", backbone.n_dims, 20, width=0, generator=weights, norm=norm)
    fit_norms([head], features)
    history = finetune(
        backbone,
        [head],
        FrozenFeatures(features, device=torch.device("cpu")),
        Pairs(
            PositiveSampler(distances.argsort(1)[:, :10], unknown),
            FarPairs(features, radius, known_labels=unknown),
        ),
        replace(
            SETTINGS,
            trainable=None,
            epochs=30,
            batch_size=100,
            learning_rate=3e-3,
            entropy_momentum=0.9,
        ),
        seed=0,
        device=torch.device("cpu"),
    )
    return int(history["used_clusters"].iloc[-1])


@pytest.mark.parametrize(
    ("norm", "is_collapsed"),
    [(None, True), ("rms", True), ("center", False), ("standardize", False)],
)
def test_centered_features_do_not_collapse_with_momentum(
    norm: str | None, is_collapsed: bool
) -> None:
    """Features that are not negative share a mean, along which a step moves all images."""
    n_used = used_clusters(norm)
    assert n_used < 10 if is_collapsed else n_used >= 18


def test_refuses_the_contrastive_loss_on_tokens() -> None:
    backbone, _ = make_model()
    generator = torch.Generator().manual_seed(0)
    head = make_head("self_attention", backbone.n_dims, N_CLASSES, width=8, generator=generator)
    with pytest.raises(ValueError, match="lambda_con must be 0 with a head that reads all tokens"):
        train((backbone, head), replace(SETTINGS, lambda_con=1.0))


def test_bfloat16_trains_to_nearly_the_same_loss() -> None:
    histories = [train(precision=precision)[2] for precision in ("float32", "bfloat16")]
    exact, near = (history["loss"].to_numpy() for history in histories)
    assert (exact != near).all()
    np.testing.assert_allclose(near, exact, rtol=0.02)


# Checkpoints


class KilledError(Exception):
    pass


class KillingLoader(ViewLoader):
    """Views up to a batch, at which the training is stopped."""

    left = 0

    def batches(self, *args: Any, **kwargs: Any) -> Iterator[torch.Tensor]:
        for pixels in super().batches(*args, **kwargs):
            if self.left == 0:
                raise KilledError
            self.left -= 1
            yield pixels


def killing_loader(augmentation: str | None, n_batches: int) -> KillingLoader:
    whole = make_loader()
    loader = KillingLoader(whole.images, whole.view, augmentation=choose_augmentation(augmentation))
    loader.left = n_batches
    return loader


@pytest.mark.parametrize("augmentation", ["warp", "scan"])
def test_a_stopped_training_goes_on_to_the_same_weights(
    augmentation: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(SETTINGS, epochs=4, entropy_momentum=0.5, weight_decay=0.01)
    loader = make_loader(augmentation)
    backbone, head, history = train(settings=settings, loader=loader)
    expected = weights_of(backbone, head)
    path = tmp_path / "checkpoint.pt"
    for n_batches in (0, 1, 3, 1, 1):  # two batches an epoch: stopped in epochs 1, 1, 2, 2, 2
        with pytest.raises(KilledError):
            train(
                settings=settings,
                loader=killing_loader(augmentation, n_batches),
                checkpoint=Checkpoint(path, key="k"),
            )
    with caplog.at_level(logging.INFO, "unic"):
        backbone, head, resumed = train(
            settings=settings, loader=loader, checkpoint=Checkpoint(path, key="k")
        )
    assert "goes on after epoch 1" in caplog.text
    found = weights_of(backbone, head)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    tables = [table.drop(columns="images_per_second") for table in (resumed, history)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_finished_training_is_taken_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", key="k")
    expected = weights_of(*train(checkpoint=checkpoint)[:2])
    again = weights_of(*train(loader=killing_loader(None, 0), checkpoint=checkpoint)[:2])
    assert all(torch.equal(again[name], expected[name]) for name in expected)


# Warnings and refusals


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"schedule": "step"}, "must be cosine or constant, got step"),
        ({"accumulation": 0}, "at least 1, got 0"),
        ({"entropy_momentum": 1.0}, r"at least 0 and below 1, got 1\.0"),
    ],
)
def test_refuses_settings_out_of_range(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(settings=replace(SETTINGS, **setting))


def test_refuses_an_unknown_precision() -> None:
    with pytest.raises(ValueError, match="got half"):
        train(precision="half")


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    backbone, head = make_model()
    with torch.no_grad():
        head[0].weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="must stay finite, it is nan in epoch 1; lower"):
        train((backbone, head))


def test_a_collapse_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    backbone, head = make_model()
    with torch.no_grad():
        head[2].bias[2] = 50.0
    with caplog.at_level(logging.INFO, "unic.training.finetuning"):
        train((backbone, head), replace(SETTINGS, epochs=1, learning_rate=1e-8))
    assert "epoch 1 loss" in caplog.text
    assert "only 1 of 4 clusters are used after epoch 1: the clustering may collapse" in caplog.text
    assert "head_norm" not in caplog.text


@pytest.mark.parametrize(("norm", "is_named"), [(None, True), ("rms", True), ("center", False)])
def test_a_collapse_with_momentum_is_logged_with_its_cure(
    norm: str | None, is_named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    backbone, weights = make_model()[0], torch.Generator().manual_seed(0)
    head = make_head("linear", backbone.n_dims, 4, width=0, generator=weights, norm=norm)
    with torch.no_grad():
        head[-1].bias[2] = 50.0
    train((backbone, head), replace(SETTINGS, epochs=1, learning_rate=1e-8, entropy_momentum=0.9))
    cure = "may collapse; entropy_momentum needs features that are centered (head_norm)"
    assert (cure in caplog.text) == is_named
    assert "only 1 of 4 clusters" in caplog.text
