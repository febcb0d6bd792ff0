"""The store of a map, made from the features and the neighbors of an experiment."""

import logging
from pathlib import Path

from unic.maps.layout import choose_n_neighbors, map_images
from unic.maps.trustworthiness import score_map
from unic.neighbors.metric import to_euclidean
from unic.storage.stores import Store, check_same_images, manifest_of, open_store, write_derived

logger = logging.getLogger(__name__)

SEED = 0


def make_map(features: Store, neighbors: Store, path: str | Path) -> Store:
    """Lay the training images out in two dimensions, measure that, and write it as a store.

    The rule ``map_images`` calls it too, so the same stores always give the same bytes.

    Args:
        features: Of kind ``features``.
        neighbors: Of kind ``neighbors``, mined from these features.
        path: Of the store to be written, or of the ``zarr.json`` inside it.

    Returns:
        The store, of kind ``map``: ``positions`` ``(n, 2)``, float32, the longer side from -1 to
        1; among its parameters seed, neighbors used, trustworthiness and continuity.

    Raises:
        ValueError: If the stores are of different images.
        OSError: If the disk has no room.
    """
    check_same_images(features, neighbors)
    indices = neighbors.read("indices")
    metric = neighbors.parameters("neighbors")["metric"]
    points = to_euclidean(features.read("features"), metric)
    n_neighbors = choose_n_neighbors(indices)
    positions = map_images(indices, points, seed=SEED, n_neighbors=n_neighbors)
    scores = score_map(positions, indices, points, seed=SEED)
    logger.info(
        "mapped %d images by %d neighbors each: trustworthiness %.4f, continuity %.4f",
        len(positions),
        n_neighbors,
        scores.trustworthiness,
        scores.continuity,
    )
    manifest = manifest_of(path)
    parameters = {"seed": SEED, "n_neighbors": n_neighbors, "scores": scores._asdict()}
    write_derived(manifest, "map", {"positions": positions}, of=neighbors, parameters=parameters)
    return open_store(manifest, kind="map")
