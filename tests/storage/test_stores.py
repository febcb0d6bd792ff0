import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

import unic
from unic.storage.digests import image_digest
from unic.storage.stores import (
    SHAPES,
    Store,
    check_images,
    check_same_images,
    check_store_room,
    encode_image_ids,
    image_digests,
    open_store,
    read_splits,
    write_derived,
    write_features,
    write_known_labels,
    write_labels,
    write_store,
)

SIZES = {"n": 30, "d": 7, "k": 4, "m": 5, "w": 6, "axis": 2}
IDS = {"train": [f"{row}.png" for row in range(30)], "test": ["b/ü.png", "日本.jpg", "a b.png"]}
IDS_OF_TRAIN = {"train": IDS["train"]}
ALL_KINDS = pytest.mark.parametrize("kind", list(SHAPES))
Arrays = dict[str, NDArray[Any]]


def draw_arrays(kind: str, *, n_images: int = 30, seed: int = 0) -> Arrays:
    generator = np.random.default_rng(seed)
    sizes = {**SIZES, "n": n_images}
    return {
        name: generator.integers(0, 100, size=[sizes[dim] for dim in dims.split()]).astype(dtype)
        for name, (dims, dtype) in SHAPES[kind].items()
    }


def write(
    folder: Path, kind: str, *, seed: int = 0, n_images: int = 30, name: str = "store.zarr"
) -> Path:
    manifest = folder / name / "zarr.json"
    write_store(
        manifest,
        kind=kind,
        arrays={"train": draw_arrays(kind, seed=seed, n_images=n_images)},
        images={"train": image_digest(IDS["train"][:n_images])},
        parameters={"n_neighbors": 4, "backbone": None},
    )
    return manifest


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def chunk_of(manifest: Path, name: str) -> Path:
    return next(
        path for path in (manifest.parent / "train" / name / "c").rglob("*") if path.is_file()
    )


# Round trips


@ALL_KINDS
@pytest.mark.parametrize("n_images", [1, 30])
def test_what_is_written_is_read(tmp_path: Path, kind: str, n_images: int) -> None:
    manifest = write(tmp_path, kind, n_images=n_images)
    expected = draw_arrays(kind, n_images=n_images)
    for path in (manifest, manifest.parent, str(manifest)):
        store = open_store(path, kind=kind)
        found = {name: store.read(name) for name in SHAPES[kind]}
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].dtype == SHAPES[kind][name][1]
            np.testing.assert_array_equal(found[name], array)


def test_refuses_parameters_of_a_stage_that_a_store_does_not_name(tmp_path: Path) -> None:
    store = open_store(write(tmp_path, "neighbors"), kind="neighbors")
    assert store.parameters("neighbors") == {"n_neighbors": 4, "backbone": None}
    message = r"must hold the parameters of the features it is made from, but unic"
    with pytest.raises(ValueError, match=message):
        store.parameters("features")


@ALL_KINDS
def test_a_store_describes_itself(tmp_path: Path, kind: str) -> None:
    store = open_store(write(tmp_path, kind), kind=kind)
    assert store.splits == ["train"]
    assert store.attributes["kind"] == kind
    assert store.attributes["unic_version"] == unic.__version__
    assert store.attributes["parameters"] == {kind: {"n_neighbors": 4, "backbone": None}}
    assert store.attributes["images"] == {"train": image_digest(IDS["train"])}
    names = {f"train/{name}" for name in SHAPES[kind]}
    assert set(store.attributes["checksums"]) == names
    assert set(store.attributes["chunk_checksums"]) == names


@ALL_KINDS
def test_plain_zarr_reads_a_store_without_warnings(tmp_path: Path, kind: str) -> None:
    group = zarr.open_group(write(tmp_path, kind).parent, mode="r")  # warnings are errors
    assert {key for key, _ in group.members(max_depth=None)} == {"train"} | {
        f"train/{name}" for name in SHAPES[kind]
    }
    for name, array in draw_arrays(kind).items():
        member = group[f"train/{name}"]
        assert isinstance(member, zarr.Array)
        np.testing.assert_array_equal(member[:], array)
        assert member.metadata.dimension_names == tuple(SHAPES[kind][name][0].split())


