"""Readers of files that others wrote or that a disk damaged, and ways to damage files.

Whatever a file holds, its reader gives a value or an error of ours that names the file.
"""

import copy
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.tiny import (
    write_cifar10,
    write_cub200,
    write_fashion_mnist,
    write_fgvc_aircraft,
    write_folder,
    write_manifest,
    write_stanford_cars,
)
from unic.experiments.settings import resolve_experiments
from unic.features.cached_views import CachedViews
from unic.features.token_layout import TokenLayout
from unic.images.datasets import list_images, open_images, read_labels
from unic.images.decoded import decode_images, open_decoded
from unic.images.index import read_index, read_source, write_index
from unic.models.trained import ModelDescription, load_model, make_model, save_model
from unic.models.weights import read_weights
from unic.neighbors.exact.finished_rows import FinishedRows
from unic.neighbors.exact.ranking import Ranked
from unic.storage.digests import image_digest
from unic.storage.files import read_json, write_json
from unic.storage.row_files import write_rows
from unic.storage.stores import SHAPES, open_store, write_store
from unic.storage.tensor_files import read_tensors, save_tensors
from unic.training.checkpoint import Checkpoint

SCHEMA = yaml.safe_load(
    (Path(__file__).parents[1] / "workflow/schemas/config.schema.yaml").read_text()
)
LIMITS = (0, 1, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


class Reader(NamedTuple):
    """A reader of files, with a valid input."""

    write: Callable[[Path], Any]  # a valid input into a folder
    files: tuple[str, ...]  # those to be damaged
    read: Callable[[Path], Any]
    tokens: tuple[bytes, ...] = ()  # what its format is made of
    is_checked: bool = False  # by checksums: what is read is what was written
    is_slow: bool = False


# Damage


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, tokens: tuple[bytes, ...] = ()) -> bytes:
    """A valid file with a few changes; at times something else altogether."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=80))
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.sampled_from([0, 1, 2, 4, 8, 64, 1 << 30])))
        content[start:stop] = draw(_pieces(bytes(content), tokens))
    return bytes(content)


def _pieces(content: bytes, tokens: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    formats = [f"{order}{size}" for order in "<>" for size in "BHIQ"]
    numbers = st.builds(
        lambda form, n: struct.pack(form, n % 2 ** (8 * struct.calcsize(form))),
        st.sampled_from(formats),
        st.sampled_from(LIMITS),
    )
    places = st.integers(0, len(content))
    copies = st.builds(lambda at, size: content[at : at + size], places, st.integers(1, 32))
    pieces = [st.just(b""), st.binary(min_size=1, max_size=8), numbers, copies]
    return st.one_of(*pieces, *([st.sampled_from(tokens)] if tokens else []))


def json_values() -> st.SearchStrategy[Any]:
    """Small JSON of every kind."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from([*LIMITS, -1, 0.5, -0.0, 1e308, float("nan"), float("inf")]),
        st.text(max_size=6),
        st.sampled_from(["none", "1e-4", "train", "../x", "/", "\0", "\ud800", "float32", "$(id)"]),
    )
    return st.recursive(leaves, _containers, max_leaves=4)


def _containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.one_of(st.text(max_size=4), st.sampled_from(["train", "shape", "base"]))
    return st.one_of(st.lists(values, max_size=3), st.dictionaries(names, values, max_size=3))


@st.composite
def damaged_tree(draw: st.DrawFn, valid: Any) -> Any:
    """Valid JSON in which values are replaced, removed or added."""
    tree = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        tree = _damage_tree(draw, tree)
    return tree


def _damage_tree(draw: st.DrawFn, tree: Any) -> Any:
    if not isinstance(tree, dict | list) or not tree or draw(st.integers(0, 7)) == 0:
        return draw(json_values())
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    key = draw(st.sampled_from(keys))
    if draw(st.integers(0, 9)) == 0:
        del tree[key]
    else:
        tree[key] = _damage_tree(draw, tree[key])
    return tree


