"""The neighbors of all shards, put together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unic.runtime.shards import check_alike
from unic.storage.stores import (
    SHAPES,
    Store,
    check_same_images,
    open_store,
    write_derived,
)


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
    parameters = [store.parameters("neighbors") for store in stores]
    rows = [range(*parameter.pop("rows")) for parameter in parameters]
    n_images = len(of.read_image_ids())
    if [row for part in rows for row in part] != list(range(n_images)):
        raise ValueError(
            f"the parts in {Path(parts[0]).parent} must cover rows 0 to {n_images - 1} once, they "
            f"cover {rows}; delete them and run the workflow again"
        )
    mining = [parameter.pop("mining") for parameter in parameters]
    engines = [{"engine": found["engine"]} for found in mining]  # the rest changes no row
    check_alike(parts, [p | e for p, e in zip(parameters, engines, strict=True)])
    arrays: dict[str, NDArray[Any]] = {
        name: np.concatenate([store.read(name) for store in stores]) for name in SHAPES["neighbors"]
    }
    counted = ("redone_int16", "redone_float64", "far_kept", "far_sampled")
    counts = {key: sum(m[key] for m in mining) for key in counted}
    joined = parameters[0] | {"mining": mining[0] | counts}
    write_derived(manifest, "neighbors", arrays, of=of, parameters=joined)
