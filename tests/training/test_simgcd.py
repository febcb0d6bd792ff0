import copy
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor

from unic.evaluation.metrics import cluster_accuracy
from unic.features.cached_views import CachedViews, extract_tokens
from unic.features.extraction import extract_features
from unic.features.frozen import FrozenBackbone
from unic.features.sources import FreshViews, TrunkSource
from unic.images.augmentations import choose_augmentation
from unic.images.datasets import list_images, open_images
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.cosine_classifier import CosineClassifier
from unic.models.engines import Engine
from unic.training.checkpoint import Checkpoint
from unic.training.prediction import predict_clusters
from unic.training.simgcd import SimGCDSettings, SimGCDTrainer, draw_epoch, train_simgcd

CPU = torch.device("cpu")
VIEW = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.2,) * 3)
SETTINGS = SimGCDSettings(
    epochs=4,
    batch_size=12,
    learning_rate=0.05,
    weight_decay=5e-5,
    supervised_weight=0.35,
    entropy_weight=2.0,
    student_temperature=0.1,
    first_teacher_temperature=0.07,
    teacher_temperature=0.04,
    teacher_epochs=3,
    seed=0,
)
TRUTH = np.arange(48) % 4
KNOWN = np.where((TRUTH < 2) & (np.arange(48) < 24), TRUTH, -1)


def shades() -> ArrayImages:
    """48 noisy images of four shades."""
    noise = np.random.default_rng(0).integers(0, 60, (48, 32, 32, 3))
    pixels = (noise + 60 * TRUTH[:, None, None, None]).astype(np.uint8)
    return ArrayImages([f"{row}.png" for row in range(48)], pixels)


def make_backbone(name: str = "test_vit") -> Backbone:
    options: dict[str, Any] = {"img_size": 32} if name == "test_vit" else {}
    return load_backbone(name, weights="random", options=options, image_size=32)


def make_views(augmentation: str = "gcd") -> ViewLoader:
    return ViewLoader(shades(), VIEW, augmentation=choose_augmentation(augmentation))


def run(
    backbone: Backbone | None = None,
    settings: SimGCDSettings = SETTINGS,
    *,
    known: NDArray[np.int64] = KNOWN,
    views: TrunkSource | None = None,
    **others: Any,
) -> tuple[CosineClassifier, pd.DataFrame]:
    backbone = backbone or make_backbone()
    return train_simgcd(
        backbone,
        views or FreshViews(make_views(), backbone, precision="float32", device=CPU),
        known,
        settings,
        n_clusters=4,
        device=CPU,
        **others,
    )


# One step against plain formulas


