"""Features of images by a frozen backbone of random weights: images a second, share of the peak.

Images are on the device already; reading them is measured by benchmarks/images.py.
"""

import argparse
from functools import partial

import torch

from benchmarks.devices import DTYPES, add_device, count_flops, describe, peak, seconds, take_device
from unic.features.frozen import FrozenBackbone
from unic.models.backbones import load_backbone
from unic.models.engines import Engine

MODELS = {"vit_base_patch16_224": "ViT-B/16", "mobilenetv2_100": "MobileNetV2"}
BATCHES = {"cpu": 4, "cuda": 256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batch", type=int, help="images; 4 on a CPU, 256 on a GPU")
    parser.add_argument("--repeats", type=int, default=5)
    add_device(parser)
    arguments = parser.parse_args()
    device = take_device(arguments.device)
    torch.set_num_threads(1)
    batch = arguments.batch or BATCHES[device.type]
    peaks = {name: peak(device, dtype) for name, dtype in DTYPES.items()}
    print(f"{describe(device)}, batches of {batch} at 224 px")
    for model, shown in MODELS.items():
        if model not in arguments.models:
            continue
        backbone = load_backbone(model, weights="random", options={}, image_size=224).to(device)
        images = torch.rand(batch, 3, 224, 224, device=device)
        for precision, dtype in DTYPES.items():
            engine = Engine("torch", dtype, device)
            frozen = FrozenBackbone(backbone, engine, only_features=True)
            run = partial(frozen.features, images)
            flops = count_flops(run)
            spent = seconds(run, device, arguments.repeats)
            share = flops / spent / peaks[precision]
            print(
                f"  {shown:12} {precision:9} {batch / spent:9.1f} images/s, "
                f"{flops / batch / 1e9:.2f} GFLOP an image, {share:.0%} of the peak in {precision}"
            )
            name = shown.lower().replace("/", "").replace("-", "")
            print(f"share_{name}_{precision} {share:.3f}")


if __name__ == "__main__":
    main()
