"""Sets of small images that come as arrays: STL-10, CIFAR-10, CIFAR-100, Fashion-MNIST.

The files are those that torchvision reads, below the same root. An image id is split and row, such
as ``train/17``.
"""

import gzip
import math
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.images.images import ArrayImages
from unic.images.readers.annotations import Annotations, Catalog
from unic.images.readers.layouts import require
from unic.storage.files import first_line

_CIFAR10_BATCHES = {
    "train": tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
    "test": ("cifar-10-batches-py/test_batch",),
}
_CIFAR100_BATCHES = {"train": ("cifar-100-python/train",), "test": ("cifar-100-python/test",)}
_FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_CIFAR_BYTES = 3 * 32 * 32
_STL10_SHAPE = (3, 96, 96)  # channel, column, row


class ArraySet(NamedTuple):
    """How a set is read: each function takes the root, and all but the last the split."""

    labels: Callable[[Path, str], NDArray[np.int64]]  # (n,)
    pixels: Callable[[Path, str], NDArray[np.uint8]]  # (n, h, w, 3)
    class_names: Callable[[Path], list[str]]


def read_rows(name: str, root: Path) -> Catalog:
    """List the rows of a set: the training split first, in the order of the files.

    Raises:
        FileNotFoundError: If a file is missing; says how they must lie.
        ValueError: If a file is damaged, or there are not as many labels as images.
    """
    reader = ARRAY_SETS[name]
    labels = {split: reader.labels(root, split) for split in ("train", "test")}
    names = reader.class_names(root)
    for split, numbers in labels.items():
        if len(numbers) == 0 or numbers.min() < 0 or numbers.max() >= len(names):
            raise ValueError(
                f"the {split} labels of {name} below {root} must be of {len(names)} classes, got "
                f"{sorted(set(numbers.tolist()))}"
            )
    ids = {s: [f"{s}/{row}" for row in range(len(found))] for s, found in labels.items()}
    return Catalog(ids, Annotations(labels, names))


def open_rows(name: str, ids: Sequence[str], root: Path) -> ArrayImages:
    """Open images by their ids: uint8, shape ``(h, w, 3)`` each.

    Args:
        name: One of ``ARRAY_SETS``.
        ids: Such as ``train/17``, in the order that is wanted.
        root: ``data.root``.

    Raises:
        FileNotFoundError: If a file is missing; says how they must lie.
        ValueError: If a file is damaged, or has fewer rows than the ids say.
    """
    places = [(split, int(row)) for split, _, row in (i.partition("/") for i in ids)]
    pixels = {s: ARRAY_SETS[name].pixels(root, s) for s in sorted({s for s, _ in places})}
    beyond = [f"{s}/{row}" for s, row in places if row >= len(pixels[s])]
    if beyond:
        raise ValueError(f"{name} below {root} must have the images of the index, not {beyond[0]}")
    return ArrayImages(ids, np.stack([pixels[split][row] for split, row in places]))


def _stl10_labels(root: Path, split: str) -> NDArray[np.int64]:
    path = root / f"stl10_binary/{split}_y.bin"
    _require_stl10(root)
    labels = np.fromfile(path, dtype=np.uint8).astype(np.int64) - 1
    _check_as_many(path, len(labels), len(_stl10_pixels(root, split)))
    return labels


def _stl10_pixels(root: Path, split: str) -> NDArray[np.uint8]:
    _require_stl10(root)
    path = root / f"stl10_binary/{split}_X.bin"
    if path.stat().st_size == 0 or path.stat().st_size % np.prod(_STL10_SHAPE):
        raise ValueError(f"{path} must hold images of 27,648 bytes, has {path.stat().st_size:,}")
    stored = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, *_STL10_SHAPE)
    return stored.transpose(0, 3, 2, 1)  # (n, 96, 96, 3)


def _stl10_names(root: Path) -> list[str]:
    _require_stl10(root)
    return (root / "stl10_binary/class_names.txt").read_text().split()


def _require_stl10(root: Path) -> None:
    names = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    require("stl10", root, [f"stl10_binary/{name}" for name in names])


def _cifar10_labels(root: Path, split: str) -> NDArray[np.int64]:
    batches = _read_pickles("cifar10", root, _CIFAR10_BATCHES[split], labels=int, data=np.ndarray)
    for path, batch in zip(_CIFAR10_BATCHES[split], batches, strict=True):
        _check_as_many(root / path, len(batch["labels"]), len(batch["data"]))
    return np.concatenate([np.array(batch["labels"], dtype=np.int64) for batch in batches])


def _cifar10_pixels(root: Path, split: str) -> NDArray[np.uint8]:
    return _cifar_pixels(_read_pickles("cifar10", root, _CIFAR10_BATCHES[split], data=np.ndarray))


def _cifar10_names(root: Path) -> list[str]:
    paths = ["cifar-10-batches-py/batches.meta"]
    (meta,) = _read_pickles("cifar10", root, paths, label_names=str)
    return list(meta["label_names"])


def _cifar100_labels(root: Path, split: str) -> NDArray[np.int64]:
    paths = _CIFAR100_BATCHES[split]
    (batch,) = _read_pickles("cifar100", root, paths, fine_labels=int, data=np.ndarray)
    _check_as_many(root / paths[0], len(batch["fine_labels"]), len(batch["data"]))
    return np.array(batch["fine_labels"], dtype=np.int64)


def _cifar100_pixels(root: Path, split: str) -> NDArray[np.uint8]:
    return _cifar_pixels(_read_pickles("cifar100", root, _CIFAR100_BATCHES[split], data=np.ndarray))


def _cifar100_names(root: Path) -> list[str]:
    (meta,) = _read_pickles("cifar100", root, ["cifar-100-python/meta"], fine_label_names=str)
    return list(meta["fine_label_names"])


