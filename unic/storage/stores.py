"""The arrays that pass from rule to rule: names, shapes, dtypes, attributes; the only Zarr user.

A store is a Zarr group, and the group's own ``zarr.json`` is its manifest: it holds the kind of
the store, the parameters of every stage up to it, the digest of the image ids, checksums of every
array and of its chunks, the consolidated metadata, by which alone arrays are opened, and a digest
of all this. It is the file that Snakemake tracks. A store is written to a temporary sibling and
renamed, so it is there whole or not at all.
"""

import hashlib
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

import unic
from unic.storage.digests import image_digest, json_digest
from unic.storage.files import check_room, first_line, read_json, whole_folder, write_json

MANIFEST = "zarr.json"
CHUNK_BYTES = 1 << 24  # chosen with the codecs by benchmarks/store.py, see docs/log.md
SHAPES: dict[str, dict[str, tuple[str, str]]] = {
    "features": {"features": ("n d", "float32"), "image_ids": ("n w", "uint8")},
    "labels": {"labels": ("n", "int64"), "is_old": ("n", "bool")},
    "known_labels": {"known_labels": ("n", "int64")},
    "neighbors": {
        "indices": ("n k", "int64"),
        "distances": ("n k", "float32"),
        "far_radius": ("n", "float32"),
    },
    "positives": {
        "union_size": ("n", "int32"),
        "is_clean": ("n", "bool"),
        "reciprocity": ("n", "float32"),
        "indices": ("n k", "int64"),
    },
    "negatives": {"indices": ("n m", "int64")},
    "map": {"positions": ("n axis", "float32")},
}


