"""From JPEG files on disk to a store of features: images a second, and what of it is decoding.

Files of 500 x 375 pixels in the page cache, random weights, all of the workflow's stage but reading
its index. Decoding is measured by itself, over the same images, before and after.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.images import VIEW, write_photographs
from unic.features.frozen import FrozenBackbone
from unic.features.scratch import extract_splits
from unic.images.images import FileImages
from unic.images.loaders import ViewLoader, split_rows
from unic.models.backbones import load_backbone
from unic.runtime.jobs import limit_threads
from unic.runtime.shards import WHOLE
from unic.storage.stores import write_features


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of processors."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--engine", choices=["auto", "torch", "openvino"], default="auto")
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), arguments.images)
        images = FileImages([path.name for path in paths], folder)

        def decode() -> None:
            loader = ViewLoader(images, VIEW, n_workers=arguments.threads, is_read_once=True)
            batches = split_rows(len(images), arguments.batch_size)
            for _ in loader.batches(batches, np.random.default_rng(0)):
                pass

        def extract() -> None:
            backbone = load_backbone(
                arguments.network, weights="random", options={}, image_size=VIEW.image_size
            )
            frozen = FrozenBackbone.choose(
                backbone,
                arguments.engine,
                n_images=len(images),
                precision=getattr(torch, arguments.precision),
                device=torch.device("cpu"),
                only_features=True,
            )
            store = Path(folder, "features.zarr")
            with extract_splits(
                {"train": images},
                frozen,
                VIEW,
                shard=WHOLE,
                batch_size=arguments.batch_size,
                store=store,
                parameters={},
                n_workers=arguments.threads,
            ) as (features, ids):
                write_features(store / "zarr.json", features, ids, backbone=arguments.network)
            print(f"engine {frozen.engine.describe()}, {arguments.threads} threads")

        before, whole, after = measure(decode), measure(extract), measure(decode)
    decoding = (before[1] + after[1]) / 2
    print(
        f"{len(images) / whole[0]:.1f} images a second; {1000 * whole[1] / len(images):.1f} ms of "
        f"processor an image, {100 * decoding / whole[1]:.0f} % of it decoding"
    )


if __name__ == "__main__":
    main()
