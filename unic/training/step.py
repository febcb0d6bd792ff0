"""The trainer: one step of the finetuning after the other (Eqs. 5-9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unic.models.backbones import Backbone
from unic.models.heads import Head, Projector, apply_heads
from unic.models.trunk_output import TrunkOutput
from unic.runtime.processes import ALONE, Processes
from unic.training.losses import (
    batch_negative_loss,
    contrastive_loss,
    entropy_loss,
    negative_loss,
    positive_loss,
)

CONTRASTIVE_TEMPERATURE = 0.07  # Khosla et al., 2020


@dataclass(frozen=True)
class FinetuningSettings:
    """Settings of the training; the paper's values are the defaults of the configuration."""

    trainable: str | None  # last_block or all
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    lambda_pos: float
    lambda_neg: float
    lambda_ent: float
    lambda_con: float = 0.0
    schedule: str = "cosine"  # or constant
    clip_norm: float | None = None  # largest norm of the gradient
    accumulation: int = 1  # batches a step of the optimizer
    entropy_momentum: float = 0.0  # share of past batches in the mean prediction of L_ent
    train_final_norm: bool = False  # along with the last block


class Trainer:
    """Takes steps: all that changes in a training but the generator of its draws.

    Args:
        backbone: On its device, what is trained of it with gradients.
        heads: From features or tokens to logits, on the same device; each has a loss of its own,
            and the sum of these is minimized.
        settings: See :class:`FinetuningSettings`.
        n_batches: Batches of an epoch.
        processes: This process and those that train along with it.
        projector: From features to what the contrastive loss compares, where it has a weight.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Sequence[Head],
        settings: FinetuningSettings,
        n_batches: int,
        processes: Processes = ALONE,
        projector: Projector | None = None,
    ):
        self.backbone, self.heads, self.settings = backbone, heads, settings
        self.processes, self.projector = processes, projector
        parts = [backbone, *heads] if projector is None else [backbone, *heads, projector]
        self.parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        n_steps = -(-n_batches // settings.accumulation) * settings.epochs
        self.scheduler = _make_scheduler(self.optimizer, settings.schedule, n_steps)
        self.n_steps, self.n_waiting = 0, 0
        self.past: Tensor | None = None  # (h, c), running mean of the predictions of each head

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.scheduler.get_last_lr()[0])

    def train(
        self, output: TrunkOutput, n_rows: int, is_far: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Learn from a batch, and take a step where enough are gathered.

        Args:
            output: What the trunk gave for this process's share of the ``r b`` views.
            n_rows: r, 3 for anchors, positives and negatives, 2 for anchors and positives.
            is_far: Shape ``(b, b)``, which anchors are negatives of which, where r is 2.

        Returns:
            Clusters ``(h, b)`` of the anchors by each head, and its ``[loss, L_pos, L_neg, L_ent,
            L_con]``, ``(h, 5)``.
        """
        with torch.set_grad_enabled(self.settings.trainable is not None):
            read = self._read(output)
        read = read.float()
        logits = apply_heads(self.heads, read)  # (r b / p, h, c)
        log_probs = torch.log_softmax(logits, dim=2).flatten(1).unflatten(0, (n_rows, -1))
        log_probs = self.processes.gather(log_probs)  # (r, b, h c)
        log_probs = log_probs.unflatten(2, (len(self.heads), -1))  # (r, b, h, c)
        con = log_probs.new_zeros(())
        if self.projector is not None:
            projected = self.projector(read).unflatten(0, (n_rows, -1))  # (r, b / p, e)
            views = self.processes.gather(projected[:2]).transpose(0, 1)  # (b, 2, e)
            con = contrastive_loss(views, temperature=CONTRASTIVE_TEMPERATURE)
        losses = self._losses(log_probs, is_far, con)  # (h, 5)
        losses[:, 0].sum().backward()
        self.n_waiting += 1
        if self.n_waiting == self.settings.accumulation:
            self.step()
        return log_probs[0].argmax(2).T, losses.detach()

    def step(self) -> None:
        """Take the step of the batches since the last one, by their mean gradient."""
        if not self.n_waiting:
            return
        self.processes.sum_gradients(self.parameters)
        if self.n_waiting > 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad /= self.n_waiting
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        self.n_steps, self.n_waiting = self.n_steps + 1, 0

    def state(self) -> dict[str, Any]:
        """All that changes, between two epochs."""
        return {
            "parameters": [parameter.detach() for parameter in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "n_steps": self.n_steps,
            "past": self.past,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        for parameter, kept in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.n_steps = state["n_steps"]
        past = state["past"]
        self.past = None if past is None else past.to(self.parameters[0].device)

    def _read(self, output: TrunkOutput) -> Tensor:
        """What the head is given: features ``(r b, d)`` or tokens ``(r b, t, d)``."""
        if self.heads[0].reads_tokens:
            return self.backbone.features_and_tokens(output)[1]
        return self.backbone.features_of(output)

    def _losses(self, log_probs: Tensor, is_far: Tensor | None, con: Tensor) -> Tensor:
        """Eq. 9 with A.9's term for each head, ``[loss, L_pos, L_neg, L_ent, L_con]``, ``(h, 5)``.

        A.9's term, which reads no head, counts once in the sum over the heads.
        """
        settings, momentum = self.settings, self.settings.entropy_momentum
        anchors, positives = log_probs[0], log_probs[1]  # (b, h, c)
        pos = positive_loss(anchors, positives)  # (h,), as the others
        if is_far is None:
            neg = negative_loss(anchors, log_probs[2])
        else:
            neg = batch_negative_loss(anchors, is_far)
        ent = entropy_loss(anchors, self.past, momentum=momentum)
        if momentum:
            mean = anchors.detach().exp().mean(0)  # (h, c)
            self.past = mean if self.past is None else torch.lerp(mean, self.past, momentum)
        loss = settings.lambda_pos * pos + settings.lambda_neg * neg + settings.lambda_ent * ent
        loss = loss + settings.lambda_con / len(self.heads) * con
        return torch.stack([loss, pos, neg, ent, con.expand_as(pos)], dim=1)


def _make_scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, n_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=n_steps)
