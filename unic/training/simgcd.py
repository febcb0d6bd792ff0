"""SimGCD (Wen et al., 2023): the last block and a classifier learn from a few known labels."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from unic.features.sources import TrunkSource
from unic.models.backbones import Backbone
from unic.models.cosine_classifier import CosineClassifier
from unic.models.heads import Projector
from unic.models.trunk_output import TrunkOutput
from unic.storage.known_labels import check_known_labels
from unic.training.checkpoint import Checkpoint
from unic.training.epochs import Epochs, Kept
from unic.training.losses import (
    contrastive_loss,
    entropy_loss,
    self_distillation_loss,
    supervised_contrastive_loss,
)

logger = logging.getLogger(__name__)

# Values of the authors' code that no setting changes.
UNSUPERVISED_TEMPERATURE, SUPERVISED_TEMPERATURE = 1.0, 0.07  # of the contrastive losses
MOMENTUM = 0.9
LAST_RATE = 1e-3  # of the first one
TERMS = ("loss", "loss_distill", "loss_ent", "loss_class", "loss_unsup", "loss_sup")


@dataclass(frozen=True)
class SimGCDSettings:
    """Settings of :func:`train_simgcd`; defaults and ranges are in the configuration's schema."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    supervised_weight: float  # lambda
    entropy_weight: float  # epsilon
    student_temperature: float
    first_teacher_temperature: float
    teacher_temperature: float
    teacher_epochs: int  # until the teacher has its temperature
    seed: int


def train_simgcd(
    backbone: Backbone,
    source: TrunkSource,
    known_labels: NDArray[np.int64],
    settings: SimGCDSettings,
    *,
    n_clusters: int,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
) -> tuple[CosineClassifier, pd.DataFrame]:
    """Train the last block in place, together with a classifier of old and new classes.

    Two views of each image give ``(1 - l) [distill + e (log K - H)] + l CE + (1 - l) NT-Xent +
    l SupCon`` with ``l`` the supervised and ``e`` the entropy weight: self-distillation between
    the views, the entropy of the mean prediction, the classification of labeled images, and
    contrast of all images and of labeled ones. SGD with momentum 0.9; the rate falls each epoch
    along a cosine to a thousandth. The last epoch is kept, and no label but the known ones is read.

    Args:
        backbone: Cut backbone; its last block is trained.
        source: What the trunk gives for views of the training images.
        known_labels: Shape ``(n,)``, below ``n_clusters``, -1 = unknown.
        settings: See :class:`SimGCDSettings`.
        n_clusters: K, old and new classes together.
        device: Where to train.
        checkpoint: Where the state is kept after each epoch; a training that was stopped goes on
            from there, to the same weights.

    Returns:
        The classifier, and a row per epoch: ``epoch, loss, loss_distill, loss_ent, loss_class,
        loss_unsup, loss_sup, used_clusters, teacher_temperature, learning_rate``. Losses are means
        over the epoch.

    Raises:
        FloatingPointError: If the loss is no longer finite.
        ValueError: If a label is out of its range.
    """
    check_known_labels(known_labels, len(known_labels), n_clusters=n_clusters)
    backbone.to(device).set_trainable("last_block")
    trainer = SimGCDTrainer(backbone, settings, n_clusters=n_clusters, device=device)
    generator = np.random.default_rng(settings.seed)
    epochs = Epochs(
        settings.epochs,
        title="SimGCD",
        rate_setting="pretraining.simgcd.learning_rate",
        kept=None if checkpoint is None else Kept(checkpoint, trainer, generator),
    )
    for epoch in epochs:
        trainer.start_epoch(epoch)
        rows = draw_epoch(known_labels, settings.batch_size, generator)
        batches = [np.stack([batch, batch]) for batch in rows]  # (2, b) each
        used = torch.zeros(n_clusters, dtype=torch.bool, device=device)
        terms = []
        for batch, output in zip(rows, source.batches(batches, generator), strict=True):
            labels = torch.from_numpy(known_labels[batch]).to(device)
            clusters, losses = trainer.train(output, labels)
            used[clusters] = True
            terms.append(losses)
        means = torch.stack(terms).mean(0).tolist()
        row = {
            "epoch": epoch + 1,
            **dict(zip(TERMS, means, strict=True)),
            "used_clusters": int(used.sum()),
            "teacher_temperature": trainer.teacher_temperature,
            "learning_rate": trainer.rate,
        }
        epochs.add(row)
        logger.info("epoch %d loss %.4f used %d", row["epoch"], row["loss"], row["used_clusters"])
    return trainer.classifier, epochs.table()