def contents(reader: Reader, valid: bytes, name: str) -> st.SearchStrategy[bytes]:
    """What a damaged file may hold."""
    broken = damaged(valid, reader.tokens)
    if not name.endswith(".json"):
        return broken
    trees = damaged_tree(json.loads(valid)).map(lambda tree: json.dumps(tree).encode())
    return st.one_of(trees, broken)


class Sample(NamedTuple):
    """A valid input in a folder."""

    folder: Path
    names: list[str]  # of the files to be damaged
    valid: dict[str, bytes]  # every file of the folder
    value: Any  # what is read


def write_sample(reader: Reader, folder: Path) -> Sample:
    """Write and read a valid input."""
    reader.write(folder)
    value = reader.read(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = [str(path.relative_to(folder)) for glob in reader.files for path in folder.glob(glob)]
    return Sample(
        folder, names, {str(path.relative_to(folder)): path.read_bytes() for path in files}, value
    )


def cases(reader: Reader, sample: Sample) -> st.SearchStrategy[tuple[str, bytes]]:
    """The name of a file, and what is to be in it."""
    return st.sampled_from(sample.names).flatmap(
        lambda name: st.tuples(st.just(name), contents(reader, sample.valid[name], name))
    )


def check_reader(reader: Reader, sample: Sample, case: tuple[str, bytes]) -> None:
    """Read a damaged file: a value, or an error of ours that names it."""
    name, content = case
    _replace(sample.folder / name, content)
    found, refusal = attempt(lambda: reader.read(sample.folder))
    for other, valid in sample.valid.items():
        if other == name or not (sample.folder / other).is_file():  # readers remove what is stale
            _replace(sample.folder / other, valid)
    assert refusal is None or str(sample.folder) in refusal, refusal
    if reader.is_checked and found is not None:
        assert repr(found) == repr(sample.value)


def _replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # what maps the former file keeps it
    path.write_bytes(content)


# Configurations


CONFIG = {
    "defaults": {"machine": {"device": "cpu"}},
    "experiments": {
        "first": {
            "n_clusters": 10,
            "data": {"name": "cifar10", "root": "data"},
            "neighbors": {"n_neighbors": 5, "far_rank": 100},
            "cleaning": {"max_union_size": 20},
            "gcd": {"old_classes": [0, 1, 2]},
            "backbone": {"options": {"depth": 2}},
        },
        "second": {
            "base": "first",
            "seeds": [1, 2],
            "views": {"n_views": 2, "augmentation": "gcd"},
        },
        "third": {
            "base": "second",
            "gcd": {"old_classes": "published"},
            "backbone": {"weights": "pretrain"},
            "pretraining": {"method": "simgcd", "simgcd": {"start": "random"}},
        },
    },
    "tables": {
        "t": {
            "title": "T",
            "columns": {"ACC": "acc"},
            "rows": [{"name": "UNIC", "experiment": "first", "paper": {"ACC": 90.0}}],
        }
    },
}


def check_config(config: Any) -> None:
    """Resolve a configuration: settings, or an error of ours that names the key."""
    _, refusal = attempt(lambda: resolve_experiments(config, SCHEMA))
    assert refusal is None or refusal.startswith("config"), refusal


def attempt(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """What is read, or the message of an error of ours."""
    try:
        return read(), None
    except (ValueError, OSError) as error:
        return None, str(error)


# Readers


def _labels_of(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        ids = list_images(name, root=str(folder))
        return read_labels(name, ids, root=str(folder))

    return read


def _read_cifar(folder: Path) -> Any:
    ids = list_images("cifar10", root=str(folder))
    return open_images("cifar10", ids["train"][-2:] + ids["test"][:2], root=str(folder))[0]


def _read_fashion(folder: Path) -> Any:
    ids = list_images("fashion_mnist", root=str(folder))
    return open_images("fashion_mnist", ids["train"], root=str(folder))[0]


def _read_manifest(suffix: str) -> Callable[[Path], Any]:
    return lambda f: list_images("manifest", root=str(f), manifest=str(f / f"list{suffix}"))


def _write_label_file(folder: Path) -> None:
    write_folder(folder)
    ids = list_images("folder", root=str(folder))
    rows = [f"{i},{i.split('/')[1]}\n" for found in ids.values() for i in found]
    (folder / "labels.csv").write_text("path,label\n" + "".join(rows))


def _read_label_file(folder: Path) -> Any:
    ids = list_images("folder", root=str(folder))
    return read_labels("folder", ids, root=str(folder), label_file=str(folder / "labels.csv"))


def _write_index(folder: Path) -> None:
    ids = {"train": [f"train/{row}.png" for row in range(5)], "test": ["test/1.png"]}
    write_index(folder / "images.parquet", ids, name="folder", root="/nowhere")


def _read_index(folder: Path) -> Any:
    return read_index(folder / "images.parquet"), read_source(folder / "images.parquet")


def _write_store(folder: Path) -> None:
    arrays = {
        "indices": np.arange(12).reshape(4, 3) % 4,
        "distances": np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3),
        "far_radius": np.ones(4, dtype=np.float32),
    }
    digest = image_digest(["a", "b", "c", "d"])
    path = folder / "n.zarr/zarr.json"
    write_store(path, kind="neighbors", arrays={"train": arrays}, images={"train": digest})


def _read_store(folder: Path) -> Any:
    store = open_store(folder / "n.zarr/zarr.json", kind="neighbors")
    whole = {name: store.read(name) for name in SHAPES["neighbors"]}
    some = {name: store.read_rows(name, np.array([2, 0])) for name in SHAPES["neighbors"]}
    return whole, some, sorted(store.attributes.items())


def _read_rows_of_store(folder: Path) -> Any:
    store = open_store(folder / "n.zarr/zarr.json", kind="neighbors")
    return {name: store.read_rows(name, np.array([2, 0])) for name in SHAPES["neighbors"]}


def _write_tokens(folder: Path) -> None:
    layout = TokenLayout(n_images=3, n_views=2, shape=(2, 4), class_token=4, dtype="int8")
    rows = np.random.default_rng(0).integers(256, size=(3, 2 * layout.record_bytes), dtype="u1")
    about = {
        "kind": "tokens",
        "layout": asdict(layout),
        "images": image_digest("abc"),
        "parameters": {},
    }
    write_rows(
        folder / "tokens.json",
        lambda shard: [rows[shard.start : shard.stop].tobytes()],
        n_rows=3,
        row_bytes=2 * layout.record_bytes,
        about=about,
        key="",
        need="",
    )


def _read_tokens(folder: Path) -> Any:
    views = CachedViews(folder / "tokens.json", device=torch.device("cpu"))
    found = next(views.batches([np.array([[0, 1, 2], [2, 0, 1]])], np.random.default_rng(0)))
    parts = (found.tokens, found.class_token, found.scales)
    return views.layout, views.image_digest, [part.tolist() for part in parts if part is not None]


def _write_decoded(folder: Path) -> None:
    images = open_images("digits", ["3", "4", "5"], root=None)
    decode_images(folder / "decoded.json", {"train": images}, size=8, n_workers=1, parameters={})


def _read_decoded(folder: Path) -> Any:
    images = open_decoded(str(folder / "decoded.json"), ["3", "4", "5"])
    return [images[row].tolist() for row in range(3)]


def _write_checkpoint(folder: Path) -> None:
    state = {"epoch": 3, "parameters": [torch.arange(64.0)], "past": None, "history": [{"a": 0.5}]}
    Checkpoint(folder / "checkpoint.pt", key="key").save(state)


def _read_checkpoint(folder: Path) -> Any:
    return Checkpoint(folder / "checkpoint.pt", key="key").load()


FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def _mining_checkpoint(folder: Path) -> FinishedRows:
    return FinishedRows(
        folder / "rows", FEATURES, n_neighbors=2, far_rank=4, is_bound=False, code="0"
    )


def _write_mining(folder: Path) -> None:
    rows = np.arange(3)
    pairs = np.arange(6).reshape(3, 2)
    ranked = Ranked(rows, pairs, pairs.astype(np.float32), np.ones(3, dtype=np.float32))
    _mining_checkpoint(folder).write(ranked, 0)


def _read_mining(folder: Path) -> Any:
    found = _mining_checkpoint(folder).read()
    return found.tolist() or None  # rows of others are removed


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


def _write_torch_weights(folder: Path) -> None:
    torch.save(
        {"epoch": 1, "teacher": {f"module.{k}": v for k, v in STATE.items()}}, folder / "w.pth"
    )


def _write_old_torch_weights(folder: Path) -> None:
    torch.save({"model": STATE}, folder / "w.pth", _use_new_zipfile_serialization=False)


DESCRIPTION = {
    "name": "test_resnet",
    "options": {},
    "image_size": 32,
    "n_clusters": 3,
    "head": "linear",
    "head_norm": None,
    "head_width": 8,
}


def _write_model(folder: Path) -> None:
    model = make_model(ModelDescription(**DESCRIPTION), weights="random", seed=0)
    save_model(folder / "m.safetensors", model, description=ModelDescription(**DESCRIPTION))


def _read_model(folder: Path) -> Any:
    model = load_model(folder / "m.safetensors")
    states = [*model.backbone.state_dict().items(), *model.head.state_dict().items()]
    return {name: zlib.crc32(tensor.numpy().tobytes()) for name, tensor in states}


def _write_description(folder: Path) -> None:
    _write_model(folder)
    write_json(folder / "description.json", DESCRIPTION)


def _read_description(folder: Path) -> Any:
    """A model whose description is that of a JSON file."""
    path = folder / "m.safetensors"
    described = (folder / "description.json").read_text(encoding="utf-8", errors="replace")
    try:
        about = json.loads(described)
    except (ValueError, RecursionError):
        about = described
    save_tensors(path, read_tensors(path).tensors, about=about)
    return _read_model(folder)


def _write_pictures(folder: Path) -> None:
    from PIL import Image

    gradient = Image.linear_gradient("L").resize((12, 10)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient.save(folder / "a.jpg", exif=exif)
    gradient.save(folder / "a.png", exif=exif)
    gradient.quantize(5).save(folder / "a.gif")
    gradient.save(folder / "a.webp", exif=exif)
    gradient.save(folder / "a.tif", compression="tiff_lzw", exif=exif)
    gradient.save(folder / "a.bmp")
    gradient.save(folder / "a.ppm")


PICTURES = tuple(f"a.{suffix}" for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp", "ppm"))


def _read_pictures(folder: Path) -> Any:
    """The one that was touched last."""
    newest = max((folder / name for name in PICTURES), key=lambda path: path.stat().st_mtime_ns)
    return open_images("folder", [newest.name], root=str(folder))[0].shape


CSV = (
    b",",
    b'"',
    b"\n",
    b"\r",
    b"..",
    b"/",
    b"\0",
    b"\xff",
    b"path",
    b"label",
    b"split",
    b"\xef\xbb\xbf",
)
PICKLE = tuple(
    bytes([code])
    for code in b".(0123BCFGIJKLMNPQRSTUVXabcdeghijlopqrstu}]\x80\x81\x82\x85\x8a\x93\x94\x95"
)
LISTS = (b"0", b"-1", b"x", b" ", b"\n", b"../", b"/", b"\0", b"\xff", b"99999999999999999999")
STORE_METADATA = tuple(f"n.zarr/{n}zarr.json" for n in ("", "train/", "train/distances/"))
STORE_CHUNKS = ("n.zarr/train/indices/c/0/0", "n.zarr/train/distances/c/0/0")
READERS = {
    "manifest": Reader(write_manifest, ("list.csv",), _read_manifest(".csv"), CSV),
    "parquet manifest": Reader(
        lambda folder: write_manifest(folder, suffix=".parquet"),
        ("list.parquet",),
        _read_manifest(".parquet"),
    ),
    "label file": Reader(_write_label_file, ("labels.csv",), _read_label_file, CSV),
    "index": Reader(_write_index, ("images.parquet",), _read_index),
    "store": Reader(_write_store, STORE_METADATA, _read_store, is_checked=True),
    "store of arrays": Reader(_write_store, STORE_CHUNKS, _read_store, is_checked=True),
    "rows of a store": Reader(_write_store, STORE_CHUNKS, _read_rows_of_store, is_checked=True),
    "tokens header": Reader(_write_tokens, ("tokens.json",), _read_tokens),
    "tokens": Reader(_write_tokens, ("tokens.bin",), _read_tokens, is_checked=True),
    "decoded header": Reader(_write_decoded, ("decoded.json",), _read_decoded),
    "decoded": Reader(_write_decoded, ("decoded.bin",), _read_decoded, is_checked=True),
    "checkpoint": Reader(_write_checkpoint, ("checkpoint.pt",), _read_checkpoint, PICKLE, True),
    "mining manifest": Reader(_write_mining, ("rows/manifest.json",), _read_mining),
    "mining checkpoint": Reader(_write_mining, ("rows/*.npy",), _read_mining, (), True),
    "torch weights": Reader(
        _write_torch_weights, ("w.pth",), lambda f: read_weights(str(f / "w.pth")), PICKLE
    ),
    "old torch weights": Reader(
        _write_old_torch_weights, ("w.pth",), lambda f: read_weights(str(f / "w.pth")), PICKLE
    ),
    "safetensors": Reader(
        lambda folder: save_file(STATE, folder / "w.safetensors"),
        ("w.safetensors",),
        lambda folder: read_weights(str(folder / "w.safetensors")),
    ),
    "model": Reader(_write_model, ("m.safetensors",), _read_model, is_checked=True),
    "model description": Reader(_write_description, ("description.json",), _read_description),
    "cifar": Reader(
        write_cifar10,
        ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/batches.meta"),
        _read_cifar,
        PICKLE,
    ),
    "idx": Reader(
        lambda folder: write_fashion_mnist(folder, compressed=True),
        (
            "FashionMNIST/raw/train-images-idx3-ubyte.gz",
            "FashionMNIST/raw/train-labels-idx1-ubyte.gz",
        ),
        _read_fashion,
    ),
    "plain idx": Reader(
        write_fashion_mnist,
        ("FashionMNIST/raw/train-images-idx3-ubyte", "FashionMNIST/raw/train-labels-idx1-ubyte"),
        _read_fashion,
    ),
    "cub lists": Reader(
        write_cub200,
        tuple(
            f"CUB_200_2011/{name}.txt"
            for name in ("images", "image_class_labels", "train_test_split", "classes")
        ),
        _labels_of("cub200"),
        LISTS,
    ),
    "aircraft lists": Reader(
        write_fgvc_aircraft,
        tuple(
            f"fgvc-aircraft-2013b/data/{name}.txt" for name in ("variants", "images_variant_test")
        ),
        _labels_of("fgvc_aircraft"),
        LISTS,
    ),
    "cars lists": Reader(
        write_stanford_cars,
        ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat"),
        _labels_of("stanford_cars"),
        is_slow=True,
    ),
    "json": Reader(
        lambda folder: write_json(folder / "m.json", {"a": 1, "b": [1, {"c": None}]}),
        ("m.json",),
        lambda folder: read_json(folder / "m.json"),
    ),
    "pictures": Reader(_write_pictures, PICTURES, _read_pictures),
}
