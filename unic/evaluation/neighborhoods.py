"""Neighborhoods of a kept and a discarded image, of first and second order (Fig. 13)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.neighbors.metric import to_euclidean


class Neighborhood(NamedTuple):
    """An anchor and its second-order neighborhood.

    ``members`` has a row an image: ``row``; ``order``, 0 is the anchor, 1 are its neighbors by
    rank, 2 the neighbors of these by row; ``is_alike``, whether it is of the anchor's group;
    ``x`` and ``y``, its place in the plane of most variance of these images' features.
    """

    row: int
    union_size: int
    is_kept: bool
    members: pd.DataFrame


def choose_anchors(union_size: NDArray[np.int32], max_union_size: int) -> tuple[int, int]:
    """Choose an image that is kept, and one that is discarded.

    They have the median union size of those that are kept and of those that are discarded (of two
    middle ones the smaller, of equal ones the lower row): typical ones, not the best. Where all
    are kept, or none is, the second is the one of the largest union, or the first that of the
    smallest.

    Args:
        union_size: Shape ``(n,)``.
        max_union_size: eta of the paper, the largest that is kept.

    Example:
        >>> choose_anchors(np.array([9, 2, 4, 3, 8], dtype=np.int32), 5)
        (3, 4)
    """
    order = np.argsort(union_size, kind="stable")  # (n,)
    is_kept = union_size[order] <= max_union_size
    kept, discarded = order[is_kept], order[~is_kept]
    first = kept[(len(kept) - 1) // 2] if len(kept) else order[0]
    second = discarded[(len(discarded) - 1) // 2] if len(discarded) else order[-1]
    return int(first), int(second)


def choose_neighborhoods(
    union_size: NDArray[np.int32],
    indices: NDArray[np.int64],
    read_features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    groups: NDArray[np.int64],
    *,
    metric: str,
    max_union_size: int,
) -> list[Neighborhood]:
    """Collect the neighbors of a kept and of a discarded image (UNIC, Eq. 4, A.3, Fig. 13).

    Args:
        union_size: Shape ``(n,)``.
        indices: Shape ``(n, k)``, column 0 the image itself.
        read_features: Gives the features ``(r, d)`` of some rows.
        groups: Shape ``(n,)``: class or cluster of each image.
        metric: In which neighbors were mined.
        max_union_size: eta of the paper.
    """
    found = []
    for row in choose_anchors(union_size, max_union_size):
        members = list_members(row, indices)
        features = to_euclidean(read_features(members["row"].to_numpy()), metric)
        members["is_alike"] = groups[members["row"]] == groups[row]
        members[["x", "y"]] = project(features.astype(np.float64))
        is_kept = bool(union_size[row] <= max_union_size)
        found.append(Neighborhood(row, int(union_size[row]), is_kept, members))
    return found


def list_members(row: int, indices: NDArray[np.int64]) -> pd.DataFrame:
    """The second-order neighborhood of an image: ``row`` and ``order`` of each member.

    Example:
        >>> list_members(0, np.array([[0, 2], [1, 0], [2, 1]])).to_numpy().tolist()
        [[0, 0], [2, 1], [1, 2]]
    """
    first = indices[row]  # (k,), the anchor among them
    union = np.unique(indices[first])  # (u,)
    rows = np.concatenate([first, np.setdiff1d(union, first)])  # (u,)
    order = np.where(np.arange(len(rows)) < len(first), 1, 2)
    order[0] = 0
    return pd.DataFrame({"row": rows, "order": order})


def project(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places ``(u, 2)`` of features ``(u, d)`` in the plane of their most variance.

    The largest entry of an axis is positive, so that no sign is left to chance.
    """
    centered = features - features.mean(axis=0)
    left, scale, axes = np.linalg.svd(centered, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    places = left * scale * np.where(signs == 0, 1, signs)
    return np.pad(places[:, :2], ((0, 0), (0, max(0, 2 - places.shape[1]))))


def tabulate_neighborhoods(
    neighborhoods: Sequence[Neighborhood], ids: Sequence[str]
) -> pd.DataFrame:
    """A row a member of each: ``anchor``, ``union_size``, ``is_kept``, then those of the members.

    Args:
        neighborhoods: At least one.
        ids: The training images.
    """
    tables = []
    for about in neighborhoods:
        table = about.members.assign(image_id=[ids[row] for row in about.members["row"]])
        table.insert(0, "anchor", about.row)
        table.insert(1, "union_size", about.union_size)
        table.insert(2, "is_kept", about.is_kept)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
