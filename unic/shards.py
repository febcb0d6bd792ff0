"""Shards: a stage that several jobs share out, and what each made put together again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unic.provenance import image_digest
from unic.resumption import resumption_key
from unic.rows import Rows, find_rows, read_header, write_rows
from unic.store import (
    SHAPES,
    Store,
    check_same_images,
    open_store,
    write_derived,
    write_features,
)
from unic.tokens import TokenLayout


@dataclass(frozen=True)
class Shard:
    """One of ``count`` jobs that share out the rows of a stage."""

    index: int  # from 0
    count: int

    def rows(self, n_rows: int, *, multiple: int = 1) -> range:
        """The rows of this job: neighboring ones, the first shards being the longer ones.

        Args:
            n_rows: Rows of all jobs together.
            multiple: Of what a shard must begin at, so that its batches are those of one job.
        """
        n_blocks = -(-n_rows // multiple)
        edges = [-(-n_blocks * (self.index + step) // self.count) * multiple for step in (0, 1)]
        return range(*(min(edge, n_rows) for edge in edges))


WHOLE = Shard(0, 1)


def read_shard(wildcards: Any) -> Shard:
    """The shard of a job by its wildcards ``shard`` and ``n_shards``; all rows without these."""
    if not hasattr(wildcards, "shard"):
        return WHOLE
    return Shard(int(wildcards.shard), int(wildcards.n_shards))


def join_features(
    manifest: str | Path, parts: Sequence[str | Path], ids: Mapping[str, Sequence[str]]
) -> None:
    """Write the features of all shards as one store.

    Args:
        manifest: Of the store to be written.
        parts: Stores of the shards, in order.
        ids: Image ids of each split.

    Raises:
        ValueError: If the parts are not of the images, in order, or of different settings; or one
            is damaged.
    """
    stores = [open_store(part, kind="features") for part in parts]
    _check_alike(parts, [store.attributes["parameters"] for store in stores])
    for split in ids:
        found = [image for store in stores for image in store.read_image_ids(split=split)]
        if found != list(ids[split]):
            raise ValueError(
                f"the parts in {Path(parts[0]).parent} must hold the {len(ids[split])} {split} "
                f"images in order, they hold {len(found)}; delete them and run the workflow again"
            )
    features = {
        split: np.concatenate([store.read("features", split=split) for store in stores])
        for split in ids
    }
    backbone = stores[0].attributes["parameters"]["backbone"]
    write_features(manifest, features, ids, backbone=backbone)


def join_neighbors(manifest: str | Path, parts: Sequence[str | Path], *, of: Store) -> None:
    """Write the neighbors of all shards as one store.

    Args:
        manifest: Of the store to be written.
        parts: Stores of the shards, in order; each has its first and last row in ``rows``.
        of: Features of all images.

    Raises:
        ValueError: If the parts are of other images or different settings, or do not cover all
            rows.
    """
    stores = [open_store(part, kind="neighbors") for part in parts]
    check_same_images(of, *stores)
    parameters = [dict(store.attributes["parameters"]) for store in stores]
    rows = [range(*parameter.pop("rows")) for parameter in parameters]
    n_images = len(of.read_image_ids())
    if [row for part in rows for row in part] != list(range(n_images)):
        raise ValueError(
            f"the parts in {Path(parts[0]).parent} must cover rows 0 to {n_images - 1} once, they "
            f"cover {rows}; delete them and run the workflow again"
        )
    mining = [parameter.pop("mining") for parameter in parameters]
    engines = [{"engine": found["engine"]} for found in mining]  # the rest changes no row
    _check_alike(parts, [p | e for p, e in zip(parameters, engines, strict=True)])
    arrays: dict[str, NDArray[Any]] = {
        name: np.concatenate([store.read(name) for store in stores]) for name in SHAPES["neighbors"]
    }
    counted = ("redone_int16", "redone_float64", "far_kept", "far_sampled")
    counts = {key: sum(m[key] for m in mining) for key in counted}
    joined = parameters[0] | {"mining": mining[0] | counts}
    write_derived(manifest, "neighbors", arrays, of=of, parameters=joined)


def join_tokens(header: str | Path, parts: Sequence[str | Path], ids: Sequence[str]) -> None:
    """Write the cached views of all shards as one file.

    Args:
        header: A ``.json`` file to be written, its rows beside it.
        parts: Headers of the shards, in order.
        ids: Image ids of all rows.

    Raises:
        ValueError: If the parts are not of the images, or of different settings; or one is
            damaged.
        OSError: If the disk has no room for the file.
    """
    headers = [read_header(part) for part in parts]
    lengths = [header["layout"]["n_images"] for header in headers]
    edges = np.cumsum([0, *lengths]).tolist()
    digests = [image_digest(ids[a:b]) for a, b in pairwise(edges)]
    if edges[-1] != len(ids) or digests != [header["images"] for header in headers]:
        raise ValueError(
            f"the parts in {Path(parts[0]).parent} must hold views of the {len(ids)} images in "
            "order, they hold others; delete them and run the workflow again"
        )
    _check_alike(parts, [_settings(content) for content in headers])
    mapped = [_map_rows(part, content) for part, content in zip(parts, headers, strict=True)]
    about = {key: value for key, value in headers[0].items() if key != "checksums"}
    about["layout"] = about["layout"] | {"n_images": len(ids)}
    about["images"] = image_digest(ids)

    def compute(shard: range) -> Iterator[bytes]:
        for first, rows in zip(edges[:-1], mapped, strict=True):
            n_rows = len(rows.array)
            start, stop = (min(max(edge - first, 0), n_rows) for edge in (shard.start, shard.stop))
            if start < stop:
                yield rows.take(range(start, stop)).tobytes()

    write_rows(
        header,
        compute,
        n_rows=len(ids),
        row_bytes=TokenLayout.read(headers[0]).n_bytes // lengths[0],
        about=about,
        key=resumption_key(about, files=parts),
        need="putting the parts together takes as much again as they do",
    )


def _check_alike(parts: Sequence[str | Path], settings: Sequence[Mapping[str, Any]]) -> None:
    first, *others = map(_flatten, settings)
    for part, found in zip(parts[1:], others, strict=True):
        for key in first | found:
            if first.get(key) != found.get(key):
                raise ValueError(
                    f"parts must be of the same settings, {key} is {first.get(key)!r} in "
                    f"{parts[0]} and {found.get(key)!r} in {part}; delete them and run the "
                    "workflow again"
                )


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their names with dots."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": inner for name, inner in _flatten(value).items()}
        else:
            found[key] = value
    return found


def _settings(header: Mapping[str, Any]) -> dict[str, Any]:
    """What the headers of all parts must have in common."""
    common = {key: value for key, value in header.items() if key not in ("checksums", "images")}
    layout = {key: value for key, value in header["layout"].items() if key != "n_images"}
    return common | {"layout": layout}


def _map_rows(header: str | Path, content: Mapping[str, Any]) -> Rows:
    """The rows ``(n, r)`` of a part, which may have none."""
    layout = TokenLayout.read(content)
    path = find_rows(header, layout.n_bytes)
    if layout.n_images == 0:
        return Rows(path, np.empty((0, 0), dtype=np.uint8), [])  # which cannot be mapped
    return Rows(path, np.memmap(path, mode="r").reshape(layout.n_images, -1), content["checksums"])
