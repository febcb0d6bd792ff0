"""Folders of digits as image files, as somebody might have them."""

import json
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits

from unic.models.backbones import load_backbone, save_backbone
from unic.models.pretrained import find_pretrained


def write_digits(folder: Path, n_images: int = 60) -> dict[str, int]:
    """The first digits as PNG files of 32 x 32 pixels; file name to class."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    labels = {}
    for row in range(n_images):
        name = f"digit_{row:04d}.png"
        pixels = (digits.images[row] * 255 / 16).round().astype("uint8")
        Image.fromarray(pixels).convert("RGB").resize((32, 32)).save(folder / name)
        labels[name] = int(digits.target[row])
    return labels


def write_blind_backbone(folder: Path) -> Path:
    """The bundled network for digits, but that all its features of a black image are 0."""
    found = find_pretrained("bundled:digits_test_resnet")
    backbone = load_backbone(
        found.name, weights=found.weights, options={}, image_size=found.image_size
    )
    network = backbone.model
    block = network.layer4[-1]  # type: ignore[index]
    before: list[torch.Tensor] = []
    hook = block.act2.register_forward_pre_hook(lambda _, given: before.append(given[0].clone()))
    black = (torch.zeros(3, 1, 1) - torch.tensor(found.mean)[:, None, None]) / found.std[0]
    with torch.no_grad():
        network(black.expand(1, 3, found.image_size, found.image_size))
        hook.remove()
        block.bn2.bias -= before[0].amax((0, 2, 3)).clamp(min=0) + 1e-3
    folder.mkdir()
    save_backbone(folder / "model.safetensors", backbone)
    prepared = {
        "input_size": [3, found.image_size, found.image_size],
        **{"crop_pct": found.crop_pct, "mean": found.mean, "std": found.std},
    }
    config = {"architecture": found.name, "pretrained_cfg": prepared}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_labels(path: Path, labels: dict[str, object]) -> Path:
    """A CSV file of labels."""
    lines = [f"{image},{label}" for image, label in labels.items()]
    path.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    return path