def softmax(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp(logit / temperature) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def cross(p: list[float], q: list[float]) -> float:
    return -sum(y * math.log(x) for x, y in zip(p, q, strict=True))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def contrast(views: list[list[float]], labels: list[int], temperature: float) -> float:
    losses = []
    for i, view in enumerate(views):
        exps = [
            math.exp(sum(x * y for x, y in zip(view, other, strict=True)) / temperature)
            for other in views
        ]
        others = sum(exps) - exps[i]
        partners = [j for j, label in enumerate(labels) if label == labels[i] and j != i]
        losses.append(mean([-math.log(exps[j] / others) for j in partners]))
    return mean(losses)


def reference_terms(
    cosines: Tensor, projected: Tensor, labels: list[int], teacher_temperature: float
) -> list[float]:
    """What section 6 of the protocol says, image by image."""
    distill, entropies, classified = [], [0.0] * cosines.shape[2], []
    for (first, second), label in zip(cosines.tolist(), labels, strict=True):
        for student, teacher in ((first, second), (second, first)):
            p = softmax(student, 0.1)
            distill.append(cross(p, softmax(teacher, teacher_temperature)))
            entropies = [e + x for e, x in zip(entropies, p, strict=True)]
            classified += [-math.log(p[label])] if label >= 0 else []
    means = [e / (2 * len(labels)) for e in entropies]
    entropy = math.log(len(means)) + sum(m * math.log(m) for m in means)
    views = [view for image in projected.tolist() for view in image]
    images = [i for i in range(len(labels)) for _ in range(2)]
    known = [i for i, image in enumerate(images) if labels[image] >= 0]
    unsupervised = contrast(views, images, 1.0)
    supervised = contrast([views[i] for i in known], [labels[images[i]] for i in known], 0.07)
    terms = [mean(distill), entropy, mean(classified), unsupervised, supervised]
    loss = 0.65 * (terms[0] + 2 * entropy) + 0.35 * terms[2]
    return [loss + 0.65 * unsupervised + 0.35 * supervised, *terms]


def make_trainer(backbone: Backbone | None = None, **changes: Any) -> SimGCDTrainer:
    backbone = backbone or make_backbone()
    backbone.set_trainable("last_block")
    return SimGCDTrainer(backbone, replace(SETTINGS, **changes), n_clusters=4, device=CPU)


def draw_pairs(n_images: int, n_dims: int, seed: int) -> Tensor:
    pairs = torch.randn(n_images, 2, n_dims, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(pairs.double(), dim=2)


def test_losses_equal_plain_loops() -> None:
    trainer = make_trainer()
    trainer.start_epoch(1)
    cosines, projected = draw_pairs(6, 4, 0), draw_pairs(6, 5, 1)
    labels = [0, -1, 1, 0, -1, -1]
    found = trainer.losses(cosines, projected, torch.tensor(labels))
    expected = reference_terms(cosines, projected, labels, 0.055)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_a_batch_without_a_label_has_no_supervised_loss() -> None:
    trainer = make_trainer()
    trainer.start_epoch(0)
    cosines, projected = draw_pairs(3, 4, 0).requires_grad_(), draw_pairs(3, 5, 1).requires_grad_()
    terms = trainer.losses(cosines, projected, torch.full((3,), -1))
    terms[0].backward()
    assert terms[[3, 5]].tolist() == [0.0, 0.0]
    assert cosines.grad is not None
    assert projected.grad is not None
    assert cosines.grad.isfinite().all()
    assert projected.grad.isfinite().all()


def test_rate_and_teacher_follow_their_schedules() -> None:
    trainer = make_trainer(epochs=200, learning_rate=0.1, teacher_epochs=30)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200, eta_min=1e-4)
    teachers = np.concatenate([np.linspace(0.07, 0.04, 30), np.full(170, 0.04)])
    for epoch in range(200):
        trainer.start_epoch(epoch)
        assert trainer.rate == pytest.approx(cosine.get_last_lr()[0], rel=1e-9)
        assert {group["lr"] for group in trainer.optimizer.param_groups} == {trainer.rate}
        assert trainer.teacher_temperature == pytest.approx(teachers[epoch], rel=1e-9)
        optimizer.step()
        cosine.step()


def test_a_step_is_that_of_plain_sgd() -> None:
    backbone = make_backbone()
    trainer = make_trainer(backbone, weight_decay=0.1)
    trainer.start_epoch(0)
    plain = copy.deepcopy(trainer)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, -1, -1])
    with torch.no_grad():
        output = backbone.prepare(images)
    _, terms = trainer.train(output, labels)

    features = plain.backbone.last_block(plain.backbone.trunk(images)).float()
    unit = torch.nn.functional.normalize(features)
    prototypes = torch.nn.functional.normalize(plain.classifier.weight)
    projected = torch.nn.functional.normalize(plain.projector(features))
    cosines = torch.stack((unit @ prototypes.T).chunk(2), dim=1)
    loss = plain.losses(cosines, torch.stack(projected.chunk(2), dim=1), labels)[0]
    loss.backward()
    assert float(terms[0]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for ours, theirs in zip(trainer.parameters, plain.parameters, strict=True):
        assert theirs.grad is not None
        decay = 0.1 if theirs.ndim > 1 else 0.0
        expected = theirs - plain.rate * (theirs.grad + decay * theirs)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


def test_the_projector_is_that_of_the_paper() -> None:
    layers = [m for m in make_trainer().projector if isinstance(m, torch.nn.Linear)]
    widths = [layer.in_features for layer in layers] + [layers[-1].out_features]
    assert widths == [64, 2048, 2048, 256]
    for layer, following in pairwise(layers):
        assert following.in_features == layer.out_features
        assert (layer.bias == 0).all()
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02)


# Batches


