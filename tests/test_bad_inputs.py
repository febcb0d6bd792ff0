"""Bad inputs, one of each kind: what is said of each. docs/howto/errors.md shows the same table."""

import os
import pickle
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.fuzzing import READERS, SCHEMA
from tests.tiny import (
    write_cifar10,
    write_cub200,
    write_fashion_mnist,
    write_manifest,
    write_stanford_cars,
    write_stl10,
)
from unic.experiments.settings import resolve_experiments
from unic.images.datasets import list_images, open_images, read_labels
from unic.images.decoding import FORMATS, decode_image
from unic.images.index import read_index, read_skipped, write_index
from unic.images.listing import index_images
from unic.models.weights import read_weights
from unic.storage.files import read_parquet, write_parquet

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/howto/errors.md").read_text(encoding="utf-8")


def picture(color: tuple[int, int, int] = (200, 30, 60)) -> Image.Image:
    """A square of one color with a white corner, so that it can be seen upside down."""
    image = Image.new("RGB", (8, 8), color)
    image.paste((255, 255, 255), (0, 0, 4, 4))
    return image


# Images that cannot be decoded: an error that names the file, or a listed skip


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def write_bomb(path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))))


def write_part(path: Path, form: str, share: float = 0.5) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, form)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def write_flipped(path: Path) -> None:
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BAD_IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty file": (Path.touch, "cannot identify image file"),
    "text under the name of an image": (
        lambda path: path.write_text("no image"),
        "cannot identify image file",
    ),
    "truncated JPEG": (lambda path: write_part(path, "JPEG"), "image file is truncated"),
    "truncated PNG": (lambda path: write_part(path, "PNG"), "image file is truncated"),
    "truncated WebP": (lambda path: write_part(path, "WEBP"), "decoder"),
    "flipped bit in a PNG": (write_flipped, "broken"),
    "decompression bomb": (write_bomb, "exceeds limit of"),
    "PostScript, which Pillow would hand to Ghostscript": (
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        "cannot identify image file",
    ),
    "SVG": (
        lambda path: path.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>'),
        "cannot identify image file",
    ),
    "pixels of 32 bits": (
        lambda path: Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(path, "TIFF"),
        "pixels must have 8 or 16 bits, got 32",
    ),
    "link to a file that is gone": (lambda path: path.symlink_to("gone.png"), "No such file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "pipe": (os.mkfifo, "it must be a regular file"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_an_image_that_cannot_be_decoded(kind: str, tmp_path: Path) -> None:
    write, message = BAD_IMAGES[kind]
    for number in range(6):
        picture().save(tmp_path / f"{number}.png")
    write(tmp_path / "bad.jpg")
    root = str(tmp_path)
    ids = index_images("folder", root=root, n_clusters=2, far_rank=5).ids
    with pytest.raises((ValueError, OSError), match=r"bad\.jpg") as caught:
        list(open_images("folder", ids["train"], root=root))
    assert message in str(caught.value)

    listing = index_images(
        "folder", root=root, n_clusters=2, far_rank=5, bad_images="skip", n_workers=2
    )
    assert listing.ids == {"train": [f"{number}.png" for number in range(6)]}
    ((split, image_id, reason),) = listing.skipped
    assert (split, image_id) == ("train", "bad.jpg")
    assert message in reason
    check_row(kind, message)


def test_skipped_images_are_kept_in_the_index(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(4)]
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        for file in names:
            picture().save(tmp_path / name / file)
        (tmp_path / name / "bad,\nname.png").write_text("no image")
    listing = index_images(
        "folder", root=str(tmp_path), n_clusters=2, far_rank=3, bad_images="skip", n_workers=3
    )
    path = tmp_path / "images.parquet"
    write_index(path, listing.ids, name="folder", root=str(tmp_path), skipped=listing.skipped)
    assert read_index(path) == {s: [f"{s}/{name}" for name in names] for s in ("train", "test")}
    assert read_skipped(path) == listing.skipped
    assert [(s.split, s.image_id) for s in listing.skipped] == [
        ("train", "train/bad,\nname.png"),
        ("test", "test/bad,\nname.png"),
    ]


def test_numbers_count_the_images_that_are_left(tmp_path: Path) -> None:
    for number in range(5):
        picture().save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").touch()
    arguments: dict[str, Any] = {"root": str(tmp_path), "n_clusters": 2, "far_rank": 5}
    index_images("folder", **arguments)
    with pytest.raises(ValueError, match="far_rank must be below the 5 training images, got 5"):
        index_images("folder", **arguments, bad_images="skip")


def test_a_split_without_a_good_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").write_text("no image")
    with pytest.raises(ValueError, match=r"none of the 2 can; .* '.*/1\.png'"):
        index_images("folder", root=str(tmp_path), n_clusters=2, far_rank=5, bad_images="skip")


def test_a_label_file_may_name_skipped_images(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n1.png,a\n2.png,b\nbad.png,a\n")
    ids = {"train": ["1.png", "2.png"]}
    found = read_labels("folder", ids, label_file=str(labels), skipped=["bad.png"])
    assert found is not None
    assert found.labels["train"].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"1 labels have no image \(first bad\.png\)"):
        read_labels("folder", ids, label_file=str(labels))


def test_a_manifest_may_name_skipped_images(tmp_path: Path) -> None:
    tiny = write_manifest(tmp_path)
    (tmp_path / "photos" / "7.jpg").write_bytes(b"\xff\xd8 broken")
    arguments: dict[str, Any] = {"root": str(tmp_path), "manifest": tiny.manifest}
    listing = index_images("manifest", **arguments, n_clusters=2, far_rank=5, bad_images="skip")
    assert [image.image_id for image in listing.skipped] == ["photos/7.jpg"]
    found = read_labels("manifest", listing.ids, **arguments)
    assert found is not None
    row = list_images("manifest", **arguments)["train"].index("photos/7.jpg")
    expected = [*tiny.labels["train"][:row], *tiny.labels["train"][row + 1 :]]
    assert found.labels["train"].tolist() == expected


def test_arrays_have_no_image_to_skip() -> None:
    listing = index_images("digits", root=None, n_clusters=2, far_rank=5, bad_images="skip")
    assert listing == (list_images("digits", root=None), [])


# Images that are unusual and right: the first picture, upright, without transparency


def first_of_several(path: Path, form: str) -> None:
    others = [picture((0, 0, 255)), picture((0, 255, 0))]
    picture().save(path, form, save_all=True, append_images=others, lossless=True)


ODD_IMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "animated GIF": ("a.gif", lambda path: first_of_several(path, "GIF")),
    "animated WebP": ("a.webp", lambda path: first_of_several(path, "WEBP")),
    "animated PNG": ("a.png", lambda path: first_of_several(path, "PNG")),
    "TIFF of several pages": ("a.tif", lambda path: first_of_several(path, "TIFF")),
    "palette with transparency": (
        "a.png",
        lambda path: picture().quantize(4).save(path, transparency=0),
    ),
    "suffix of another format": ("a.jpg", lambda path: picture().save(path, "PNG")),
    "no suffix": ("a", lambda path: picture().save(path, "PNG")),
    "name with spaces": ("a b  c.png", lambda path: picture().save(path)),
    "name with a newline": ("a\nb.png", lambda path: picture().save(path)),
    "name with a leading dash": ("-rf.png", lambda path: picture().save(path)),
    "name in unicode": ("ağac 鳥 🐦.png", lambda path: picture().save(path)),
    "name that a shell would run": ("$(touch stolen);`id`.png", lambda path: picture().save(path)),
}


