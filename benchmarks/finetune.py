"""Time an anchor of a finetuning step: the plain one, ours with fresh views and with cached ones.

Plain is what peers do: float32, the frozen trunk under no_grad in one pass over anchors, positives
and negatives, the whole last block with autograd. All steps take the optimizer's step. Steps are
interleaved, the best of the repetitions counts. Cached views are read from a file. Shares are those
of the products that a step takes, of the peak in float32, measured in the same run.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import devices
from unic.features.cached_views import CachedViews, extract_tokens
from unic.features.frozen import FrozenBackbone
from unic.images.images import ArrayImages
from unic.images.loaders import ViewLoader
from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.engines import Engine
from unic.models.heads import ClusterHead
from unic.runtime.memory import keep_freed_memory
from unic.training.losses import batch_negative_loss, entropy_loss, negative_loss, positive_loss
from unic.training.step import FinetuningSettings, Trainer

MODELS = {
    "vit_small_patch16_224": "ViT-S/16",
    "vit_base_patch16_224": "ViT-B/16",
    "mobilenetv2_100": "MobileNetV2",
}
SETTINGS = FinetuningSettings(
    trainable="last_block",
    epochs=1000,
    batch_size=128,
    learning_rate=1e-4,
    weight_decay=0.0,
    lambda_pos=1.0,
    lambda_neg=1.0,
    lambda_ent=3.0,
)
Step = Callable[[], object]


class Setup(NamedTuple):
    """What a step trains, and on what."""

    backbone: Backbone
    head: ClusterHead
    loader: ViewLoader
    device: torch.device

    @property
    def parameters(self) -> list[Tensor]:
        """What is trained."""
        return [*self.backbone.block.parameters(), *self.head.parameters()]

    def trainer(self) -> Trainer:
        """Our step."""
        return Trainer(self.backbone, [self.head], SETTINGS, 1000)


def make_setup(name: str, n_images: int, device: torch.device, n_clusters: int = 50) -> Setup:
    backbone = load_backbone(name, weights="random", options={}, image_size=224).to(device)
    backbone.set_trainable("last_block")
    head = ClusterHead(
        backbone.n_dims, n_clusters, width=2048, generator=torch.Generator().manual_seed(0)
    ).to(device)
    shape = (n_images, 224, 224, 3)
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    view = View(224, 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = ArrayImages([str(row) for row in range(n_images)], pixels)
    return Setup(backbone, head, ViewLoader(images, view), device)


def plain_step(setup: Setup, images: Tensor, is_far: Tensor | None = None) -> Tensor:
    """Gradients of the plain step; ``(3 b, 3, s, s)`` images, or ``(2 b, ...)`` with far pairs."""
    n_rows = 3 if is_far is None else 2
    with torch.no_grad():
        tokens = setup.backbone.trunk(images)
    features = setup.backbone.last_block(tokens)
    log_probs = torch.log_softmax(setup.head(features), dim=1).unflatten(0, (n_rows, -1))
    loss = positive_loss(log_probs[0], log_probs[1]) + 3 * entropy_loss(log_probs[0])
    if is_far is None:
        loss = loss + negative_loss(log_probs[0], log_probs[2])
    else:
        loss = loss + batch_negative_loss(log_probs[0], is_far)
    loss.backward()
    return loss


def gradient(setup: Setup, step: Step) -> Tensor:
    for parameter in setup.parameters:
        parameter.grad = None
    step()
    found = torch.cat([p.grad.flatten() for p in setup.parameters if p.grad is not None])
    return found.clone()


class Holding(Trainer):
    """Keeps the gradients of a batch instead of taking a step."""

    def step(self) -> None:
        """Take none."""
        self.n_waiting = 0


def gradient_errors(setup: Setup, cached: CachedViews, images: Tensor) -> dict[str, float]:
    """Relative error of the gradient of block and head against the plain step."""
    n_anchors = len(images) // 3
    is_far = ~torch.eye(n_anchors, dtype=torch.bool, device=setup.device)
    trainer = Holding(setup.backbone, [setup.head], SETTINGS, 1000)
    rows = np.arange(len(images)).reshape(3, -1)

    def fresh(precision: torch.dtype, n_rows: int, far: Tensor | None = None) -> Step:
        shown = images[: n_rows * n_anchors]

        def step() -> object:
            with torch.no_grad():
                output = setup.backbone.prepare(shown, precision=precision)
            return trainer.train(output, n_rows, far)

        return step

    def from_cache() -> object:
        output = next(cached.batches([rows], np.random.default_rng(0)))
        return trainer.train(output, 3, None)

    drawn = gradient(setup, lambda: plain_step(setup, images))
    paired = gradient(setup, lambda: plain_step(setup, images[: 2 * n_anchors], is_far))
    found = {
        "fresh float32": (gradient(setup, fresh(torch.float32, 3)), drawn),
        "fresh bfloat16": (gradient(setup, fresh(torch.bfloat16, 3)), drawn),
        "fresh bfloat16 in_batch": (gradient(setup, fresh(torch.bfloat16, 2, is_far)), paired),
        "cached": (gradient(setup, from_cache), drawn),
    }
    return {name: float((g - e).norm() / e.norm()) for name, (g, e) in found.items()}


def make_steps(
    setup: Setup, cached: CachedViews, *, n_fresh: int, n_cached: int
) -> dict[str, tuple[Step, int]]:
    """Steps by name, each with its number of anchors."""
    images = next(setup.loader.batches([np.arange(3 * n_fresh)], np.random.default_rng(0)))
    images = images.to(setup.device)
    optimizer = torch.optim.Adam(setup.parameters, lr=1e-4)
    generator = np.random.default_rng(0)
    n_images = cached.layout.n_images

    def plain() -> None:
        optimizer.zero_grad()
        plain_step(setup, images)
        optimizer.step()

    def fresh(precision: torch.dtype, n_rows: int) -> Step:
        trainer, far = setup.trainer(), None
        shown = images[: n_rows * n_fresh]
        if n_rows == 2:
            far = ~torch.eye(n_fresh, dtype=torch.bool, device=setup.device)

        def step() -> object:
            with torch.no_grad():
                output = setup.backbone.prepare(shown, precision=precision)
            return trainer.train(output, n_rows, far)

        return step

    def from_cache(n_rows: int) -> Step:
        trainer, far = setup.trainer(), None
        if n_rows == 2:
            far = ~torch.eye(n_cached, dtype=torch.bool, device=setup.device)

        rows = (generator.integers(n_images, size=(n_rows, n_cached)) for _ in count())
        batches = cached.batches(rows, generator)
        return lambda: trainer.train(next(batches), n_rows, far)

    return {
        "plain": (plain, n_fresh),
        "fresh float32": (fresh(torch.float32, 3), n_fresh),
        "fresh bfloat16": (fresh(torch.bfloat16, 3), n_fresh),
        "fresh bfloat16 in_batch": (fresh(torch.bfloat16, 2), n_fresh),
        "cached": (from_cache(3), n_cached),
        "cached in_batch": (from_cache(2), n_cached),
    }


def measure(
    steps: dict[str, tuple[Step, int]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Milliseconds an anchor, best of the repetitions."""
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(repeats):
        for name, (step, n_anchors) in steps.items():
            spent = 1000 * devices.seconds(step, device) / n_anchors
            best[name] = min(best[name], spent)
    return best