def test_large_arrays_are_cut_into_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.storage.stores.CHUNK_BYTES", 8 * 4 * 7 + 3)
    manifest = write(tmp_path, "neighbors")
    member = open_store(manifest, kind="neighbors").group["train/indices"]
    assert isinstance(member, zarr.Array)
    assert member.chunks == (6, 4)  # 5 of one size, where 7 would leave the last with 2 rows
    found = open_store(manifest, kind="neighbors").read("indices")
    np.testing.assert_array_equal(found, draw_arrays("neighbors")["indices"])


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**9])
def test_some_rows_are_those_of_the_whole(
    chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.storage.stores.CHUNK_BYTES", chunk_bytes)
    store = open_store(write(tmp_path, "neighbors"), kind="neighbors")
    rows = np.array([3, 29, 0, 3, 12])
    for name, array in draw_arrays("neighbors").items():
        np.testing.assert_array_equal(store.read_rows(name, rows), array[rows])
    with pytest.raises(ValueError, match="has no array train/features"):
        store.read_rows("features", rows)


@pytest.mark.parametrize("chunk_bytes", [1, 100, 10**9])
def test_a_mapped_array_is_the_one_that_is_read(
    chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.storage.stores.CHUNK_BYTES", chunk_bytes)
    store = open_store(write(tmp_path, "neighbors"), kind="neighbors")
    folder = tmp_path / "made" / "for_it"
    for name, array in draw_arrays("neighbors").items():
        with store.map_rows(name, folder, convert=np.negative) as mapped:
            assert isinstance(mapped, np.memmap)
            assert mapped.dtype == array.dtype
            np.testing.assert_array_equal(mapped, -array)
            mapped[0] = 3  # nobody else sees it
        np.testing.assert_array_equal(store.read(name), array)
    assert not list(folder.iterdir())
    damage = next((store.path / "train/distances/c").glob("*/0"))
    damage.write_bytes(bytes(damage.stat().st_size))
    with (
        pytest.raises(ValueError, match="train/distances is damaged: the checksum of chunk"),
        store.map_rows("distances", folder),
    ):
        pass
    assert not list(folder.iterdir())


def test_refuses_to_map_what_the_disk_has_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(write(tmp_path, "neighbors"), kind="neighbors")
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)  # noqa: ARG005
    with (
        pytest.raises(OSError, match="must be free, got 100"),
        store.map_rows("distances", tmp_path),
    ):
        pass


def test_features_keep_their_splits_and_ids(tmp_path: Path) -> None:
    features = {
        split: np.full((len(ids), 3), number, dtype=np.float32)
        for number, (split, ids) in enumerate(IDS.items())
    }
    write_features(tmp_path / "f.zarr" / "zarr.json", features, IDS, backbone="vit")
    store = open_store(tmp_path / "f.zarr", kind="features")
    assert store.splits == ["train", "test"]
    assert store.attributes["parameters"] == {"features": {"backbone": "vit", "engine": None}}
    assert store.attributes["images"] == image_digests(IDS)
    for split, ids in IDS.items():
        assert store.read_image_ids(split=split) == ids
        np.testing.assert_array_equal(read_splits(store, "features")[split], features[split])


def test_labels_and_known_labels(tmp_path: Path) -> None:
    labels = {split: np.arange(len(ids)) for split, ids in IDS.items()}
    is_old = {split: rows < 2 for split, rows in labels.items()}
    write_labels(tmp_path / "l.zarr" / "zarr.json", labels, is_old, IDS, class_names=["é", "b"])
    store = open_store(tmp_path / "l.zarr", kind="labels")
    assert store.parameters("labels")["class_names"] == ["é", "b"]
    np.testing.assert_array_equal(store.read("is_old", split="test"), is_old["test"])

    write_known_labels(tmp_path / "k.zarr" / "zarr.json", labels["train"], IDS["train"])
    known = open_store(tmp_path / "k.zarr", kind="known_labels")
    np.testing.assert_array_equal(known.read("known_labels"), labels["train"])
    check_same_images(store, known)


def test_derived_stores_keep_images_and_parameters(tmp_path: Path) -> None:
    neighbors = open_store(write(tmp_path, "neighbors"), kind="neighbors")
    path = tmp_path / "negatives.zarr" / "zarr.json"
    arrays = draw_arrays("negatives")
    write_derived(path, "negatives", arrays, of=neighbors, parameters={"seed": 1})
    derived = open_store(path, kind="negatives")
    assert derived.attributes["parameters"] == {
        "neighbors": {"n_neighbors": 4, "backbone": None},
        "negatives": {"seed": 1},
    }
    check_same_images(neighbors, derived)


def test_nothing_else_of_the_package_uses_zarr() -> None:
    package = Path(unic.__file__).parent
    users = [
        path.name for path in package.rglob("*.py") if "import zarr" in path.read_text("utf-8")
    ]
    assert users == ["stores.py"]


# Laws


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    first, second = (
        content(write(tmp_path, "positives", name=name).parent) for name in ("one.zarr", "two.zarr")
    )
    assert first == second
    assert second != content(write(tmp_path, "positives", seed=1, name="three.zarr").parent)


def test_rewriting_replaces_the_whole(tmp_path: Path) -> None:
    manifest = write(tmp_path, "neighbors")
    (manifest.parent / "left_over").write_text("old")
    write(tmp_path, "known_labels", seed=3)
    found = open_store(manifest, kind="known_labels").read("known_labels")
    np.testing.assert_array_equal(found, draw_arrays("known_labels", seed=3)["known_labels"])
    assert not (manifest.parent / "left_over").exists()
    assert not (manifest.parent / "train" / "indices").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


def test_a_refused_write_leaves_the_old_store(tmp_path: Path) -> None:
    manifest = write(tmp_path, "known_labels")
    before = content(manifest.parent)
    with pytest.raises(TypeError):
        write_store(
            manifest,
            kind="known_labels",
            arrays={"train": draw_arrays("known_labels")},
            images={"train": "0"},
            parameters={"not JSON": object()},
        )
    assert content(manifest.parent) == before
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


KILLED_WRITER = """
import os, sys
import numpy as np, zarr
from unic.storage.stores import write_known_labels
zarr.consolidate_metadata = lambda path: os.kill(os.getpid(), 9)
write_known_labels(sys.argv[1], np.zeros(3, dtype=np.int64), ["a", "b", "c"])
"""


def test_a_killed_writer_leaves_the_old_store(tmp_path: Path) -> None:
    manifest = write(tmp_path, "known_labels")
    before = content(manifest.parent)
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(manifest)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert content(manifest.parent) == before
    assert len(list(tmp_path.iterdir())) == 2  # the store, and what the dead writer left
    write(tmp_path, "known_labels", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["store.zarr"]


def test_a_first_writer_that_is_killed_leaves_no_store(tmp_path: Path) -> None:
    manifest = tmp_path / "store.zarr" / "zarr.json"
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(manifest)], check=False)
    with pytest.raises(FileNotFoundError, match=re.escape("store.zarr: zarr.json is missing")):
        open_store(manifest, kind="known_labels")


