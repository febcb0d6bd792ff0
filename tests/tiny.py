"""Small copies of every data set in its own file formats, with what must be read from them."""

import gzip
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from unic.images.readers.classes import read_wnids

N_TRAIN, N_TEST = 30, 10
TEN = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
VARIANTS = ["737-200", "A300B4", "Boeing 717", "C-130", "F-16A/B"]


class Tiny(NamedTuple):
    """A data set on disk, and its images in the order in which they must be listed."""

    name: str
    root: str
    labels: dict[str, list[int]]
    colors: dict[str, list[NDArray[np.float64]]]  # mean of each image
    class_names: list[str]
    manifest: str | None = None


class _Picture(NamedTuple):
    split: str
    label: int
    color: NDArray[np.float64]


def _color(number: int) -> NDArray[np.float64]:
    return np.random.default_rng(number).integers(20, 236, size=3).astype(np.float64)


def write_picture(path: Path, number: int) -> NDArray[np.float64]:
    """A JPEG of one color and of a size of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = _color(number)
    size = (16 + number % 5, 18 + number % 3)
    Image.new("RGB", size, tuple(color.astype(int))).save(path, "JPEG", quality=95)
    return color


def _tiny(name: str, root: Path, pictures: Sequence[_Picture], names: Sequence[str]) -> Tiny:
    splits = [p for p in ("train", "test") if any(picture.split == p for picture in pictures)]
    return Tiny(
        name,
        str(root),
        {s: [p.label for p in pictures if p.split == s] for s in splits},
        {s: [p.color for p in pictures if p.split == s] for s in splits},
        list(names),
    )


def draw_labels(n_classes: int, split: str) -> NDArray[np.int64]:
    """Every class comes, in no order."""
    n_images = N_TRAIN if split == "train" else N_TEST
    return np.random.default_rng(len(split)).permutation(np.arange(n_images) % n_classes)


def _noise(split: str, *shape: int) -> NDArray[np.uint8]:
    n_images = N_TRAIN if split == "train" else N_TEST
    generator = np.random.default_rng(7 * len(split))
    return generator.integers(256, size=(n_images, *shape), dtype=np.uint8)


def _tiny_arrays(
    name: str,
    root: Path,
    pixels: dict[str, NDArray[np.uint8]],
    labels: dict[str, NDArray[np.int64]],
    names: Sequence[str],
) -> Tiny:
    colors = {s: list(images.mean((1, 2))) for s, images in pixels.items()}
    return Tiny(name, str(root), {s: x.tolist() for s, x in labels.items()}, colors, list(names))


# Sets of arrays


def write_stl10(root: Path) -> Tiny:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    (folder / "class_names.txt").write_text("\n".join(TEN) + "\n")
    pixels = {split: _noise(split, 96, 96, 3) for split in ("train", "test")}
    labels = {split: draw_labels(10, split) for split in pixels}
    for split, images in pixels.items():  # channels first, each column by column
        images.transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        (labels[split] + 1).astype(np.uint8).tofile(folder / f"{split}_y.bin")
    return _tiny_arrays("stl10", root, pixels, labels, TEN)


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes texts and truth values as Python 2 did, in which CIFAR's batches were made."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _save_string(self, text: str | bytes) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + len(content).to_bytes(4, "little") + content)
        self.memoize(text)

    def _save_truth(self, truth: bool) -> None:
        self.write(pickle.BININT1 + bytes([truth]))

    dispatch[bool] = _save_truth
    dispatch[str] = _save_string
    dispatch[bytes] = _save_string


def write_pickle(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core."))


def write_cifar10(root: Path) -> Tiny:
    folder = root / "cifar-10-batches-py"
    pixels = {split: _noise(split, 32, 32, 3) for split in ("train", "test")}
    labels = {split: draw_labels(10, split) for split in pixels}
    rows = {s: x.transpose(0, 3, 1, 2).reshape(len(x), -1) for s, x in pixels.items()}
    for number in range(5):
        part = slice(6 * number, 6 * number + 6)
        batch = {"data": rows["train"][part], "labels": labels["train"][part].tolist()}
        write_pickle(folder / f"data_batch_{number + 1}", batch)
    test = {"data": rows["test"], "labels": labels["test"].tolist()}
    write_pickle(folder / "test_batch", test)
    write_pickle(folder / "batches.meta", {"label_names": TEN, "num_vis": 3072})
    return _tiny_arrays("cifar10", root, pixels, labels, TEN)


def write_cifar100(root: Path) -> Tiny:
    names = [f"fine {number}" for number in range(100)]
    pixels = {split: _noise(split, 32, 32, 3) for split in ("train", "test")}
    labels = {split: draw_labels(100, split) for split in pixels}
    for split, images in pixels.items():
        batch = {
            "data": images.transpose(0, 3, 1, 2).reshape(len(images), -1),
            "fine_labels": labels[split].tolist(),
            "coarse_labels": (labels[split] % 20).tolist(),
        }
        write_pickle(root / "cifar-100-python" / split, batch)
    meta = {"fine_label_names": names, "coarse_label_names": names[:20]}
    write_pickle(root / "cifar-100-python" / "meta", meta)
    return _tiny_arrays("cifar100", root, pixels, labels, names)


def write_idx(path: Path, array: NDArray[np.uint8], *, compressed: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()
    if compressed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_fashion_mnist(root: Path, *, compressed: bool = False) -> Tiny:
    folder = root / "FashionMNIST" / "raw"
    gray = {split: _noise(split, 28, 28) for split in ("train", "test")}
    labels = {split: draw_labels(10, split) for split in gray}
    for split, images in gray.items():
        begin = "train" if split == "train" else "t10k"
        write_idx(folder / f"{begin}-images-idx3-ubyte", images, compressed=compressed)
        numbers = labels[split].astype(np.uint8)
        write_idx(folder / f"{begin}-labels-idx1-ubyte", numbers, compressed=compressed)
    names = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
    pixels = {split: np.repeat(images[..., None], 3, axis=3) for split, images in gray.items()}
    return _tiny_arrays("fashion_mnist", root, pixels, labels, names.split(","))


# Class folders


def write_folder(root: Path) -> Tiny:
    names = ["ant", "bee", "cat", "dog", "eel"]
    pictures = []
    for split, n_images in (("train", 6), ("test", 2)):
        for label, name in enumerate(names):
            for number in range(n_images):
                path = root / split / name / f"{number}.jpg"
                color = write_picture(path, 31 * label + number)
                pictures.append(_Picture(split, label, color))
    return _tiny("folder", root, pictures, names)


def write_herbarium19(root: Path) -> Tiny:
    names = ["0", "1", "10", "11", "2"]  # sorted as text
    pictures = []
    for split, folder, n_images in (("train", "small-train", 6), ("test", "small-validation", 2)):
        for label, name in enumerate(names):
            for number in range(n_images):
                path = root / folder / name / f"{number}.jpg"
                color = write_picture(path, 31 * label + number)
                pictures.append(_Picture(split, label, color))
    return _tiny("herbarium19", root, pictures, names)


# ImageNet


def write_imagenet(name: str, root: Path) -> Tiny:
    """Class folders, with one of a class that is in no small subset."""
    wnids = read_wnids(name)
    pictures = []
    for split, folder in (("train", "train"), ("test", "val")):
        for label, wnid in enumerate(wnids):
            color = write_picture(root / folder / wnid / f"{wnid}_{label}.JPEG", label)
            pictures.append(_Picture(split, label, color))
        write_picture(root / folder / "n99999999" / "n99999999_1.JPEG", 0)
    return _tiny(name, root, pictures, wnids)


def write_flat_imagenet(name: str, root: Path, *, truth: str = "devkit") -> Tiny:
    """A flat validation folder, two images a class, in the devkit's own numbers of classes."""
    found = write_imagenet(name, root)
    for file in sorted((root / "val").rglob("*.JPEG")):
        file.unlink()
    wnids = [*read_wnids(name), "n99999999"]
    order = np.random.default_rng(0).permutation(np.arange(2 * len(wnids)) % len(wnids))
    pictures = []
    for number, label in enumerate(order.tolist(), start=1):
        color = write_picture(root / "val" / f"ILSVRC2012_val_{number:08}.JPEG", number)
        pictures.append(_Picture("test", label, color))
    for folder in (root / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    if truth == "devkit":
        write_devkit(root / "ILSVRC2012_devkit_t12" / "data", wnids, order)
    else:
        lines = "".join(f"{wnids[label]}\n" for label in order)
        (root / "imagenet_2012_validation_synset_labels.txt").write_text(lines)
    kept = sorted((p for p in pictures if p.label < len(wnids) - 1), key=lambda p: p.label)
    tests = _tiny(name, root, kept, wnids)
    return found._replace(labels=found.labels | tests.labels, colors=found.colors | tests.colors)


def write_devkit(folder: Path, wnids: Sequence[str], order: NDArray[np.int64]) -> None:
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(1).permutation(len(wnids)) + 1  # the devkit has its own order
    synsets = np.zeros(len(wnids), dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    for row, label in enumerate(np.argsort(numbers)):
        synsets[row] = (float(numbers[label]), wnids[label], f"class {label}")
    savemat(folder / "meta.mat", {"synsets": synsets})
    lines = "".join(f"{numbers[label]}\n" for label in order)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


# Fine-grained sets


def write_cub200(root: Path) -> Tiny:
    folder = root / "CUB_200_2011"
    names = ["001.Albatross", "002.Auklet", "003.Bunting", "004.Cardinal", "005.Catbird"]
    generator = np.random.default_rng(0)
    classes = generator.permutation(np.arange(40) % 5)
    is_train = generator.permutation(np.arange(40) < 30)
    pictures, lines = [], []
    for number, (label, train) in enumerate(zip(classes.tolist(), is_train, strict=True), 1):
        path = f"{names[label]}/bird {number}.jpg"
        color = write_picture(folder / "images" / path, number)
        pictures.append(_Picture("train" if train else "test", label, color))
        lines.append((f"{number} {path}", f"{number} {label + 1}", f"{number} {int(train)}"))
    listed = [lines[row] for row in generator.permutation(40)]  # ids count, not lines
    for column, name in enumerate(("images", "image_class_labels", "train_test_split")):
        (folder / f"{name}.txt").write_text("\n".join(line[column] for line in listed) + "\n")
    classes_text = "".join(f"{number} {name}\n" for number, name in enumerate(names, 1))
    (folder / "classes.txt").write_text(classes_text)
    return _tiny("cub200", root, pictures, names)


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012", "BMW M3 2012"]


def write_stanford_cars(root: Path, *, test_in_devkit: bool = False) -> Tiny:
    pictures = []
    (root / "devkit").mkdir(parents=True)
    for split in ("train", "test"):
        labels = draw_labels(len(CARS), split)
        kinds = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
        cars = np.zeros(len(labels), dtype=kinds)
        for row, label in enumerate(labels.tolist()):
            name = f"{row + 1:05}.jpg"
            color = write_picture(root / f"cars_{split}" / name, row + 50 * len(split))
            cars[row] = (39, label + 1, name)
            pictures.append(_Picture(split, label, color))
        name = "cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
        inside = split == "train" or test_in_devkit
        savemat((root / "devkit" if inside else root) / name, {"annotations": cars})
    names = np.array(CARS, dtype=object)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    return _tiny("stanford_cars", root, pictures, CARS)


def write_car_ims(root: Path) -> Tiny:
    root.mkdir(parents=True, exist_ok=True)
    labels = np.sort(np.arange(40) % len(CARS))
    kinds = [(k, "O") for k in ("relative_im_path", "bbox_x1", "class", "test")]
    cars, pictures = np.zeros(40, dtype=kinds), []
    for row, label in enumerate(labels.tolist()):
        path, is_test = f"car_ims/{row + 1:06}.jpg", row % 4 == 3
        color = write_picture(root / path, row)
        cars[row] = (path, 39, label + 1, int(is_test))
        pictures.append(_Picture("test" if is_test else "train", label, color))
    names = np.array(CARS, dtype=object)
    savemat(root / "cars_annos.mat", {"annotations": cars, "class_names": names})
    return _tiny("stanford_cars", root, pictures, CARS)


def write_fgvc_aircraft(root: Path) -> Tiny:
    folder = root / "fgvc-aircraft-2013b" / "data"
    pictures = []
    for split, name in (("train", "trainval"), ("test", "test")):
        lines = []
        for row, variant in enumerate(draw_labels(len(VARIANTS), split).tolist()):
            number = f"{1000 * len(split) + row:07}"
            color = write_picture(folder / "images" / f"{number}.jpg", int(number))
            pictures.append(_Picture(split, variant, color))
            lines.append(f"{number} {VARIANTS[variant]}\n")
        (folder / f"images_variant_{name}.txt").write_text("".join(lines))
    (folder / "variants.txt").write_text("".join(f"{name}\n" for name in VARIANTS))
    return _tiny("fgvc_aircraft", root, pictures, VARIANTS)


# Manifests


def write_manifest(root: Path, *, suffix: str = ".csv", labeled: bool = True) -> Tiny:
    names = ["NA", "ant, red", "bee"]
    rows, pictures = [], []
    for row in np.random.default_rng(0).permutation(40).tolist():
        split, label = ("train" if row < 30 else "test"), row % 3
        color = write_picture(root / "photos" / f"{row}.jpg", row)
        pictures.append(_Picture(split, label, color))
        rows.append((f"photos/{row}.jpg", names[label], split, row))
    table = pd.DataFrame(rows, columns=["path", "label", "split", "weight"])
    path = root / f"list{suffix}"
    table = table if labeled else table.drop(columns="label")
    table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
    return _tiny("manifest", root, pictures, names)._replace(manifest=str(path))


Writer = Callable[[Path], Tiny]
WRITERS: dict[str, Writer] = {
    "stl10": write_stl10,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "fashion_mnist": write_fashion_mnist,
    "fashion_mnist compressed": lambda root: write_fashion_mnist(root, compressed=True),
    "folder": write_folder,
    "herbarium19": write_herbarium19,
    "imagenet50": lambda root: write_imagenet("imagenet50", root),
    "imagenet50 flat": lambda root: write_flat_imagenet("imagenet50", root),
    "imagenet50 listed": lambda root: write_flat_imagenet("imagenet50", root, truth="list"),
    "imagenet100": lambda root: write_imagenet("imagenet100", root),
    "imagenet200": lambda root: write_imagenet("imagenet200", root),
    "imagenet100_gcd": lambda root: write_imagenet("imagenet100_gcd", root),
    "imagenet1k": lambda root: write_imagenet("imagenet1k", root),
    "cub200": write_cub200,
    "stanford_cars": write_stanford_cars,
    "stanford_cars test": lambda root: write_stanford_cars(root, test_in_devkit=True),
    "stanford_cars car_ims": write_car_ims,
    "fgvc_aircraft": write_fgvc_aircraft,
    "manifest": write_manifest,
    "manifest parquet": lambda root: write_manifest(root, suffix=".parquet"),
}
