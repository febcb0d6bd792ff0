"""Evaluation views of JPEG files: PIL alone against ours, images a second, one thread.

Processor seconds, the best of some rounds, interleaved, files in the page cache.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from unic.images.images import FileImages
from unic.images.views import View, prepare_image

VIEW = View(image_size=224, crop_pct=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
Pixels = NDArray[np.uint8]


def write_photographs(folder: Path, n_images: int) -> list[Path]:
    """JPEG files of 500 x 375, about 110 kB: smooth colors, and noise for the details."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(n_images)]
    for path in paths:
        coarse = Image.fromarray(generator.integers(256, size=(24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.float64)
        noisy = smooth + generator.normal(0, 8, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return paths


def by_pil(path: Path) -> Pixels:
    with Image.open(path) as image:
        pixels = image.convert("RGB")
    size = round(VIEW.image_size / VIEW.crop_pct)
    scale = size / min(pixels.size)
    whole = pixels.resize(
        (int(pixels.width * scale), int(pixels.height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (round((side - VIEW.image_size) / 2) for side in whole.size)
    return np.asarray(whole.crop((left, top, left + VIEW.image_size, top + VIEW.image_size)))


def by_us(path: Path) -> Pixels:
    pixels = FileImages([path.name], str(path.parent))[0]
    return prepare_image(pixels, VIEW).permute(1, 2, 0).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Callable[[Path], Pixels]] = {"PIL": by_pil, "ours": by_us}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), arguments.images)
        seconds = dict.fromkeys(ways, np.inf)
        for _ in range(arguments.repeats):
            for name, way in ways.items():
                start = time.process_time()
                for path in paths:
                    way(path)
                seconds[name] = min(seconds[name], time.process_time() - start)
        for name, way in ways.items():
            pairs = [(way(path).astype(int), by_pil(path)) for path in paths]
            largest = max(abs(found - expected).max() for found, expected in pairs)
            mean = np.mean([abs(found - expected).mean() for found, expected in pairs])
            print(
                f"{name}: {len(paths) / seconds[name]:.0f} images/s, differs from PIL by at most "
                f"{largest}, mean {mean:.4f}"
            )
    print(f"ratio_decode {seconds['PIL'] / seconds['ours']:.2f}")


if __name__ == "__main__":
    main()