@pytest.mark.parametrize(
    "ids", [["a"], ["a", "bcd", "ef"], ["ü", "日本語", "a b/ç.png"], ["", "x"], ["x" * 300]]
)
def test_image_ids_survive_their_encoding(tmp_path: Path, ids: list[str]) -> None:
    encoded = encode_image_ids(ids)
    assert encoded.dtype == np.uint8
    assert encoded.shape == (len(ids), max(len(i.encode()) for i in ids))
    features = {"train": np.zeros((len(ids), 2), dtype=np.float32)}
    write_features(tmp_path / "f.zarr" / "zarr.json", features, {"train": ids}, backbone=None)
    assert open_store(tmp_path / "f.zarr", kind="features").read_image_ids() == ids


# Damage


@pytest.mark.parametrize("name", ["indices", "distances"])  # compressed and not
@pytest.mark.parametrize("damage", ["flipped", "short", "garbage", "empty", "missing"])
def test_a_damaged_chunk_is_named(tmp_path: Path, name: str, damage: str) -> None:
    manifest = write(tmp_path, "neighbors")
    chunk = chunk_of(manifest, name)
    data = chunk.read_bytes()
    spoiled = {
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "short": data[: len(data) // 2],
        "garbage": b"\xff" * len(data),
        "empty": b"",
    }
    if damage == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(spoiled[damage])
    store = open_store(manifest, kind="neighbors")
    message = f"{manifest.parent}/train/{name} is damaged: .*; delete the store and run"
    with pytest.raises(ValueError, match=message):
        store.read(name)
    with pytest.raises(ValueError, match=message):
        store.read_rows(name, np.arange(3))
    store.read("far_radius")  # the others are whole


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    manifest = write(tmp_path, "neighbors")
    manifest.write_bytes(manifest.read_bytes()[:100])
    with pytest.raises(ValueError, match=re.escape(f"{manifest} is damaged: ")):
        open_store(manifest, kind="neighbors")


def test_some_rows_are_refused_by_the_chunk_that_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unic.storage.stores.CHUNK_BYTES", 8 * 4 * 10)  # 10 rows
    manifest = write(tmp_path, "neighbors")
    chunks = manifest.parent / "train" / "indices" / "c"
    shutil.copy(chunks / "2" / "0", chunks / "1" / "0")  # whole, but another's
    store = open_store(manifest, kind="neighbors")
    expected = draw_arrays("neighbors")["indices"]
    for rows in (np.arange(10), np.array([25, 3])):
        np.testing.assert_array_equal(store.read_rows("indices", rows), expected[rows])
    with pytest.raises(ValueError, match="train/indices is damaged: the checksum of chunk 1 diff"):
        store.read_rows("indices", np.array([25, 13]))


def edit_deep(tree: Any, path: str, value: Any) -> None:
    *parents, last = path.split("|")
    for name in parents:
        tree = tree[int(name) if isinstance(tree, list) else name]
    tree[last] = value


ARRAY = "consolidated_metadata|metadata|train/distances"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("attributes|parameters|n_neighbors", 5),
        ("attributes|parameters", {}),
        ("attributes|images|train", "0"),
        ("attributes|images", {}),
        ("attributes|checksums", {}),
        ("attributes|unic_version", "9"),
        ("attributes|digest", "0"),
        ("attributes|more", 1),
        (f"{ARRAY}|shape", [15, 8]),
        (f"{ARRAY}|data_type", "int32"),
        (f"{ARRAY}|fill_value", 1.0),
        (f"{ARRAY}|codecs|0|configuration|endian", "big"),
        (f"{ARRAY}|dimension_names", ["k", "n"]),
        ("consolidated_metadata", None),
    ],
)
def test_an_edited_manifest_is_refused(place: str, value: Any, tmp_path: Path) -> None:
    manifest = write(tmp_path, "neighbors")
    content = json.loads(manifest.read_text())
    edit_deep(content, place, value)
    manifest.write_text(json.dumps(content))
    message = f"{manifest} is damaged: its digest differs; delete the store and run"
    with pytest.raises(ValueError, match=re.escape(message)):
        open_store(manifest, kind="neighbors")