def _cifar_pixels(batches: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
    rows = np.concatenate([batch["data"] for batch in batches])  # (n, 3072)
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # (n, 32, 32, 3)


def _check_as_many(where: Path, n_labels: int, n_images: int) -> None:
    if n_labels != n_images:
        raise ValueError(f"{where}: every image must have a label, got {n_labels} of {n_images}")


def _fashion_labels(root: Path, split: str) -> NDArray[np.int64]:
    labels = _read_idx(root, split, "labels-idx1-ubyte", n_axes=1).astype(np.int64)
    n_images = len(_read_idx(root, split, "images-idx3-ubyte", n_axes=3))
    _check_as_many(root / f"FashionMNIST/raw, {split}", len(labels), n_images)
    return labels


def _fashion_pixels(root: Path, split: str) -> NDArray[np.uint8]:
    gray = _read_idx(root, split, "images-idx3-ubyte", n_axes=3)  # (n, 28, 28)
    return np.broadcast_to(gray[..., None], (*gray.shape, 3))


def _fashion_names(_: Path) -> list[str]:
    return list(_FASHION_NAMES)


ARRAY_SETS = {
    "stl10": ArraySet(_stl10_labels, _stl10_pixels, _stl10_names),
    "cifar10": ArraySet(_cifar10_labels, _cifar10_pixels, _cifar10_names),
    "cifar100": ArraySet(_cifar100_labels, _cifar100_pixels, _cifar100_names),
    "fashion_mnist": ArraySet(_fashion_labels, _fashion_pixels, _fashion_names),
}


def _read_idx(root: Path, split: str, kind: str, *, n_axes: int) -> NDArray[np.uint8]:
    """An array in the IDX format of MNIST, compressed or not: 8-bit, big-endian sizes first."""
    plain = f"FashionMNIST/raw/{'train' if split == 'train' else 't10k'}-{kind}"
    is_plain = (root / plain).is_file() or not (root / f"{plain}.gz").is_file()
    require("fashion_mnist", root, [plain if is_plain else f"{plain}.gz"])
    path = root / (plain if is_plain else f"{plain}.gz")
    try:
        content = path.read_bytes() if is_plain else gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be compressed by gzip, cannot read it: {error}") from None
    start = 4 + 4 * n_axes
    if len(content) < start or content[:4] != bytes([0, 0, 8, n_axes]):
        raise ValueError(f"{path} must begin with 00 00 08 {n_axes:02}, got {content[:4].hex(' ')}")
    shape = np.frombuffer(content, dtype=">u4", count=n_axes, offset=4).tolist()
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path} must hold {math.prod(shape):,} values, has {len(content) - start:,}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _read_pickles(
    name: str, root: Path, paths: Sequence[str], **kinds: type
) -> list[dict[str, Any]]:
    """Batches of CIFAR, which are pickles; nothing in them is run.

    Args:
        name: Data set.
        root: ``data.root``.
        paths: Files below the root.
        **kinds: What each batch must hold by name: lists, or arrays of bytes.
    """
    require(name, root, paths)
    batches = []
    for path in paths:
        with (root / path).open("rb") as file:
            try:
                batch = _ArrayUnpickler(file, encoding="latin1").load()
                batches.append({key: _take(batch, key, kind) for key, kind in kinds.items()})
            except Exception as error:  # pickle raises all sorts on damaged files
                raise ValueError(
                    f"{root / path} must be a batch of {name}: {first_line(error)}"
                ) from None
    return batches


def _take(batch: Any, key: str, kind: type) -> Any:
    """An entry of a batch, of one kind: a list of one type, or the rows of 32 x 32 pixels."""
    found = batch[key]
    if kind is np.ndarray:
        return found.rows()
    if type(found) is not list or any(type(value) is not kind for value in found):
        raise ValueError(f"{key} must be a list of {kind.__name__}")
    return found


class _PickledType:
    """Stands for ``numpy.dtype``: notes what it is called with, which is ``u1`` of pixels."""

    def __init__(self, kind: str, *_: Any) -> None:
        self.kind = kind

    def __setstate__(self, _: Any) -> None:
        """Ignore the state, which is the order of bytes: uint8 has none."""


class _PickledArray:
    """Stands for ``numpy.ndarray``, which can be told to read memory that is not its own."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def rows(self) -> NDArray[np.uint8]:
        """Pixels ``(n, 3072)``."""
        _, shape, kind, is_fortran, content = self.state
        if kind.kind != "u1" or is_fortran or len(shape) != 2 or shape[1] != _CIFAR_BYTES:
            raise ValueError(f"data must be uint8 of shape (n, {_CIFAR_BYTES}), got {shape}")
        raw = content.encode("latin1") if isinstance(content, str) else content
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


class _Reconstruct(_PickledArray):
    """Stands for numpy's function of that name, which makes an array for its state to fill."""


_PICKLED = {
    "numpy.ndarray": _PickledArray,
    "numpy.dtype": _PickledType,
    "numpy.core.multiarray._reconstruct": _Reconstruct,
    "numpy._core.multiarray._reconstruct": _Reconstruct,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads numbers, texts, containers and arrays; refuses all that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Give our stand-in for one of the few names that arrays need."""
        if f"{module}.{name}" not in _PICKLED:
            raise pickle.UnpicklingError(f"it must hold nothing but arrays, got {module}.{name}")
        return _PICKLED[f"{module}.{name}"]

    def persistent_load(self, identity: Any) -> Any:
        """Refuse a link to an object outside of the file."""
        raise pickle.UnpicklingError(f"it must hold nothing but arrays, got a link to {identity}")