@dataclass(frozen=True)
class Store:
    """An open store: its attributes, and its arrays by split and name."""

    path: Path
    group: zarr.Group

    @property
    def attributes(self) -> dict[str, Any]:
        """Kind, version, parameters by kind, splits with their image digests, checksums, digest."""
        return dict(self.group.attrs)

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order in which they were written."""
        return list(self.attributes["images"])

    def parameters(self, kind: str) -> dict[str, Any]:
        """Settings that the arrays depend on, of the stage that writes stores of a kind.

        Raises:
            ValueError: If the store depends on no such stage, or names none.
        """
        found = self.attributes["parameters"]
        if not isinstance(found.get(kind), dict):
            need = f"hold the parameters of the {kind} it is made from"
            raise ValueError(_lack(self.path, need, self.attributes))
        return dict(found[kind])

    def read(self, name: str, *, split: str = "train") -> NDArray[Any]:
        """Read one whole array.

        Args:
            name: One of ``SHAPES[kind]``, which gives its dims and dtype.
            split: One of :attr:`splits`.

        Raises:
            ValueError: If the store has no such split or array, or the array on disk is not the
                one that was written.
        """
        key = self._find(name, split)
        try:
            array = np.asarray(self.group[key])
        except Exception as error:  # Zarr and its codecs raise all sorts on damaged files
            raise ValueError(self._damage(key, first_line(error))) from error
        if _checksum(array) != self.attributes["checksums"][key]:
            raise ValueError(self._damage(key, f"its checksum differs from that in {MANIFEST}"))
        return array

    def read_rows(
        self, name: str, rows: NDArray[np.int64], *, split: str = "train"
    ) -> NDArray[Any]:
        """Read some rows of an array, and only the chunks that hold them.

        Args:
            name: As for :meth:`read`.
            rows: Shape ``(r,)``, int64, in [0, n), in any order.
            split: One of :attr:`splits`.

        Returns:
            Shape ``(r, ...)``, in the order of ``rows``.

        Raises:
            ValueError: If the store has no such split or array, or a chunk on disk is not the one
                that was written.
        """
        key = self._find(name, split)
        array: Any = self.group[key]
        chunk_rows = array.chunks[0]
        found = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
        for number in np.unique(rows // chunk_rows).tolist():
            chunk = self._read_chunk(key, number)
            is_here = rows // chunk_rows == number
            found[is_here] = chunk[rows[is_here] - number * chunk_rows]
        return found

    @contextmanager
    def map_rows(
        self,
        name: str,
        folder: Path,
        *,
        split: str = "train",
        convert: Callable[[NDArray[Any]], NDArray[Any]] = lambda rows: rows,
    ) -> Iterator[NDArray[Any]]:
        """Give an array as a file that is mapped to memory, for arrays larger than that.

        The chunks are checked and copied to a file without a name, which is gone when the array
        is no longer used or the process ends, however it does.

        Args:
            name: As for :meth:`read`.
            folder: On the disk that the copy goes to; it is made if it is not there.
            split: One of :attr:`splits`.
            convert: What is done to the rows of a chunk, which stay as many and as long.

        Raises:
            ValueError: If the store has no such split or array, or a chunk on disk is not the one
                that was written.
            OSError: If the disk has no room for the copy.
        """
        key = self._find(name, split)
        array: Any = self.group[key]
        folder.mkdir(parents=True, exist_ok=True)
        check_room(folder, array.size * array.dtype.itemsize)
        with TemporaryFile(dir=folder) as file:
            for number in range(-(-array.shape[0] // array.chunks[0])):
                rows = convert(self._read_chunk(key, number))
                file.write(np.ascontiguousarray(rows).data)
            file.flush()
            # Writable for callers as arrays in memory are, but what they write stays there.
            yield np.memmap(file, dtype=array.dtype, mode="c", shape=array.shape)

    def read_image_ids(self, *, split: str = "train") -> list[str]:
        """Image ids of a features store, row by row."""
        return [bytes(row).rstrip(b"\0").decode() for row in self.read("image_ids", split=split)]

    def _find(self, name: str, split: str) -> str:
        key = f"{split}/{name}"
        if key not in self.attributes["checksums"]:
            raise ValueError(f"{self.path} has no array {key}, it has {self._keys()}")
        return key

    def _read_chunk(self, key: str, number: int) -> NDArray[Any]:
        array: Any = self.group[key]
        start = number * array.chunks[0]
        try:
            chunk = np.asarray(array[start : start + array.chunks[0]])
        except Exception as error:
            raise ValueError(self._damage(key, first_line(error))) from error
        if _crc(chunk) != self.attributes["chunk_checksums"][key][number]:
            why = f"the checksum of chunk {number} differs from that in {MANIFEST}"
            raise ValueError(self._damage(key, why))
        return chunk

    def _damage(self, key: str, why: str) -> str:
        where = f"{self.path}/{key}"
        return f"{where} is damaged: {why}; delete the store and run the workflow again"

    def _keys(self) -> str:
        return ", ".join(self.attributes["checksums"])


def write_store(
    manifest: str | Path,
    *,
    kind: str,
    arrays: Mapping[str, Mapping[str, NDArray[Any]]],
    images: Mapping[str, str],
    parameters: Mapping[str, Any] | None = None,
    of: Store | None = None,
) -> None:
    """Write a store, whole or not at all.

    Args:
        manifest: Path of the ``zarr.json`` inside the store; its folder becomes the store.
        kind: One of the keys of ``SHAPES``.
        arrays: Split to name to array, with the names, dimensions and dtypes of ``SHAPES``.
        images: Split to digest of its ordered image ids
            (:func:`unic.storage.digests.image_digest`).
        parameters: Settings of the stage that the arrays depend on; must be JSON.
        of: Store that the arrays are made from, whose parameters are kept too.

    Raises:
        ValueError: If a name, a dtype or a shape is not that of the kind, or the splits of the
            images are not those of the arrays.
        OSError: If the disk has no room for the arrays, as they are without compression.
    """
    if list(arrays) != list(images):
        raise ValueError(
            f"arrays and images must have the same splits, got {list(arrays)} and {list(images)}"
        )
    for split, members in arrays.items():
        _check_shapes(kind, split, members)
    n_bytes = sum(array.nbytes for members in arrays.values() for array in members.values())
    with whole_folder(Path(manifest).parent) as temporary:
        check_room(temporary, n_bytes)
        inherited = {} if of is None else of.attributes["parameters"]
        nested = dict(inherited) | {kind: dict(parameters or {})}
        _write_group(temporary, kind, arrays, images, nested)


def manifest_of(path: str | Path) -> Path:
    """The ``zarr.json`` of a store that is given by it, or by its folder."""
    return Path(path) if Path(path).name == MANIFEST else Path(path, MANIFEST)


def open_store(manifest: str | Path, *, kind: str) -> Store:
    """Open a store for reading.

    Args:
        manifest: Path of the ``zarr.json`` inside the store, or of the store.
        kind: What the store must hold, one of the keys of ``SHAPES``.

    Raises:
        FileNotFoundError: If there is no whole store.
        ValueError: If it is of another kind, lacks arrays that this version of the package needs,
            its manifest is damaged, or it is of a version that wrote no digest of this.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = f"{folder}/known_labels.zarr/zarr.json"
        ...     write_known_labels(path, np.array([0, -1]), ["a.jpg", "b.jpg"])
        ...     open_store(path, kind="known_labels").read("known_labels").tolist()
        [0, -1]
    """
    path = manifest_of(manifest).parent
    if not (path / MANIFEST).is_file():
        raise FileNotFoundError(f"no store at {path}: {MANIFEST} is missing")
    _check_manifest(path / MANIFEST, kind)
    try:  # the arrays are then opened by what the manifest says of them
        store = Store(path, zarr.open_group(path, mode="r", use_consolidated=True))
    except Exception as error:  # Zarr raises all sorts on what it does not know
        raise ValueError(f"{path} must be a Zarr group: {first_line(error)}") from error
    expected = {f"{split}/{name}" for split in store.splits for name in SHAPES[kind]}
    lacking = sorted(expected - set(store.attributes["checksums"]))
    if lacking:
        raise ValueError(_lack(path, f"hold {', '.join(lacking)}", store.attributes))
    return store


def check_store_room(manifest: str | Path, kind: str, sizes: Mapping[str, int]) -> None:
    """Before long work, check that a store of one split will fit the disk.

    Args:
        manifest: Path of the ``zarr.json`` of the store to come; the folder of the store's folder
            must be there.
        kind: One of the keys of ``SHAPES``.
        sizes: Length of each dimension of the kind.

    Raises:
        OSError: If the disk has too little room.
    """
    n_bytes = sum(
        np.dtype(dtype).itemsize * math.prod(sizes[dim] for dim in dims.split())
        for dims, dtype in SHAPES[kind].values()
    )
    check_room(Path(manifest).parents[1], n_bytes)


def check_same_images(*stores: Store, split: str = "train") -> None:
    """Refuse to combine stores whose rows stand for different images.

    Raises:
        ValueError: If the image digests of a split differ; names the two stores.
    """
    first, *others = stores
    expected = first.attributes["images"][split]
    for other in others:
        found = other.attributes["images"].get(split)
        if found != expected:
            raise ValueError(
                f"row i must mean the same image in {first.path} and {other.path}, but their "
                f"digests of the {split} images differ: {expected} and {found}"
            )


def check_images(store: Store, ids: Sequence[str], *, split: str = "train") -> None:
    """Refuse a store whose rows stand for other images than those of an index.

    Raises:
        ValueError: If the digest of the split's images differs, or the store lacks the split.
    """
    if store.attributes["images"].get(split) != image_digest(ids):
        raise ValueError(f"{store.path} must be of the {split} images of the index")


def write_features(
    manifest: str | Path,
    features: Mapping[str, NDArray[np.float32]],
    ids: Mapping[str, Sequence[str]],
    *,
    backbone: str | None,
    engine: str | None = None,
) -> None:
    """Write the features ``(n, d)`` and image ids of each split.

    Args:
        manifest: Of the store.
        features: By split, float32.
        ids: By split.
        backbone: What gave them; None for pixels.
        engine: What computed the backbone, and in which precision.
    """
    arrays: dict[str, dict[str, NDArray[Any]]] = {
        split: {"features": rows, "image_ids": encode_image_ids(ids[split])}
        for split, rows in features.items()
    }
    write_store(
        manifest,
        kind="features",
        arrays=arrays,
        images=image_digests(ids),
        parameters={"backbone": backbone, "engine": engine},
    )


def write_labels(
    manifest: str | Path,
    labels: Mapping[str, NDArray[np.int64]],
    is_old: Mapping[str, NDArray[np.bool_]],
    ids: Mapping[str, Sequence[str]],
    *,
    class_names: Sequence[str],
) -> None:
    """Write the true labels ``(n,)`` of each split, for evaluation only."""
    arrays: dict[str, dict[str, NDArray[Any]]] = {
        split: {"labels": numbers, "is_old": is_old[split]} for split, numbers in labels.items()
    }
    write_store(
        manifest,
        kind="labels",
        arrays=arrays,
        images=image_digests(ids),
        parameters={"class_names": list(class_names)},
    )


def write_known_labels(
    manifest: str | Path,
    known_labels: NDArray[np.int64],
    ids: Sequence[str],
    *,
    class_names: Sequence[str] = (),
) -> None:
    """Write the labels ``(n,)`` of the training split that training may know, -1 = unknown.

    Of the classes, the names of those are kept that a label may have: label ``l`` is of class
    ``class_names[l]``.
    """
    write_store(
        manifest,
        kind="known_labels",
        arrays={"train": {"known_labels": known_labels}},
        images=image_digests({"train": ids}),
        parameters={"class_names": list(class_names)},
    )


def write_derived(
    manifest: str | Path,
    kind: str,
    arrays: Mapping[str, NDArray[Any]],
    *,
    of: Store,
    parameters: Mapping[str, Any],
) -> None:
    """Write arrays on the training images of another store, whose parameters are kept too.

    Args:
        manifest: As for :func:`write_store`.
        kind: One of the keys of ``SHAPES``.
        arrays: Name to array, with the dimensions and dtypes of ``SHAPES``; row i is image i of
            ``of``.
        of: Store that the arrays were made from.
        parameters: Further settings that the arrays depend on; must be JSON.

    Raises:
        ValueError: If a name, a dtype or a shape is not that of the kind.
        OSError: If the disk has no room for the arrays.
    """
    write_store(
        manifest,
        kind=kind,
        arrays={"train": arrays},
        images={"train": of.attributes["images"]["train"]},
        parameters=parameters,
        of=of,
    )


def read_splits(store: Store, name: str) -> dict[str, NDArray[Any]]:
    """Read one array of every split: split to array, in the order of :attr:`Store.splits`.

    Raises:
        ValueError: If a split has no such array, or one is damaged.
    """
    return {split: store.read(name, split=split) for split in store.splits}


def encode_image_ids(image_ids: Sequence[str]) -> NDArray[np.uint8]:
    """Image ids as rows of UTF-8 bytes, padded with zeros: a dtype every Zarr reader knows.

    >>> encode_image_ids(["a", "bc"]).tolist()
    [[97, 0], [98, 99]]
    """
    encoded = [image_id.encode() for image_id in image_ids]
    width = max(map(len, encoded), default=1)
    joined = b"".join(row.ljust(width, b"\0") for row in encoded)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(encoded), width)  # (n, w)


def image_digests(images: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Digest of the ordered image ids of each split."""
    return {split: image_digest(ids) for split, ids in images.items()}