def test_half_of_a_batch_is_labeled_on_average() -> None:
    known = np.where(np.arange(1000) < 130, 3, -1)
    batches = draw_epoch(known, 64, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [64] * 15
    rows = np.concatenate(
        [np.concatenate(draw_epoch(known, 64, np.random.default_rng(s))) for s in range(20)]
    )
    assert (known[rows] >= 0).mean() == pytest.approx(0.5, abs=0.015)
    assert set(rows.tolist()) == set(range(1000))
    of_labeled = np.bincount(rows, minlength=1000)[:130]
    assert of_labeled.std() < 1.3 * math.sqrt(of_labeled.mean())  # as even as chance is


@pytest.mark.parametrize("known", [np.full(30, -1), np.zeros(30, dtype=np.int64)])
def test_all_or_no_labels_give_even_batches(known: NDArray[np.int64]) -> None:
    generator = np.random.default_rng(0)
    rows = np.concatenate([np.concatenate(draw_epoch(known, 100, generator)) for _ in range(99)])
    counts = np.bincount(rows, minlength=30)
    assert len(rows) == 99 * 30
    assert counts.min() > 60


# Laws of the training


def test_training_finds_old_and_new_classes() -> None:
    ids = list_images("digits", root=None)["train"][:240]
    images = open_images("digits", ids, root=None)
    truth = load_digits().target[[int(image_id) for image_id in ids]]
    known = np.where((truth < 5) & (np.arange(240) % 2 == 0), truth, -1)
    view = View(image_size=32, crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
    weights = "bundled:digits_test_resnet"
    backbone = load_backbone("test_resnet", weights=weights, options={}, image_size=32)
    loader = ViewLoader(images, view, augmentation=choose_augmentation("warp"))
    classifier, history = train_simgcd(
        backbone,
        FreshViews(loader, backbone, precision="float32", device=CPU),
        known,
        replace(SETTINGS, epochs=5, batch_size=32),
        n_clusters=10,
        device=CPU,
    )
    assert list(history) == [
        *("epoch", "loss", "loss_distill", "loss_ent", "loss_class", "loss_unsup", "loss_sup"),
        *("used_clusters", "teacher_temperature", "learning_rate"),
    ]
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] - 0.5
    features = extract_features(images, backbone, view, batch_size=64, device=CPU, n_workers=1)
    clusters, confidence = predict_clusters(classifier, features, device=CPU)
    is_labeled = known >= 0
    assert (clusters == known)[is_labeled].mean() > 0.95
    assert cluster_accuracy(truth[~is_labeled], clusters[~is_labeled]) > 0.75
    assert confidence.mean() > 0.5


def test_training_changes_the_last_block_alone() -> None:
    backbone, before = make_backbone(), make_backbone().model.state_dict()
    run(backbone, replace(SETTINGS, epochs=2))
    changed = {k for k, v in backbone.model.state_dict().items() if not torch.equal(v, before[k])}
    last = max(int(key.split(".")[1]) for key in before if key.startswith("blocks."))
    assert changed
    assert all(key.startswith(f"blocks.{last}.") for key in changed)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_the_same_seed_gives_the_same_weights_and_another_others(name: str) -> None:
    settings = replace(SETTINGS, epochs=1)
    (ours, history), (same, again) = (run(make_backbone(name), settings) for _ in range(2))
    assert torch.equal(ours.weight, same.weight)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    other, _ = run(make_backbone(name), replace(settings, seed=1))
    assert not torch.equal(ours.weight, other.weight)


def test_labels_that_are_not_known_are_not_read() -> None:
    classifier, history = run(known=np.full(48, -1))
    assert (history[["loss_class", "loss_sup"]] == 0).all().all()
    assert torch.isfinite(classifier.weight).all()


class KilledError(Exception):
    """What the test stops a training by."""


class KillingCheckpoint(Checkpoint):
    """Stops the training after its second epoch is kept."""

    def save(self, state: Any) -> None:
        super().save(state)
        if len(state["history"]) == 2:
            raise KilledError


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole, first, second = (make_backbone() for _ in range(3))
    classifier, history = run(whole)
    path = tmp_path / "checkpoint"
    with pytest.raises(KilledError):
        run(first, checkpoint=KillingCheckpoint(path, key="x"))
    resumed, history_again = run(second, checkpoint=Checkpoint(path, key="x"))
    assert torch.equal(resumed.weight, classifier.weight)
    pd.testing.assert_frame_equal(history, history_again, check_exact=True)
    ours, theirs = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_cached_views_train_as_well(tmp_path: Path) -> None:
    backbone = make_backbone()
    extract_tokens(
        tmp_path / "tokens.json",
        make_views(),
        FrozenBackbone(backbone, Engine("torch", torch.float32, CPU)),
        n_views=4,
        dtype="float16",
        batch_size=8,
        seed=0,
        parameters={},
    )
    cached = CachedViews(tmp_path / "tokens.json", device=CPU)
    _, history = run(backbone, replace(SETTINGS, epochs=10), views=cached)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] - 0.3


# Refusals


@pytest.mark.parametrize(("label", "message"), [(4, "got -1 to 4"), (-2, "got -2 to 1")])
def test_refuses_labels_out_of_range(label: int, message: str) -> None:
    known = KNOWN.copy()
    known[5] = label
    with pytest.raises(
        ValueError, match=re.escape(f"at least -1 and below n_clusters=4, {message}")
    ):
        run(known=known)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(FloatingPointError, match=r"in epoch 1; lower pretraining\.simgcd"):
        run(settings=replace(SETTINGS, learning_rate=1e30))