def compare(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    device = arguments.device
    setup = make_setup(name, max(arguments.images, 3 * arguments.batch), device)
    header = folder / f"{name}.json"
    layout = extract_tokens(
        header,
        setup.loader,
        FrozenBackbone(setup.backbone, Engine("torch", torch.float32, device)),
        n_views=1,
        dtype=arguments.dtype,
        batch_size=16,
        seed=0,
        parameters={},
    )
    cached = CachedViews(header, device=device)
    few = next(setup.loader.batches([np.arange(12)], np.random.default_rng(0))).to(device)
    errors = gradient_errors(setup, cached, few)
    steps = make_steps(setup, cached, n_fresh=arguments.batch, n_cached=arguments.cached_batch)
    flops = {key: devices.count_flops(step) / n for key, (step, n) in steps.items()}  # an anchor
    found = measure(steps, arguments.repeats, device)
    rate = devices.peak(device)
    kilobytes = layout.record_bytes / 1000
    print(f"{MODELS[name]}, {kilobytes:.0f} kB a cached view in {arguments.dtype}")
    for step, spent in found.items():
        error = f"gradient error {errors[step]:.0e}" if step in errors else ""
        share = flops[step] / rate / (spent / 1000)
        print(
            f"  {step:24} {spent:8.2f} ms an anchor {found['plain'] / spent:8.2f} x  "
            f"{share:5.0%} of the peak in float32  {error}"
        )
    return {step: found["plain"] / spent for step, spent in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, default=8, help="anchors of the plain and fresh steps")
    parser.add_argument("--cached-batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=96, help="images of the cached file")
    parser.add_argument("--dtype", choices=["float16", "int8"], default="float16")
    parser.add_argument("--repeats", type=int, default=3)
    devices.add_device(parser)
    arguments = parser.parse_args()
    arguments.device = devices.take_device(arguments.device)
    torch.set_num_threads(1)
    keep_freed_memory()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        ratios = {name: compare(name, Path(folder), arguments) for name in arguments.models}
    shown = ratios.get("vit_base_patch16_224", next(iter(ratios.values())))
    print(f"ratio_fresh_mined {shown['fresh bfloat16']:.2f}")
    print(f"ratio_fresh {shown['fresh bfloat16 in_batch']:.2f}")
    print(f"ratio_cached {shown['cached']:.2f}")


if __name__ == "__main__":
    main()
