"""Training steps on frozen features: their time against that of their products alone.

A step draws the features of anchors, positives and negatives, and trains all heads. The peak is the
rate of one large product of float32, measured between the steps; products are those that the step
takes, forward and backward.
"""

import argparse
from itertools import count, product

import numpy as np
import torch

from benchmarks.devices import add_device, count_flops, describe, peak, seconds, take_device
from unic.features.sources import FrozenFeatures
from unic.models.backbones import Backbone, load_backbone
from unic.models.heads import make_head
from unic.runtime.memory import keep_freed_memory
from unic.training.step import FinetuningSettings, Trainer

MODELS = {768: "vit_base_patch16_224", 1280: "mobilenetv2_100"}  # backbones by their dims
N_IMAGES, WIDTH = 20_000, 2048


class Steps:
    """Steps of one configuration, one after the other."""

    def __init__(
        self,
        backbone: Backbone,
        kind: str,
        *,
        n_heads: int,
        n_clusters: int,
        batch_size: int,
        device: torch.device,
    ):
        self.n_rows = 3 if kind == "mlp" else 2  # linear heads with negatives of the batch
        draw = np.random.default_rng(0)
        features = draw.standard_normal((N_IMAGES, backbone.n_dims), dtype=np.float32)
        generator = torch.Generator().manual_seed(0)
        heads = [
            make_head(
                kind,
                backbone.n_dims,
                n_clusters,
                width=WIDTH,
                generator=generator,
                norm="standardize",
            ).to(device)
            for _ in range(n_heads)
        ]
        settings = FinetuningSettings(
            trainable=None,
            epochs=1000,
            batch_size=batch_size,
            learning_rate=1e-3,
            weight_decay=0.0,
            lambda_pos=1.0,
            lambda_neg=1.0,
            lambda_ent=3.0,
        )
        self.trainer = Trainer(backbone, heads, settings, 1000)
        self.is_far = ~torch.eye(batch_size, dtype=torch.bool, device=device)
        shape = (self.n_rows, batch_size)
        rows = (draw.integers(N_IMAGES, size=shape) for _ in count())
        self.outputs = FrozenFeatures(features, device=device).batches(rows, draw)

    def take(self) -> object:
        """One step."""
        is_far = None if self.n_rows == 3 else self.is_far
        return self.trainer.train(next(self.outputs), self.n_rows, is_far)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", nargs="+", choices=["mlp", "linear"], default=["mlp", "linear"])
    parser.add_argument("--n-heads", nargs="+", type=int, default=[1, 5, 10])
    parser.add_argument("--clusters", nargs="+", type=int, default=[10, 101, 200])
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--d", nargs="+", type=int, choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=7)
    add_device(parser)
    arguments = parser.parse_args()
    device = take_device(arguments.device)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{describe(device)}, float32, head width {WIDTH}")
    print("| head | heads | K | batch | d | step, ms | products at the peak, ms | share |")
    print("|---|---|---|---|---|---|---|---|")
    shares = []
    for d in arguments.d:
        backbone = load_backbone(
            MODELS[d], weights="random", options={}, image_size=224, is_frozen=True
        ).to(device)
        grid = product(arguments.heads, arguments.n_heads, arguments.clusters, arguments.batch)
        for kind, n_heads, n_clusters, batch in grid:
            steps = Steps(
                backbone,
                kind,
                n_heads=n_heads,
                n_clusters=n_clusters,
                batch_size=batch,
                device=device,
            )
            flops = count_flops(steps.take)
            spent, rates = [], []
            for _ in range(arguments.repeats):
                spent.append(seconds(steps.take, device))
                rates.append(peak(device, repeats=1))
            step, least = float(np.median(spent)), flops / float(np.median(rates))
            shares.append(least / step)
            print(
                f"| {kind} | {n_heads} | {n_clusters} | {batch} | {d} | {1000 * step:.1f} | "
                f"{1000 * least:.1f} | {least / step:.0%} |",
                flush=True,
            )
    print(f"share_least {min(shares):.2f}")
    print(f"share_median {np.median(shares):.2f}")


if __name__ == "__main__":
    main()
