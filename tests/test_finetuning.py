import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from unic.backbones import Backbone, ClusterHead, load_backbone
from unic.cleaning import PositiveSampler
from unic.data.datasets import ArrayImages
from unic.data.loaders import ViewLoader
from unic.data.views import View
from unic.files import write_csv
from unic.finetuning import FinetuningSettings, Pairs, finetune, read_histories
from unic.metrics import cluster_accuracy
from unic.negatives import StoredNegatives

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
    "entropy",
    "used_clusters",
    "learning_rate",
    "images_per_second",
]


def make_loader(augmentation: str = "none") -> ViewLoader:
    """Noise of four colors, a class each; a random backbone does not tell much more apart."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 90, size=(N_IMAGES, 8, 8, 3), dtype=np.uint8)
    pixels += np.array([[0, 0, 0], [150, 0, 0], [0, 150, 0], [0, 0, 150]], dtype=np.uint8)[
        LABELS, None, None
    ]
    ids = [str(row) for row in range(N_IMAGES)]
    view = View(image_size=32, crop_pct=1.0, mean=(0.3,) * 3, std=(0.1,) * 3)
    return ViewLoader(ArrayImages(ids, pixels), view, augmentation=augmentation)


def rows_of(*, same: bool) -> NDArray[np.int64]:
    """For each image the others of its class, itself first; or those of other classes."""
    rows = [np.flatnonzero((label == LABELS) == same) for label in LABELS]
    if not same:
        return np.array(rows)
    return np.array([[i, *row[row != i]] for i, row in enumerate(rows)])


def make_pairs(known_labels: NDArray[np.int64] | None = None) -> Pairs:
    if known_labels is None:
        known_labels = np.full(N_IMAGES, -1, dtype=np.int64)
    sampler = PositiveSampler(rows_of(same=True), known_labels)
    return Pairs(sampler, StoredNegatives(rows_of(same=False)))


def make_model(name: str = "test_vit", *, seed: int = 0) -> tuple[Backbone, ClusterHead]:
    options = {"img_size": 32} if name == "test_vit" else {}
    backbone = load_backbone(name, weights="random", options=options, image_size=32)
    generator = torch.Generator().manual_seed(seed)
    return backbone, ClusterHead(backbone.n_dims, N_CLASSES, width=512, generator=generator)


def train(
    model: tuple[Backbone, ClusterHead] | None = None,
    settings: FinetuningSettings = SETTINGS,
    *,
    seed: int = 0,
    loader: ViewLoader | None = None,
    device: str = "cpu",
) -> tuple[Backbone, ClusterHead, pd.DataFrame]:
    backbone, head = model or make_model()
    history = finetune(
        backbone,
        head,
        loader or make_loader(),
        make_pairs(),
        settings,
        seed=seed,
        device=torch.device(device),
    )
    return backbone, head, history


def weights_of(backbone: Backbone, head: ClusterHead) -> dict[str, torch.Tensor]:
    named = {**backbone.model.state_dict(prefix="backbone."), **head.state_dict(prefix="head.")}
    return {name: tensor.detach().clone().cpu() for name, tensor in named.items()}


def changed_weights(name: str, trainable: str) -> tuple[set[str], set[str], set[str]]:
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


# Laws


@pytest.mark.parametrize("augmentation", ["none", "warp", "scan"])
def test_the_same_seed_gives_the_same_weights_and_history(augmentation: str) -> None:
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
    changed, _, _ = changed_weights(name, "none")
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


@pytest.mark.parametrize("trainable", ["none", "last_block"])
def test_the_frozen_part_keeps_no_gradients(trainable: str) -> None:
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


# Warnings and refusals


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
    with caplog.at_level(logging.INFO, "unic.finetuning"):
        train((backbone, head), replace(SETTINGS, epochs=1, learning_rate=1e-8))
    assert "epoch 1 loss" in caplog.text
    assert "only 1 of 4 clusters are used after epoch 1: the clustering may collapse" in caplog.text


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
