"""Which classes are old and which training images are labeled."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.images.readers.annotations import Annotations
from unic.storage.known_labels import UNKNOWN


class LabelSplit(NamedTuple):
    """True labels for evaluation, and the ones that training may see."""

    labels: dict[str, NDArray[np.int64]]  # split to (n,), -1 where nobody knows
    is_old: dict[str, NDArray[np.bool_]]  # split to (n,)
    known_labels: NDArray[np.int64]  # (n,) of the training split, -1 = unknown
    class_names: list[str]
    known_names: list[str]  # of the classes that have known labels, the first of all classes


def split_labels(
    annotations: Annotations | None,
    ids: Mapping[str, Sequence[str]],
    *,
    gcd: Mapping[str, Any] | None,
    known: Mapping[str, str] | None = None,
) -> LabelSplit:
    """Decide what training may know.

    Clustering is GCD in which no label is known: all of ``known_labels`` is -1.

    Args:
        annotations: True labels, or None where there are none.
        ids: Image ids by split.
        gcd: ``old_classes``, ``labeled_fraction`` and ``split_seed``, or None.
        known: Training image to the name of its class, of those that somebody has labeled.

    Raises:
        ValueError: If GCD is asked for without labels, or its classes do not exist.
    """
    if gcd is not None:
        if annotations is None:
            raise ValueError("gcd needs the labels of the training images, the data set has none")
        return split_gcd(annotations, **gcd)
    if known:
        return split_known(annotations, ids, known)
    labels = {split: np.full(len(i), UNKNOWN, dtype=np.int64) for split, i in ids.items()}
    names: list[str] = []
    if annotations is not None:
        labels, names = annotations
    return LabelSplit(
        labels=labels,
        is_old={split: np.zeros(len(i), dtype=np.bool_) for split, i in ids.items()},
        known_labels=np.full(len(ids["train"]), UNKNOWN, dtype=np.int64),
        class_names=names,
        known_names=[],
    )


def split_known(
    annotations: Annotations | None, ids: Mapping[str, Sequence[str]], known: Mapping[str, str]
) -> LabelSplit:
    """Number classes, those of known labels first in the order of their names, then the others.

    Where there is truth, it is for evaluation alone: known labels may differ from it.

    Args:
        annotations: True labels, or None where there are none.
        ids: Image ids by split.
        known: Training image to the name of its class, at least one.

    Example:
        >>> split = split_known(None, {"train": ["a", "b", "c"]}, {"c": "fox", "a": "ant"})
        >>> split.known_names, split.known_labels.tolist()
        (['ant', 'fox'], [0, -1, 1])
    """
    old = sorted(set(known.values()))
    true_names = [] if annotations is None else annotations.class_names
    names = [*old, *(name for name in true_names if name not in set(old))]
    number_of = {name: number for number, name in enumerate(names)}
    labels = {split: np.full(len(found), UNKNOWN, dtype=np.int64) for split, found in ids.items()}
    if annotations is not None:
        new_number = np.array([number_of[name] for name in true_names])
        labels = {split: new_number[numbers] for split, numbers in annotations.labels.items()}
    numbers = [number_of[known[i]] if i in known else UNKNOWN for i in ids["train"]]
    return LabelSplit(
        labels=labels,
        is_old={s: (rows >= 0) & (rows < len(old)) for s, rows in labels.items()},
        known_labels=np.array(numbers, dtype=np.int64),
        class_names=[] if annotations is None else names,
        known_names=old,
    )


def split_gcd(
    annotations: Annotations,
    *,
    old_classes: Sequence[int],
    labeled_fraction: float,
    split_seed: int,
) -> LabelSplit:
    """Renumber classes (old ones first) and draw the labeled images of the old classes.

    The draw is that of the literature: ``int(fraction * n_old)`` of the pooled training images
    of old classes, in the order of the data set, not stratified, by numpy's legacy generator
    (``RandomState(0).choice`` without replacement gives the published subsets).

    Args:
        annotations: True labels of every split; ``train`` is the one that is drawn from.
        old_classes: Class numbers that are old, each with training images.
        labeled_fraction: Between 0 and 1.
        split_seed: Seed of the draw, 0 in the literature.

    Raises:
        ValueError: If an old class does not exist or is listed twice, no class is new, or no image
            would be labeled.

    Example:
        >>> labels = {"train": np.array([0, 1, 1, 2, 1, 1])}
        >>> annotations = Annotations(labels, ["ant", "bee", "cat"])
        >>> split = split_gcd(annotations, old_classes=[1], labeled_fraction=0.5, split_seed=0)
        >>> split.class_names, split.labels["train"].tolist()
        (['bee', 'ant', 'cat'], [1, 0, 0, 2, 0, 0])
        >>> split.known_labels.tolist()  # half of class bee, now number 0
        [-1, -1, -1, -1, 0, 0]
    """
    n_classes = len(annotations.class_names)
    strange = sorted(set(old_classes) - set(range(n_classes)))
    if strange:
        raise ValueError(f"gcd.old_classes must be below the {n_classes} classes, got {strange}")
    if len(set(old_classes)) < len(old_classes):
        raise ValueError(f"gcd.old_classes must be different, got {list(old_classes)}")
    order = [*old_classes, *sorted(set(range(n_classes)) - set(old_classes))]
    if len(old_classes) == n_classes:
        raise ValueError(f"gcd.old_classes must leave new classes, all {n_classes} are old")
    new_number = np.argsort(order)
    labels = {split: new_number[numbers] for split, numbers in annotations.labels.items()}
    is_old = {split: numbers < len(old_classes) for split, numbers in labels.items()}
    known_labels = np.full(len(labels["train"]), UNKNOWN, dtype=np.int64)
    old_rows = np.flatnonzero(is_old["train"])
    drawn = draw_labeled(len(old_rows), labeled_fraction=labeled_fraction, split_seed=split_seed)
    known_labels[old_rows[drawn]] = labels["train"][old_rows[drawn]]
    names = [annotations.class_names[c] for c in order]
    return LabelSplit(labels, is_old, known_labels, names, names[: len(old_classes)])


def draw_labeled(n_old: int, *, labeled_fraction: float, split_seed: int) -> NDArray[np.int64]:
    """Positions of the labeled images among the images of old classes, in the order drawn.

    Args:
        n_old: Training images of old classes.
        labeled_fraction: Between 0 and 1; the number of labeled images is rounded down.
        split_seed: Seed of numpy's legacy generator.

    Returns:
        Shape ``(l,)``, int64, different ones in [0, n_old).

    Raises:
        ValueError: If none would be drawn: without labels, GCD would be clustering.
    """
    n_labeled = int(labeled_fraction * n_old)
    if n_labeled == 0:
        raise ValueError(
            f"gcd.labeled_fraction must label an image, got {labeled_fraction} of {n_old} training "
            "images of old classes, which is none"
        )
    return np.random.RandomState(split_seed).choice(n_old, size=n_labeled, replace=False)
