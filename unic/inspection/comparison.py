"""Two runs of the same images beside each other: clusters paired, and images that moved."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.metrics import align_clusters, cross_tabulate
from unic.inspection.runs import Run, read_truth
from unic.quality.agreements import Agreement, compare_partitions

_IMAGE = ["split", "image_id"]


class Comparison(NamedTuple):
    """How far the clusters of two runs agree, and where they differ.

    ``matching`` has a row a pair of clusters: ``cluster`` of the first run and ``other`` of the
    second, of which one is missing where it has no partner; ``size``, ``other_size``, ``n_shared``
    and ``stayed``, the share of the first one's images that both hold.

    ``moves`` has a row for each two clusters that share images and are no pair, most images first:
    ``from``, ``to``, ``to_pair`` (the cluster of the first run that is the partner of ``to``),
    ``n_images`` and ``share``, of the images in ``from``.

    ``moved`` has a row for each of these images: ``split``, ``image_id``, ``from``, ``to``,
    ``to_pair``, ``confidence``, ``other_confidence``; ``class`` where true labels are known.

    ``scores`` has a row for each score that both have: ``split``, ``score``, ``one``, ``one_std``,
    ``other``, ``other_std``, means and standard deviations over seeds.
    """

    names: tuple[str, str]
    seeds: tuple[int, int]  # whose clusters are compared: those that are shown
    n_images: int
    agreement: Agreement  # accuracy is the share of images that stayed
    matching: pd.DataFrame
    moves: pd.DataFrame
    moved: pd.DataFrame
    scores: pd.DataFrame


def compare_runs(one: Run, other: Run) -> Comparison:
    """Compare the clusters of all images that two runs show.

    Clusters are paired one to one so that most images are in paired clusters (Hungarian method).

    Args:
        one: Where images move from.
        other: Where they move to.

    Raises:
        ValueError: If the images differ; says how many.
    """
    images = _join(one, other)
    pair = images["from"].to_numpy(np.int64), images["to"].to_numpy(np.int64)
    counts = cross_tabulate(*pair, n_classes=one.n_clusters, n_clusters=other.n_clusters)  # (c, k)
    rows, columns = align_clusters(counts)
    n_pairs = min(counts.shape)
    partner = dict(zip(columns[:n_pairs].tolist(), rows[:n_pairs].tolist(), strict=True))
    images.insert(4, "to_pair", images["to"].map(partner).astype("Int64"))
    moved = images[images["to_pair"].fillna(-1) != images["from"]].reset_index(drop=True)
    return Comparison(
        names=(one.name, other.name),
        seeds=(one.seed, other.seed),
        n_images=len(images),
        agreement=compare_partitions(*pair, n_clusters=max(counts.shape)),
        matching=_tabulate_pairs(counts, rows, columns),
        moves=_count_moves(moved, counts.sum(axis=1)),
        moved=moved,
        scores=_join_scores(one.metrics, other.metrics),
    )


def _join(one: Run, other: Run) -> pd.DataFrame:
    """A row an image, with the cluster that either run gives it."""
    first, second = (run.shown.set_index(_IMAGE) for run in (one, other))
    if not first.index.equals(second.index):
        if not first.index.sort_values().equals(second.index.sort_values()):
            n_shared = len(first.index.intersection(second.index))
            raise ValueError(
                f"{one.folder} and {other.folder} must be of the same images, but the first has "
                f"{len(first):,}, the second {len(second):,}, and {n_shared:,} are in both"
            )
        second = second.loc[first.index]
    joined = pd.DataFrame(
        {
            "from": first["cluster"].to_numpy(np.int64),
            "to": second["cluster"].to_numpy(np.int64),
            "confidence": first["confidence"].to_numpy(np.float64),
            "other_confidence": second["confidence"].to_numpy(np.float64),
        },
        index=first.index,
    ).reset_index()
    classes = _read_classes(one, joined["split"])
    return joined if classes is None else joined.assign(**{"class": classes})


def _read_classes(run: Run, splits: "pd.Series[str]") -> NDArray[np.object_] | None:
    """The true class of each image, None where nobody knows them."""
    classes = np.empty(len(splits), dtype=object)
    for split in splits.unique():
        labels, names = read_truth(run, split)
        if labels is None:
            return None
        classes[splits == split] = [names[i] if names else str(i) for i in labels.tolist()]
    return classes


def _tabulate_pairs(
    counts: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> pd.DataFrame:
    """Pairs by the number of the first cluster, then clusters without a partner."""
    n_pairs = min(counts.shape)
    table = pd.DataFrame({"cluster": _fill(rows, columns), "other": _fill(columns, rows)})
    sizes, other_sizes = counts.sum(axis=1), counts.sum(axis=0)  # (c,), (k,)
    table["size"] = [0 if pd.isna(c) else int(sizes[c]) for c in table["cluster"]]
    table["other_size"] = [0 if pd.isna(c) else int(other_sizes[c]) for c in table["other"]]
    shared = counts[rows[:n_pairs], columns[:n_pairs]].tolist()
    table["n_shared"] = shared + [0] * (len(table) - n_pairs)
    table["stayed"] = table["n_shared"] / table["size"].where(table["size"] > 0)
    return table


def _fill(numbers: NDArray[np.int64], others: NDArray[np.int64]) -> "pd.Series[int]":
    """Numbers of clusters, missing at the end where there are more of the others."""
    return pd.Series(numbers).reindex(range(max(len(numbers), len(others)))).astype("Int64")


def _count_moves(moved: pd.DataFrame, sizes: NDArray[np.int64]) -> pd.DataFrame:
    groups = moved.groupby(["from", "to", "to_pair"], dropna=False)
    counts = groups.size().rename("n_images").reset_index()
    counts["share"] = counts["n_images"] / sizes[counts["from"].to_numpy(np.int64)]
    by = ["n_images", "from", "to"]
    return counts.sort_values(by, ascending=[False, True, True], ignore_index=True)


def _join_scores(one: Mapping[str, Any], other: Mapping[str, Any]) -> pd.DataFrame:
    scores, others = one["methods"]["unic"], other["methods"]["unic"]
    rows: Sequence[tuple[Any, ...]] = [
        (split, name, found["mean"], found["std"], second["mean"], second["std"])
        for split, names in scores.items()
        for name, found in names.items()
        if (second := others.get(split, {}).get(name)) is not None
    ]
    columns = ["split", "score", "one", "one_std", "other", "other_std"]
    return pd.DataFrame(rows, columns=columns)