def test_arrays_are_opened_by_the_manifest_alone(tmp_path: Path) -> None:
    manifest = write(tmp_path, "neighbors")
    own = manifest.parent / "train" / "distances" / "zarr.json"
    content = json.loads(own.read_text())
    content["data_type"] = "int32"
    content["fill_value"] = 7
    expected, rows = draw_arrays("neighbors")["distances"], np.array([4, 2])
    for text in (json.dumps(content), "{"):
        own.write_text(text)
        store = open_store(manifest, kind="neighbors")
        np.testing.assert_array_equal(store.read("distances"), expected)
        np.testing.assert_array_equal(store.read_rows("distances", rows), expected[rows])


# Refusals


def test_refuses_a_store_of_a_version_that_wrote_no_digest(tmp_path: Path) -> None:
    manifest = write(tmp_path, "neighbors")
    content = json.loads(manifest.read_text())
    content["attributes"] |= {"unic_version": "0.0.9"}
    del content["attributes"]["digest"]
    manifest.write_text(json.dumps(content))
    message = "must have a digest, but unic 0.0.9 wrote it without; run the workflow again with"
    with pytest.raises(ValueError, match=re.escape(f"{manifest} {message}")):
        open_store(manifest, kind="neighbors")


def test_refuses_a_store_without_manifest(tmp_path: Path) -> None:
    manifest = write(tmp_path, "neighbors")
    manifest.unlink()
    for path in (manifest, manifest.parent, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"no store at .*: zarr\.json is missing"):
            open_store(path, kind="neighbors")


def test_refuses_a_store_of_a_version_with_other_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write(tmp_path, "positives")
    later = SHAPES["positives"] | {"rank": ("n", "int64"), "age": ("n", "int64")}
    monkeypatch.setitem(SHAPES, "positives", later)
    message = f"must hold train/age, train/rank, but unic {unic.__version__} wrote it without; run"
    with pytest.raises(ValueError, match=re.escape(message)):
        open_store(manifest, kind="positives")


def leave_free(n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "shutil.disk_usage", lambda path: os.statvfs(path) and SimpleNamespace(free=n_bytes)
    )


def test_refuses_a_store_for_which_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_bytes = 30 * (4 * 8 + 4 * 4 + 4)  # indices, distances, far radius
    manifest = tmp_path / "store.zarr" / "zarr.json"
    leave_free(n_bytes - 1, monkeypatch)
    message = re.escape(f"No space left: {n_bytes:,} bytes must be free, got {n_bytes - 1:,}")
    with pytest.raises(OSError, match=message) as caught:
        write(tmp_path, "neighbors")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match=message):
        check_store_room(manifest, "neighbors", {"n": 30, "k": 4})
    leave_free(n_bytes, monkeypatch)
    check_store_room(manifest, "neighbors", {"n": 30, "k": 4})
    write(tmp_path, "neighbors")


