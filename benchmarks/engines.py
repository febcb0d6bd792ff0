"""Features of a network by each engine and precision, against timm's eager float32.

Milliseconds of processor an image of 224 pixels, one thread, interleaved, the median of some
rounds, random weights (which change no time). timm runs as it comes, in batches of 32, and in
batches of 4, which fit the cache of a CPU better.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor

from unic.features.frozen import FrozenBackbone
from unic.models.backbones import Backbone
from unic.models.engines import Engine

PEER = "timm, 32"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def in_batches(network: Callable[[Tensor], Tensor], images: Tensor, size: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part) for part in images.split(size)])


def make_ways(name: str, images: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name."""
    network = timm.create_model(name, num_classes=0).eval()
    ways: dict[str, Callable[[], Tensor]] = {
        PEER: lambda: in_batches(network, images, 32),
        "timm, 4": lambda: in_batches(network, images, 4),
    }
    own = timm.create_model(name, num_classes=0).eval()
    own.load_state_dict(network.state_dict())
    backbone = Backbone(own, image_size=224)
    for engine in ("torch", "openvino"):
        for precision, dtype in PRECISIONS.items():
            frozen = FrozenBackbone(
                backbone, Engine(engine, dtype, torch.device("cpu")), only_features=True
            )
            ways[f"{engine}, {precision}"] = lambda frozen=frozen: frozen.features(images)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "networks", nargs="*", default=["mobilenetv2_100", "resnet50", "vit_small_patch16_224"]
    )
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | way | ms an image | times as fast | cosine |\n|---|---|---|---|---|")
    for name in arguments.networks:
        images = torch.rand(
            arguments.images, 3, 224, 224, generator=torch.Generator().manual_seed(0)
        )
        ways = make_ways(name, images)
        expected = ways[PEER]()
        times: dict[str, list[float]] = {way: [] for way in ways}
        cosines = {}
        for _ in range(arguments.rounds):
            for way, compute in ways.items():
                start = time.process_time()
                found = compute()
                times[way].append((time.process_time() - start) / len(images))
                cosines[way] = float(torch.cosine_similarity(found, expected).min())
        medians = {way: 1000 * statistics.median(taken) for way, taken in times.items()}
        for way, median in medians.items():
            ratio = medians[PEER] / median
            print(
                f"| {name} | {way} | {median:.1f} | {ratio:.2f} | {cosines[way]:.6f} |", flush=True
            )


if __name__ == "__main__":
    main()
