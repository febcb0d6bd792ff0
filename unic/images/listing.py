"""Listings: which images an experiment has, found on disk and checked."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from unic.images.datasets import list_images, open_images, read_labels
from unic.images.images import FileImages
from unic.images.index import Skipped
from unic.images.thinning import thin_classes

logger = logging.getLogger(__name__)


class Listing(NamedTuple):
    """The images of a data set: ids by split, and what was left out."""

    ids: dict[str, list[str]]
    skipped: list[Skipped]


def index_images(
    name: str,
    *,
    root: str | None,
    n_clusters: int | None,
    far_rank: int | str,
    manifest: str | None = None,
    bad_images: str = "error",
    imbalance_ratio: float | None = None,
    n_workers: int = 1,
) -> Listing:
    """List the images of a data set and check that the experiment's numbers fit them.

    Args:
        name: Data set, see :func:`unic.images.datasets.list_images`.
        root: Folder of the files.
        n_clusters: K, at most the number of training images; None is not checked.
        far_rank: tau_2, below the number of training images; ``auto`` is.
        manifest: List of the images, of a data set that has one.
        bad_images: ``error`` leaves it to the first stage that reads an image to refuse it;
            ``skip`` decodes every image file now and leaves out those that cannot be decoded.
        imbalance_ratio: Leaves images out, so that classes have unequal sizes, see
            :func:`unic.images.thinning.thin_classes`; None leaves all.
        n_workers: Threads that decode.

    Raises:
        FileNotFoundError: If the folder is missing or not laid out as it must be.
        ValueError: If there is no image, a number does not fit, or classes are to be thinned where
            images have no labels.
    """
    all_ids = list_images(name, root=root, manifest=manifest)
    if imbalance_ratio is not None:
        annotations = read_labels(name, all_ids, root=root, manifest=manifest)
        all_ids = thin_classes(all_ids, annotations, imbalance_ratio=imbalance_ratio)
    listing = Listing(all_ids, [])
    if bad_images == "skip":
        listing = skip_bad_images(name, listing.ids, root=root, n_workers=n_workers)
    ids = listing.ids
    n_images = len(ids["train"])
    if n_clusters is not None and n_clusters > n_images:
        raise ValueError(
            f"n_clusters must be at most the {n_images} training images, got {n_clusters}"
        )
    if isinstance(far_rank, int) and far_rank >= n_images:
        raise ValueError(
            f"neighbors.far_rank must be below the {n_images} training images, got {far_rank}"
        )
    return listing


def skip_bad_images(
    name: str, ids: Mapping[str, Sequence[str]], *, root: str | None, n_workers: int
) -> Listing:
    """Decode every image file once, and leave out those that cannot be decoded.

    Images that lie in one file of a data set are all there or none; reading that file says which.

    Args:
        name: Data set, see :func:`unic.images.datasets.open_images`.
        ids: Image ids by split.
        root: Folder of the files.
        n_workers: Threads that decode.

    Raises:
        ValueError: If a split has no image left; names the first bad one.
    """
    kept: dict[str, list[str]] = {}
    skipped: list[Skipped] = []
    with ThreadPoolExecutor(n_workers) as pool:
        for split, split_ids in ids.items():
            images = open_images(name, split_ids, root=root)
            if not isinstance(images, FileImages):
                return Listing({s: list(i) for s, i in ids.items()}, [])
            found = tqdm(
                pool.map(images.find_fault, range(len(images))), split, len(images), disable=None
            )
            faults = dict(zip(split_ids, found, strict=True))
            kept[split] = [image_id for image_id, fault in faults.items() if fault is None]
            skipped += [Skipped(split, i, fault) for i, fault in faults.items() if fault]
            if not kept[split]:
                raise ValueError(
                    f"the {split} split must have images that can be decoded, none of the "
                    f"{len(images)} can; the first is {skipped[-len(images)].reason}"
                )
    for left_out in skipped:
        logger.warning("skipped %s (%s): %s", left_out.image_id, left_out.split, left_out.reason)
    logger.info("%d of %d images skipped", len(skipped), sum(map(len, ids.values())))
    return Listing(kept, skipped)