@pytest.mark.parametrize("kind", ODD_IMAGES)
def test_an_unusual_image_is_read(kind: str, tmp_path: Path) -> None:
    name, write = ODD_IMAGES[kind]
    write(tmp_path / name)
    write_index(tmp_path / "images.parquet", {"train": [name]}, name="folder", root=str(tmp_path))
    (image_id,) = read_index(tmp_path / "images.parquet")["train"]
    pixels = open_images("folder", [image_id], root=str(tmp_path))[0]
    np.testing.assert_allclose(pixels, np.asarray(picture()), atol=2)
    check_row(kind, "read")


def test_an_image_of_one_pixel(tmp_path: Path) -> None:
    Image.new("LA", (1, 1), (77, 0)).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png").tolist() == [[[77, 77, 77]]]
    check_row("one pixel, gray with alpha", "read")


def test_no_format_is_handed_to_another_program() -> None:
    assert {"JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM"} <= set(FORMATS)
    assert not {"EPS", "WMF", "HDF5", "GRIB", "BUFR", "FITS", "MPEG"} & set(FORMATS)


def test_a_folder_with_the_name_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    picture().save(tmp_path / "a.jpg" / "1.png")
    assert list_images("folder", root=str(tmp_path)) == {"train": ["a.jpg/1.png"]}
    check_row("folder with the name of an image", "its images are listed")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such name")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png")).touch()
    with pytest.raises(ValueError, match=r"must be UTF-8, got '\\udcff\.png'"):
        list_images("folder", root=str(tmp_path))
    check_row("file name that is not UTF-8", "must be UTF-8, got")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ValueError, match=r"a\.png: .*Permission denied"):
        open_images("folder", ["a.png"], root=str(tmp_path))[0]


