"""Images that show what clusters hold: right ones at either end, wrong ones (Figs. 12, 14-16)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.metrics import align_clusters, cross_tabulate
from unic.evaluation.scores import Truth
from unic.evaluation.summary import Shown

N_CLUSTERS = 6  # of a figure
N_IMAGES = 18  # of a cluster, the same number of each kind

Part = Literal["some", "old", "new", "others"]
_PARTS: dict[str, Part] = {"12": "some", "14": "old", "15": "new", "16": "others"}


class _Cluster(NamedTuple):
    """A cluster, its images from most to least confident, and which of them are of its class."""

    number: int
    label: int | None  # class that it is matched to
    rows: NDArray[np.int64]  # (s,)
    is_right: NDArray[np.bool_]  # (s,), all without labels


def part_of_figure(number: str) -> Part:
    """Whose clusters a figure of the paper shows.

    Example:
        >>> part_of_figure("14")
        'old'
    """
    return _PARTS[number]


def count_old(truth: Truth) -> int:
    """How many classes are old; they are numbered first."""
    if truth.labels is None:
        return 0
    return int(truth.labels["train"][truth.is_old["train"]].max(initial=-1)) + 1


def choose_examples(
    shown: Shown,
    *,
    n_clusters: int,
    part: Part = "some",
    n_old: int = 0,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Choose images of some clusters (UNIC, Figs. 12 and 14 to 16).

    Clusters are matched one to one to classes (Hungarian method), and ordered by the share of
    their images that are of their class, best first; those that are shown are spread evenly over
    this order, so that good and bad ones are among them. Without labels the order is that of the
    mean confidence, and there are no false positives.

    Args:
        shown: The images that the protocol scores.
        n_clusters: K.
        part: ``some`` of all clusters; those of ``old`` or of ``new`` classes (GCD); ``others``
            than ``some``.
        n_old: Old classes, which are numbered first.
        generator: Draws false positives.

    Returns:
        A row an image: ``cluster``; ``class_name`` that the cluster is matched to, and ``purity``,
        the share of its images that are of it, both missing without labels; ``kind``: ``most``
        confident true positives, ``least`` confident others, ``false`` positives; ``row``,
        ``image_id``, ``confidence``, and ``label``, the name of the image's class.

    Raises:
        ValueError: If no cluster is left to be shown.
    """
    found = _match(shown, n_clusters)
    if part in ("old", "new"):
        found = [c for c in found if c.label is not None and (c.label < n_old) == (part == "old")]
    chosen = _spread(found)
    if part == "others":
        numbers = {cluster.number for cluster in chosen}
        chosen = _spread([cluster for cluster in found if cluster.number not in numbers])
    if not chosen:
        raise ValueError(_lack(part, len(found), is_labeled=shown.labels is not None))
    tables = [_list_images(cluster, shown, generator) for cluster in chosen]
    return pd.concat(tables, ignore_index=True)


def _match(shown: Shown, n_clusters: int) -> list[_Cluster]:
    """Clusters that hold an image and have a class, or all without labels; best first."""
    clusters = shown.predictions["cluster"].to_numpy(np.int64)
    confidence = shown.predictions["confidence"].to_numpy(np.float64)
    class_of = None if shown.labels is None else _class_of(shown, clusters, n_clusters)
    found = []
    for number in range(n_clusters):
        rows = np.flatnonzero(clusters == number)
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        if not len(rows) or (class_of is not None and number not in class_of):
            continue
        if class_of is None or shown.labels is None:
            found.append(_Cluster(number, None, rows, np.ones(len(rows), dtype=np.bool_)))
        else:
            label = class_of[number]
            found.append(_Cluster(number, label, rows, shown.labels[rows] == label))
    if class_of is None:
        return sorted(found, key=lambda cluster: -confidence[cluster.rows].mean())
    return sorted(found, key=lambda cluster: -cluster.is_right.mean())


def _class_of(shown: Shown, clusters: NDArray[np.int64], n_clusters: int) -> dict[int, int]:
    assert shown.labels is not None
    n_classes = len(shown.class_names) if shown.class_names else None
    counts = cross_tabulate(shown.labels, clusters, n_classes=n_classes, n_clusters=n_clusters)
    rows, columns = align_clusters(counts)
    n_pairs = min(counts.shape)
    return dict(zip(columns[:n_pairs].tolist(), rows[:n_pairs].tolist(), strict=True))


def _spread(clusters: Sequence[_Cluster]) -> list[_Cluster]:
    """Some clusters, evenly over their order, with the first and the last."""
    if not clusters:
        return []
    places = np.linspace(0, len(clusters) - 1, min(N_CLUSTERS, len(clusters)))
    return [clusters[place] for place in places.round().astype(int)]


def _list_images(cluster: _Cluster, shown: Shown, generator: np.random.Generator) -> pd.DataFrame:
    right, wrong = cluster.rows[cluster.is_right], cluster.rows[~cluster.is_right]
    count = N_IMAGES // (2 if cluster.label is None else 3)
    drawn = generator.permutation(wrong)[:count]
    kinds = {"most": right[:count], "least": right[count:][::-1][:count], "false": drawn}
    rows = np.concatenate(list(kinds.values()))
    predictions = shown.predictions.iloc[rows]
    is_labeled = cluster.label is not None and shown.labels is not None
    return pd.DataFrame(
        {
            "cluster": cluster.number,
            "class_name": _name(cluster.label, shown) if is_labeled else None,
            "purity": cluster.is_right.mean() if is_labeled else None,
            "kind": np.repeat(list(kinds), [len(found) for found in kinds.values()]),
            "row": rows,
            "image_id": predictions["image_id"].to_numpy(),
            "confidence": predictions["confidence"].to_numpy(),
            "label": None
            if shown.labels is None
            else [_name(i, shown) for i in shown.labels[rows]],
        }
    )


def _name(label: int | None, shown: Shown) -> str:
    return f"class {label}" if not shown.class_names or label is None else shown.class_names[label]


def _lack(part: Part, n_found: int, *, is_labeled: bool) -> str:
    if part == "others":
        return f"clusters must be more than the {N_CLUSTERS} of figure 12, got {n_found}"
    if part in ("old", "new"):
        known = "none is" if is_labeled else "true labels are not known"
        return f"a cluster must be matched to a class that is {part} (GCD), {known}"
    return "a cluster must hold an image, none does"