def test_refuses_ids_that_are_not_as_many_as_the_features(tmp_path: Path) -> None:
    features = {"train": np.zeros((31, 3), dtype=np.float32)}
    with pytest.raises(ValueError, match="dimension n of train/image_ids must be 31, got 30"):
        write_features(tmp_path / "f.zarr" / "zarr.json", features, IDS_OF_TRAIN, backbone=None)


def test_refuses_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be a positives store, got 'neighbors'"):
        open_store(write(tmp_path, "neighbors"), kind="positives")


def test_refuses_a_zarr_group_of_others(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="must be a positives store, got None"):
        open_store(tmp_path / "other.zarr", kind="positives")


def test_refuses_unknown_names(tmp_path: Path) -> None:
    store = open_store(write(tmp_path, "known_labels"), kind="known_labels")
    with pytest.raises(ValueError, match="has no array train/labels, it has train/known_labels"):
        store.read("labels")
    with pytest.raises(ValueError, match="has no array test/known_labels"):
        store.read("known_labels", split="test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"distances": np.zeros((30, 4))},
            "train/distances of a neighbors store must be float32 with dimensions (n k), got "
            "float64 with shape (30, 4)",
        ),
        ({"far_radius": np.zeros((30, 1), dtype=np.float32)}, "got float32 with shape (30, 1)"),
        ({"indices": np.zeros((30, 4), dtype=">i8")}, "must be int64"),
        (
            {"distances": np.zeros((30, 5), dtype=np.float32)},
            "dimension k of train/distances must be 4, got 5",
        ),
        (
            {"far_radius": np.zeros(29, dtype=np.float32)},
            "dimension n of train/far_radius must be 30, got 29",
        ),
        (
            {"radius": np.zeros(30, dtype=np.float32)},
            "must hold ['distances', 'far_radius', 'indices'], got ['distances', 'far_radius', "
            "'indices', 'radius']",
        ),
    ],
)
def test_refuses_arrays_that_are_not_of_the_kind(
    tmp_path: Path, changes: Arrays, message: str
) -> None:
    arrays = draw_arrays("neighbors") | changes
    manifest = tmp_path / "store.zarr" / "zarr.json"
    with pytest.raises(ValueError, match=re.escape(message)):
        write_store(manifest, kind="neighbors", arrays={"train": arrays}, images={"train": "0"})
    assert list(tmp_path.iterdir()) == []


def test_refuses_splits_without_images(tmp_path: Path) -> None:
    arrays = {"train": draw_arrays("known_labels")}
    message = "arrays and images must have the same splits, got ['train'] and ['test']"
    with pytest.raises(ValueError, match=re.escape(message)):
        write_store(
            tmp_path / "s" / "zarr.json", kind="known_labels", arrays=arrays, images={"test": "0"}
        )


def open_known(folder: Path, name: str, ids: list[str]) -> Store:
    path = folder / name / "zarr.json"
    write_known_labels(path, np.zeros(len(ids), dtype=np.int64), ids)
    return open_store(path, kind="known_labels")


@pytest.mark.parametrize("others", [["a", "c", "b"], ["a", "b"], ["a", "b", "cd"], ["ab", "", "c"]])
def test_refuses_to_combine_different_images(tmp_path: Path, others: list[str]) -> None:
    ours, same = (open_known(tmp_path, name, ["a", "b", "c"]) for name in ("one", "two"))
    other = open_known(tmp_path, "three", others)
    check_same_images(ours, same)
    with pytest.raises(ValueError, match=f"the same image in {ours.path} and {other.path}, but"):
        check_same_images(ours, same, other)


def test_refuses_a_store_of_other_images_than_the_index(tmp_path: Path) -> None:
    manifest, ids = tmp_path / "known_labels.zarr/zarr.json", ["a", "b", "c"]
    write_known_labels(manifest, np.zeros(3, dtype=np.int64), ids)
    store = open_store(manifest, kind="known_labels")
    check_images(store, ids)
    for others, split in ((["a", "c", "b"], "train"), (ids, "test")):
        with pytest.raises(ValueError, match=f"must be of the {split} images of the index"):
            check_images(store, others, split=split)