# Everything else: the message


class Case(NamedTuple):
    """A bad input, and what is said of it."""

    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    message: str


def damaged(kind: str, damage: Callable[[Path], Any], message: str) -> Case:
    """A case of a reader that tests/fuzzing.py knows, whose file is damaged."""
    reader = READERS[kind]

    def write(folder: Path) -> None:
        reader.write(folder)
        (path,) = folder.glob(reader.files[0])
        damage(path)

    return Case(write, reader.read, message)


def nothing(_: Path) -> None:
    """Nothing is needed."""


def edit(old: str, new: str) -> Callable[[Path], Any]:
    def apply(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return apply


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def junk(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(300))


def latin(path: Path) -> None:
    path.write_bytes("path,label\nphotos/é.jpg,a\n".encode("latin-1"))


def text(content: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(content)


def config(experiment: dict[str, Any], name: str = "toy") -> Case:
    def read(_: Path) -> Any:
        return resolve_experiments({"experiments": {name: experiment}}, SCHEMA)

    return Case(nothing, read, "")


class Memory:
    """A pickle that makes an array of objects out of bytes, which are then taken for addresses."""

    def __reduce__(self) -> Any:
        return (np.ndarray, ((1,), "O", b"A" * 8))


def write_batch(content: Any) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        write_cifar10(folder)
        path = folder / "cifar-10-batches-py" / "data_batch_1"
        path.write_bytes(pickle.dumps(content))

    return write


def write_state_within_itself(folder: Path) -> None:
    state: dict[str, Any] = {}
    state["model"] = state
    torch.save(state, folder / "w.pth")


def write_empty_label(folder: Path) -> None:
    write_manifest(folder, suffix=".parquet")
    table = pd.read_parquet(folder / "list.parquet")
    table.loc[3, "label"] = None
    table.to_parquet(folder / "list.parquet")


def write_few_labels(folder: Path) -> None:
    write_stl10(folder)
    cut(folder / "stl10_binary/train_y.bin")


def write_few_images(folder: Path) -> None:
    write_fashion_mnist(folder)
    path = folder / "FashionMNIST/raw/train-labels-idx1-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:4] + struct.pack(">I", 29) + content[8:-1])


def write_lists(folder: Path) -> None:
    write_cub200(folder)
    edit("1 ", "one ")(folder / "CUB_200_2011/image_class_labels.txt")


def write_bad_mat(folder: Path) -> None:
    write_stanford_cars(folder)
    junk(folder / "devkit/cars_train_annos.mat")


def without_array(path: Path) -> None:
    for file in (path.parent / "train/far_radius").rglob("*"):
        if file.is_file():
            file.unlink()


CASES: dict[str, Case] = {
    "manifest of binary junk": damaged("manifest", junk, "must be a CSV file in UTF-8"),
    "manifest in Latin-1": damaged("manifest", latin, "must be a CSV file in UTF-8"),
    "empty manifest": damaged("manifest", text(""), "must have the column path, got None"),
    "manifest with a column twice": damaged(
        "manifest", edit("path,label,split", "path,label,label"), "must have each column once"
    ),
    "manifest with too many fields": damaged(
        "manifest", edit("train", "train,more,and,more"), "fields a line, line"
    ),
    "manifest path with a zero byte": damaged(
        "manifest", edit("photos", "pho\0tos"), "must have relative paths"
    ),
    "manifest that names a folder": damaged(
        "manifest", text("path\nphotos\n"), "1 are not there (first photos)"
    ),
    "manifest of an unknown split": damaged(
        "manifest", edit("test", "valid"), "must have the splits train and test, got 'valid'"
    ),
    "Parquet manifest cut short": damaged("parquet manifest", cut, "must be a Parquet file"),
    "Parquet manifest with an empty label": Case(
        write_empty_label, READERS["parquet manifest"].read, "must label all images or none"
    ),
    "label file of binary junk": damaged("label file", junk, "must be a CSV file in UTF-8"),
    "label file with a line cut short": damaged(
        "label file", edit(",ant", ""), "1 images have no label"
    ),
    "index cut short": damaged("index", cut, "must be a Parquet file"),
    "store whose zarr.json is no JSON": damaged("store", text("{"), "is damaged: JSONDecodeError"),
    "store whose zarr.json is a list": damaged("store", text("[]"), "is damaged"),
    "store whose zarr.json was edited": damaged(
        "store", edit('"checksums"', '"checks"'), "its digest differs"
    ),
    "store of a version without digests": damaged(
        "store", edit('"digest"', '"other"'), "must have a digest, but unic"
    ),
    "store without an array": damaged("store", without_array, "far_radius is damaged"),
    "flipped bit in a chunk": damaged(
        "store of arrays", lambda path: flip(path.parents[3] / "distances/c/0/0"), "is damaged"
    ),
    "tokens cut short": damaged("tokens", cut, "bytes, got"),
    "flipped bit in tokens": damaged("tokens", flip, "its checksum differs at images 0 to 2"),
    "header of tokens that was edited": damaged(
        "tokens header", edit('"n_views": 2', '"n_views": 3'), "its digest differs"
    ),
    "decoded images without their rows": damaged(
        "decoded", Path.unlink, "must have its rows beside it"
    ),
    "flipped bit in mined rows": damaged("mining checkpoint", flip, "its checksum differs"),
    "torch weights that hold themselves": Case(
        write_state_within_itself,
        lambda folder: read_weights(str(folder / "w.pth")),
        "must hold networks at most 4 levels deep",
    ),
    "safetensors cut short": damaged("safetensors", cut, "cannot read"),
    "flipped bit in a model": damaged("model", flip, "its checksum differs"),
    "bundled weights outside of the package": Case(
        nothing,
        lambda folder: read_weights(f"bundled:../../../{folder}/w"),
        "must be bundled:NAME",
    ),
    "model of an unknown network": damaged(
        "model description", edit("test_resnet", "no_such_net"), "must describe a model"
    ),
    "CIFAR pickle that names memory": Case(
        write_batch({"labels": [1], "data": Memory()}), READERS["cifar"].read, "must be a batch"
    ),
    "CIFAR labels that are no numbers": Case(
        write_batch({"labels": ["1"], "data": 0}), READERS["cifar"].read, "must be a list of int"
    ),
    "STL-10 with fewer labels than images": Case(
        write_few_labels,
        lambda folder: list_images("stl10", root=str(folder)),
        "every image must have a label, got 23 of 30",
    ),
    "IDX with fewer labels than images": Case(
        write_few_images, READERS["plain idx"].read, "every image must have a label, got 29 of 30"
    ),
    "class list with a word for a number": Case(
        write_lists, READERS["cub lists"].read, "must have a number and a value in each line"
    ),
    "damaged MATLAB list": Case(write_bad_mat, READERS["cars lists"].read, "must be a MATLAB file"),
    "metrics.json cut short": damaged("json", cut, "must be JSON in UTF-8, it is damaged"),
    "metrics.json that is a list": damaged("json", text("[1]"), "must hold a JSON object"),
    "experiment name that a shell would run": config({}, "$(touch stolen)")._replace(
        message="does not match"
    ),
    "experiment name that leaves its folder": config({}, "../x")._replace(message="does not match"),
    "unknown value of bad_images": config({"data": {"bad_images": "ignore"}})._replace(
        message="'ignore' is not one of ['error', 'skip']"
    ),
    "key of an earlier version": config({"finetuning": {"views": 8}})._replace(
        message="config: experiments.toy.finetuning.views is now views.n_views"
    ),
    '"off" as an earlier version spelled it': config(
        {"finetuning": {"trainable": "none"}}
    )._replace(message="config: experiments.toy.finetuning.trainable: none is now null"),
    "root that a shell would run": Case(
        nothing,
        lambda folder: list_images("folder", root=f"{folder}/$(touch {folder}/stolen)"),
        "must be a folder of images, there is none at",
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_bad_input_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    write, read, message = CASES[kind]
    write(tmp_path)
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as caught:
        read(tmp_path)
    place = "config: " if str(caught.value).startswith("config: ") else str(tmp_path)
    assert place in str(caught.value)
    assert not (tmp_path / "stolen").exists()
    check_row(kind, message)


def test_a_flipped_bit_in_a_table_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    values = np.random.default_rng(0).integers(2**62, size=1000)
    write_parquet(path, pd.DataFrame({"cluster": values}))
    whole = path.read_bytes()
    place = whole.index(values[40].tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert pd.read_parquet(path)["cluster"][40] == values[40] ^ 1  # no look at the checksum
    with pytest.raises(ValueError, match=r"predictions\.parquet must be a Parquet file"):
        read_parquet(path)
    check_row("flipped bit in a table", "must be a Parquet file")


def test_a_damaged_checkpoint_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = READERS["checkpoint"]
    reader.write(tmp_path)
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    place = whole.index(np.arange(10, 20, dtype=np.float32).tobytes())
    (tmp_path / "checkpoint.pt").write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    assert reader.read(tmp_path) is None
    assert "cannot be read, the training starts anew" in caplog.text
    check_row("flipped bit in a checkpoint", "the training starts anew")


def test_yaml_makes_no_objects(tmp_path: Path) -> None:
    from snakemake.common.configfile import load_configfile

    stolen = tmp_path / "stolen"
    path = tmp_path / "config.yaml"
    path.write_text(f"experiments: !!python/object/apply:os.system ['touch {stolen}']\n")
    with pytest.raises(Exception, match="not valid JSON or YAML"):
        load_configfile(str(path))
    assert not stolen.exists()
    check_row("YAML that makes objects", "not valid JSON or YAML")


# The page


def rows() -> dict[str, str]:
    """Input to what happens, of the tables of docs/howto/errors.md."""
    found = re.findall(r"^\| ([^|]+?) +\| ([^|]+?) +\|$", PAGE, re.MULTILINE)
    return dict(found)


def check_row(kind: str, message: str) -> None:
    assert kind in rows(), f"docs/howto/errors.md must have {kind}"
    assert message.replace("|", "/") in rows()[kind], rows()[kind]


def test_the_page_has_every_kind() -> None:
    kinds = {*BAD_IMAGES, *ODD_IMAGES, *CASES}
    assert kinds <= set(rows())
    assert len(rows()) >= len(kinds) + 20  # with those that other tests look at
    assert len(kinds) >= 40