def _write_group(
    path: Path,
    kind: str,
    arrays: Mapping[str, Mapping[str, NDArray[Any]]],
    images: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> None:
    group = zarr.create_group(path)
    checksums: dict[str, str] = {}
    chunk_checksums: dict[str, list[int]] = {}
    for split, members in arrays.items():
        for name, array in members.items():
            key = f"{split}/{name}"
            chunks = _chunks(array, CHUNK_BYTES)
            group.create_array(
                key,
                data=np.ascontiguousarray(array),
                chunks=chunks,
                compressors=_compressors(array),
                dimension_names=SHAPES[kind][name][0].split(),
            )
            checksums[key] = _checksum(array)
            starts = range(0, len(array), chunks[0])
            chunk_checksums[key] = [_crc(array[start : start + chunks[0]]) for start in starts]
    group.attrs.update(
        {
            "kind": kind,
            "unic_version": unic.__version__,
            "parameters": dict(parameters),
            "images": dict(images),
            "checksums": checksums,
            "chunk_checksums": chunk_checksums,
        }
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)
    manifest = read_json(path / MANIFEST)
    manifest["attributes"]["digest"] = json_digest(manifest)
    write_json(path / MANIFEST, manifest)


def _check_manifest(manifest: Path, kind: str) -> None:
    """Refuse a manifest of another kind, or other than it was written."""
    try:
        content = read_json(manifest)
        attributes = dict(content.get("attributes", {}))
        digest = attributes.pop("digest", None)
        expected = json_digest(content | {"attributes": attributes})
    except (ValueError, TypeError, RecursionError) as error:
        why = first_line(error.__cause__ or error.__context__ or error)
        raise ValueError(f"{manifest} is damaged: {why}; delete the store") from error
    found = attributes.get("kind")
    if found != kind:
        raise ValueError(f"{manifest.parent} must be a {kind} store, got {found!r}")
    if digest is None:
        raise ValueError(_lack(manifest, "have a digest", attributes))
    if digest != expected:
        raise ValueError(
            f"{manifest} is damaged: its digest differs; delete the store and run the workflow "
            "again"
        )


def _lack(path: Path, need: str, attributes: Mapping[str, Any]) -> str:
    """Say that another version of the package wrote a store, without what this one needs."""
    return (
        f"{path} must {need}, but unic {attributes.get('unic_version')} wrote it without; run the "
        f"workflow again with this version, {unic.__version__}"
    )


def _check_shapes(kind: str, split: str, members: Mapping[str, NDArray[Any]]) -> None:
    expected = SHAPES[kind]
    if set(members) != set(expected):
        raise ValueError(f"a {kind} store must hold {sorted(expected)}, got {sorted(members)}")
    sizes: dict[str, int] = {}
    for name, array in members.items():
        dims, dtype = expected[name]
        if array.dtype != dtype or array.ndim != len(dims.split()):
            raise ValueError(
                f"{split}/{name} of a {kind} store must be {dtype} with dimensions ({dims}), "
                f"got {array.dtype} with shape {array.shape}"
            )
        for dim, size in zip(dims.split(), array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(
                    f"dimension {dim} of {split}/{name} must be {sizes[dim]}, got {size}"
                )


def _chunks(array: NDArray[Any], chunk_bytes: int) -> tuple[int, ...]:
    """Whole rows, in chunks of one size: the last would be padded to that of the others."""
    n_rows = max(1, len(array))
    most = max(1, chunk_bytes * n_rows // max(1, array.nbytes))
    return (-(-n_rows // -(-n_rows // most)), *array.shape[1:])


def _compressors(array: NDArray[Any]) -> BloscCodec | None:
    if array.dtype.kind == "f":  # a codec saves a tenth and halves the speed
        return None
    return BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")


def _crc(chunk: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(chunk).data)


def _checksum(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()[:16]
