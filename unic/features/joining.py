"""The features of all shards, put together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unic.runtime.shards import check_alike
from unic.storage.stores import open_store, write_features


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
    check_alike(parts, [store.parameters("features") for store in stores])
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
    made = stores[0].parameters("features")
    write_features(manifest, features, ids, backbone=made["backbone"], engine=made["engine"])