def draw_epoch(
    known_labels: NDArray[np.int64], batch_size: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Batches of rows ``(b,)``, drawn with replacement so that half of each is labeled on average.

    As many images as there are, less those of a last batch that is not full.
    """
    n = len(known_labels)
    is_labeled = known_labels >= 0
    n_labeled = int(is_labeled.sum())
    weights = np.ones(n)
    if 0 < n_labeled < n:
        weights[~is_labeled] = n_labeled / (n - n_labeled)
    batch_size = min(batch_size, n)
    rows = generator.choice(n, size=n - n % batch_size, p=weights / weights.sum())
    return np.split(rows, len(rows) // batch_size)


class SimGCDTrainer:
    """Takes steps: all that changes in a training but the generator of its draws.

    Args:
        backbone: On the device, its last block with gradients.
        settings: See :class:`SimGCDSettings`.
        n_clusters: K.
        device: Where the backbone is.
    """

    def __init__(
        self, backbone: Backbone, settings: SimGCDSettings, *, n_clusters: int, device: torch.device
    ):
        self.backbone, self.settings = backbone, settings
        generator = torch.Generator().manual_seed(settings.seed)
        self.projector = Projector(backbone.n_dims, generator=generator).to(device)
        self.classifier = CosineClassifier(
            backbone.n_dims,
            n_clusters,
            temperature=settings.student_temperature,
            generator=generator,
        ).to(device)
        modules = (backbone, self.projector, self.classifier)
        every = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.parameters = sorted(every, key=lambda parameter: parameter.ndim <= 1)
        n_decaying = sum(parameter.ndim > 1 for parameter in every)
        self.optimizer = torch.optim.SGD(
            [
                {"params": self.parameters[:n_decaying], "weight_decay": settings.weight_decay},
                {"params": self.parameters[n_decaying:], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            momentum=MOMENTUM,
        )
        self.rate = self.teacher_temperature = 0.0

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate and the teacher's temperature of an epoch, from 0 on."""
        settings = self.settings
        cosine = (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        self.rate = settings.learning_rate * (LAST_RATE + (1 - LAST_RATE) * cosine)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        share = min(1.0, epoch / max(1, settings.teacher_epochs - 1))
        first, last = settings.first_teacher_temperature, settings.teacher_temperature
        self.teacher_temperature = first + share * (last - first)

    def train(self, output: TrunkOutput, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step.

        Args:
            output: What the trunk gave for the ``2 b`` views, first views before second ones.
            labels: Shape ``(b,)``, -1 = unknown.

        Returns:
            Clusters ``(b,)`` of the first views, and the detached loss and its terms, see
            :data:`TERMS`.
        """
        features = self.backbone.features_of(output).float()  # (2 b, d)
        cosines = self.classifier.cosines(features)  # (2 b, c)
        projected = self.projector(features)  # (2 b, p)
        pairs = [x.unflatten(0, (2, -1)).transpose(0, 1) for x in (cosines, projected)]
        terms = self.losses(pairs[0], pairs[1], labels)
        self.optimizer.zero_grad(set_to_none=True)
        terms[0].backward()
        self.optimizer.step()
        return pairs[0][:, 0].argmax(1), terms.detach()

    def losses(self, cosines: Tensor, projected: Tensor, labels: Tensor) -> Tensor:
        """The loss and its terms, see :data:`TERMS`.

        Args:
            cosines: Shape ``(b, 2, c)``, with each prototype.
            projected: Shape ``(b, 2, p)``, of unit length.
            labels: Shape ``(b,)``, -1 = unknown.
        """
        settings, share = self.settings, self.settings.supervised_weight
        logits = cosines / settings.student_temperature  # (b, 2, c)
        is_labeled = labels >= 0  # (b,)
        distill = self_distillation_loss(
            cosines,
            student_temperature=settings.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )
        entropy = entropy_loss(torch.log_softmax(logits.flatten(0, 1), dim=1))
        classes = labels[is_labeled].repeat_interleave(2)  # (2 l,)
        known_logits = logits[is_labeled].flatten(0, 1)  # (2 l, c)
        # A batch without a labeled image has a sum of 0, not the mean of nothing.
        classified = cross_entropy(known_logits, classes, reduction="sum") / max(1, len(classes))
        unsupervised = contrastive_loss(projected, temperature=UNSUPERVISED_TEMPERATURE)
        supervised = supervised_contrastive_loss(
            projected[is_labeled], labels[is_labeled], temperature=SUPERVISED_TEMPERATURE
        )
        clustering = distill + settings.entropy_weight * entropy
        loss = (1 - share) * (clustering + unsupervised) + share * (classified + supervised)
        return torch.stack([loss, distill, entropy, classified, unsupervised, supervised])

    def state(self) -> dict[str, Any]:
        """All that changes, between two epochs."""
        return {
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        for parameter, kept in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
