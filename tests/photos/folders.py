"""Folders of digits as image files, as somebody might have them."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


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


def write_labels(path: Path, labels: dict[str, object]) -> Path:
    """A CSV file of labels."""
    lines = [f"{image},{label}" for image, label in labels.items()]
    path.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    return path
