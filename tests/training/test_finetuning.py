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
from numpy.typing import NDArray

from unic.evaluation.metrics import cluster_accuracy
from unic.features.sources import FreshViews, FrozenFeatures
from unic.images.augmentations import choose_augmentation
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.heads import ClusterHead, Head, Projector, fit_norms, make_head, reads_tokens
from unic.neighbors.far_pairs import FarPairs
from unic.storage.files import write_csv
from unic.training.checkpoint import Checkpoint
from unic.training.finetuning import finetune
from unic.training.history import read_histories
from unic.training.losses import entropy_loss, negative_loss, positive_loss
from unic.training.pairs import Pairs, PositiveSampler, StoredNegatives
from unic.training.step import FinetuningSettings

N_IMAGES, N_CLASSES = 64, 4
LABELS = np.arange(N_IMAGES) % N_CLASSES
SETTINGS = FinetuningSettings(
    trainable="last_block",
    epochs=2,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=0.0,
    lambda_pos=1.0,
    lambda_neg=1.0,
    lambda_ent=3.0,
)
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


def make_loader(augmentation: str | None = None) -> ViewLoader:
    """Noise of four colors, a class each; a random backbone does not tell much more apart."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 90, size=(N_IMAGES, 8, 8, 3), dtype=np.uint8)
    pixels += np.array([[0, 0, 0], [150, 0, 0], [0, 150, 0], [0, 0, 150]], dtype=np.uint8)[
        LABELS, None, None
    ]
    ids = [str(row) for row in range(N_IMAGES)]
    view = View(image_size=32, crop_pct=1.0, mean=(0.3,) * 3, std=(0.1,) * 3)
    return ViewLoader(
        ArrayImages(ids, pixels), view, augmentation=choose_augmentation(augmentation)
    )


def fresh_views(
    backbone: Backbone,
    settings: FinetuningSettings,
    loader: ViewLoader | None = None,
    *,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> FreshViews:
    return FreshViews(
        loader or make_loader(),
        backbone,
        precision=precision,
        device=torch.device(device),
        has_gradient=settings.trainable == "all",
    )


def rows_of(*, same: bool) -> NDArray[np.int64]:
    """For each image the others of its class, itself first; or those of other classes."""
    rows = [np.flatnonzero((label == LABELS) == same) for label in LABELS]
    if not same:
        return np.array(rows)
    return np.array([[i, *row[row != i]] for i, row in enumerate(rows)])


def far_by_class() -> FarPairs:
    """The classes as features: images of another class are beyond the far radius."""
    features = np.eye(N_CLASSES, dtype=np.float32)[LABELS]
    radius = np.full(N_IMAGES, 0.5, dtype=np.float32)
    return FarPairs(features, radius, known_labels=np.full(N_IMAGES, -1, dtype=np.int64))


def make_pairs(known_labels: NDArray[np.int64] | None = None, *, in_batch: bool = False) -> Pairs:
    if known_labels is None:
        known_labels = np.full(N_IMAGES, -1, dtype=np.int64)
    sampler = PositiveSampler(rows_of(same=True), known_labels)
    stored = StoredNegatives(rows_of(same=False))
    return Pairs(sampler, far_by_class() if in_batch else stored)


def make_model(name: str = "test_vit", *, seed: int = 0) -> tuple[Backbone, ClusterHead]:
    options = {"img_size": 32} if name == "test_vit" else {}
    backbone = load_backbone(name, weights="random", options=options, image_size=32)
    generator = torch.Generator().manual_seed(seed)
    return backbone, ClusterHead(backbone.n_dims, N_CLASSES, width=512, generator=generator)


def train(
    model: tuple[Backbone, Head] | None = None,
    settings: FinetuningSettings = SETTINGS,
    *,
    seed: int = 0,
    loader: ViewLoader | None = None,
    pairs: Pairs | None = None,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[Backbone, Head, pd.DataFrame]:
    backbone, head = model or make_model()
    history = finetune(
        backbone,
        [head],
        fresh_views(backbone, settings, loader, device=device, precision=precision),
        pairs or make_pairs(),
        settings,
        seed=seed,
        device=torch.device(device),
        checkpoint=checkpoint,
    )
    return backbone, head, history


def weights_of(backbone: Backbone, head: Head) -> dict[str, torch.Tensor]:
    named = {**backbone.model.state_dict(prefix="backbone."), **head.state_dict(prefix="head.")}
    return {name: tensor.detach().clone().cpu() for name, tensor in named.items()}


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


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


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


def test_the_learning_rate_falls_along_a_cosine_over_all_steps() -> None:
    _, _, history = train(settings=replace(SETTINGS, epochs=4))
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-6)


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
            torch.testing.assert_close(ours.state_dict()[key], tensor, rtol=1e-4, atol=1e-6)
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


# Pairs


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(16, [16] * 4), (20, [20] * 3), (64, [64]), (1000, [64])]
)
def test_every_image_is_an_anchor_at_most_once(batch_size: int, sizes: list[int]) -> None:
    batches = make_pairs().draw_epoch(batch_size, np.random.default_rng(0))
    assert [rows.shape for rows in batches] == [(3, size) for size in sizes]
    anchors = np.concatenate([rows[0] for rows in batches])
    assert len(set(anchors.tolist())) == len(anchors)
    assert anchors.tolist() != sorted(anchors.tolist())


def test_positives_and_negatives_are_those_of_the_anchor() -> None:
    pairs = make_pairs()
    seen: set[tuple[int, int]] = set()
    for seed in range(40):
        for anchors, positives, negatives in pairs.draw_epoch(32, np.random.default_rng(seed)):
            assert (LABELS[anchors] == LABELS[positives]).all()
            assert (LABELS[anchors] != LABELS[negatives]).all()
            seen |= set(zip(anchors.tolist(), negatives.tolist(), strict=True))
    assert len({negative for anchor, negative in seen if anchor == 0}) > 20  # redrawn


def test_labeled_anchors_take_positives_of_their_class() -> None:
    known_labels = np.full(N_IMAGES, -1, dtype=np.int64)
    known_labels[[0, 1, 2]] = 7  # of different clean rows
    batches = make_pairs(known_labels).draw_epoch(64, np.random.default_rng(0))
    anchors, positives, _ = batches[0]
    labeled = np.isin(anchors, [0, 1, 2])
    assert set(positives[labeled].tolist()) <= {0, 1, 2}
    assert (LABELS[anchors[~labeled]] == LABELS[positives[~labeled]]).all()


def test_an_image_that_was_dropped_comes_another_epoch() -> None:
    pairs, generator = make_pairs(), np.random.default_rng(0)
    anchors = [np.concatenate([b[0] for b in pairs.draw_epoch(60, generator)]) for _ in range(9)]
    assert set(np.concatenate(anchors).tolist()) == set(range(N_IMAGES))


# Negatives within the batch


def test_in_batch_negatives_give_the_classes() -> None:
    settings = replace(SETTINGS, epochs=20, lambda_ent=10.0)
    backbone, head, history = train(settings=settings, pairs=make_pairs(in_batch=True))
    pixels = next(make_loader().batches([np.arange(N_IMAGES)], np.random.default_rng(0)))
    with torch.no_grad():
        clusters = head(backbone(pixels)).argmax(1).numpy()
    assert cluster_accuracy(LABELS, clusters) > 0.95
    assert history["loss_neg"].iloc[-1] < history["loss_neg"].iloc[0]


def test_in_batch_pairs_draw_no_negatives() -> None:
    pairs, drawn = make_pairs(in_batch=True), make_pairs()
    batches = pairs.draw_epoch(16, np.random.default_rng(0))
    assert [rows.shape for rows in batches] == [(2, 16)] * 4
    expected = drawn.draw_epoch(16, np.random.default_rng(0))
    for rows, others in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(rows, others[:2])
        is_far = pairs.find_far(rows[0])
        assert is_far is not None
        np.testing.assert_array_equal(is_far, LABELS[rows[0]][:, None] != LABELS[rows[0]])
    assert drawn.find_far(expected[0][0]) is None


# Options, against plain loops


def first_step(settings: FinetuningSettings) -> dict[str, torch.Tensor]:
    """Weights after a single step of a head on features that stay."""
    return weights_of(*train(settings=replace(settings, epochs=1, batch_size=64))[:2])


def test_a_constant_schedule_keeps_the_learning_rate() -> None:
    _, _, history = train(settings=replace(SETTINGS, epochs=4, schedule="constant"))
    assert history["learning_rate"].tolist() == [1e-3] * 4


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


# Files


def test_histories_survive_the_files(tmp_path: Path) -> None:
    table = pd.DataFrame({"epoch": [1, 2], "loss": [0.1 + 0.2, 1 / 3], "used_clusters": [3, 4]})
    paths = [tmp_path / "seed5" / "history.csv", tmp_path / "seed7" / "history.csv"]
    for scale, path in enumerate(paths, start=1):
        write_csv(path, table.assign(loss=table["loss"] * scale))
    found = read_histories(paths, seeds=[5, 7])
    assert found["seed"].tolist() == [5, 5, 7, 7]
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found["loss"].tolist() == [0.1 + 0.2, 1 / 3, 2 * (0.1 + 0.2), 2 / 3]


def test_refuses_histories_without_a_seed_each(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_csv(path, pd.DataFrame({"epoch": [1]}))
    with pytest.raises(ValueError, match="longer"):
        read_histories([path], seeds=[0, 1])
