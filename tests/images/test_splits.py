import hashlib
import re
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unic.images.readers.annotations import Annotations
from unic.images.splits import draw_labeled, split_gcd, split_labels
from unic.storage.known_labels import UNKNOWN

# Check values of the labeled subsets of GCD and SimGCD: numpy.random.seed(0), then
# numpy.random.choice(range(n_old), replace=False, size=int(0.5 * n_old)). The hashes are SHA-256
# of the drawn positions as little-endian int64, in the order drawn.
PUBLISHED = {
    "toy of 1000": (
        1000,
        [993, 859, 298, 553, 672, 971, 27, 231, 306, 706],
        "df3e44e361ace628872f57e16b0346cf1f007f1db93dbdb78209a0fc0091d900",
    ),
    "CIFAR-10": (
        25000,
        [14149, 8946, 22378, 12162, 4879, 12710, 24595, 308, 4343, 18230],
        "78a0aca63820e8e2ff013898c65b1ca8c1c10b579ef369bd16afaa14d1721777",
    ),
    "CIFAR-100": (
        40000,
        [12836, 10913, 4214, 8198, 31403, 13917, 27440, 11667, 29616, 39864],
        "0bebc3400d26d178f3fd7d726ee50ddf358d092237a0baf350b653a646638db2",
    ),
}


def annotations(*, n_images: int = 600, n_classes: int = 6) -> Annotations:
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(n_classes, size=n_images), "test": np.arange(n_classes)}
    return Annotations(labels, [f"class {number}" for number in range(n_classes)])


def ids_of(annotated: Annotations) -> dict[str, list[str]]:
    return {s: [f"{s}/{i}" for i in range(len(rows))] for s, rows in annotated.labels.items()}


def names_of(numbers: NDArray[np.int64], names: list[str]) -> list[str]:
    return [names[number] for number in numbers]


# Against published values


@pytest.mark.parametrize("name", PUBLISHED)
def test_draws_the_published_labeled_subset(name: str) -> None:
    n_old, first, digest = PUBLISHED[name]
    drawn = draw_labeled(n_old, labeled_fraction=0.5, split_seed=0)
    assert len(drawn) == n_old // 2
    assert drawn[:10].tolist() == first
    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest() == digest


def test_labels_the_published_subset_of_cifar10() -> None:
    n_old, first, _ = PUBLISHED["CIFAR-10"]
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 5000))
    split = split_gcd(
        Annotations({"train": labels}, [str(number) for number in range(10)]),
        old_classes=range(5),
        labeled_fraction=0.5,
        split_seed=0,
    )
    old_rows = np.flatnonzero(labels < 5)
    is_labeled = split.known_labels != UNKNOWN
    assert (len(old_rows), is_labeled.sum()) == (n_old, n_old // 2)
    assert is_labeled[old_rows[first]].all()
    np.testing.assert_array_equal(split.known_labels[is_labeled], labels[is_labeled])


# Laws


def test_old_classes_come_first_in_the_order_given() -> None:
    split = split_gcd(annotations(), old_classes=[4, 1], labeled_fraction=0.5, split_seed=0)
    assert split.class_names == [f"class {number}" for number in (4, 1, 0, 2, 3, 5)]


@pytest.mark.parametrize("old_classes", [[0, 1, 2], [4, 1], [5], [3, 0, 5, 1, 2]])
def test_renumbering_keeps_the_class_of_every_image(old_classes: list[int]) -> None:
    annotated = annotations()
    split = split_gcd(annotated, old_classes=old_classes, labeled_fraction=0.5, split_seed=0)
    for name, labels in annotated.labels.items():
        before = names_of(labels, annotated.class_names)
        assert names_of(split.labels[name], split.class_names) == before
        np.testing.assert_array_equal(split.is_old[name], np.isin(labels, old_classes))
        np.testing.assert_array_equal(split.is_old[name], split.labels[name] < len(old_classes))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.77, 1.0])
def test_labels_a_share_of_old_images_and_no_new_one(fraction: float) -> None:
    split = split_gcd(annotations(), old_classes=[2, 0], labeled_fraction=fraction, split_seed=3)
    is_labeled = split.known_labels != UNKNOWN
    assert is_labeled.sum() == int(fraction * split.is_old["train"].sum())
    assert not (is_labeled & ~split.is_old["train"]).any()
    np.testing.assert_array_equal(split.known_labels[is_labeled], split.labels["train"][is_labeled])


def test_the_seed_decides_the_draw() -> None:
    first, again, other = (
        draw_labeled(100, labeled_fraction=0.5, split_seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist())
    assert len(set(first.tolist())) == 50


def test_draws_apart_from_the_global_generator() -> None:
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_labeled(100, labeled_fraction=0.5, split_seed=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("annotated", [annotations(), None])
def test_clustering_knows_no_label(annotated: Annotations | None) -> None:
    ids = ids_of(annotations())
    split = split_labels(annotated, ids, gcd=None)
    np.testing.assert_array_equal(split.known_labels, np.full(600, UNKNOWN))
    assert split.known_labels.dtype == np.int64
    assert not any(is_old.any() for is_old in split.is_old.values())
    assert {s: len(rows) for s, rows in split.labels.items()} == {"train": 600, "test": 6}
    if annotated is None:
        assert all((rows == UNKNOWN).all() for rows in split.labels.values())
        assert split.class_names == []
    else:
        assert split.labels is annotated.labels
        assert split.class_names == annotated.class_names


def test_gcd_settings_reach_the_split() -> None:
    gcd: dict[str, Any] = {"old_classes": [1, 2], "labeled_fraction": 0.3, "split_seed": 4}
    annotated = annotations()
    found, expected = (
        split_labels(annotated, ids_of(annotated), gcd=gcd),
        split_gcd(annotated, **gcd),
    )
    np.testing.assert_array_equal(found.known_labels, expected.known_labels)
    assert found.class_names == expected.class_names


# Refusals


@pytest.mark.parametrize(
    ("old_classes", "message"),
    [
        ([0, 6], "must be below the 6 classes, got [6]"),
        ([-1], "must be below the 6 classes, got [-1]"),
        ([0, 2, 0], "must be different, got [0, 2, 0]"),
        ([5, 4, 3, 2, 1, 0], "must leave new classes, all 6 are old"),
    ],
)
def test_refuses_old_classes_that_cannot_be(old_classes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        split_gcd(annotations(), old_classes=old_classes, labeled_fraction=0.5, split_seed=0)


@pytest.mark.parametrize(
    ("fraction", "classes", "message"),
    [
        (0.009, [0], "got 0.009 of 90 training images of old classes, which is none"),
        (0.0, [0, 1], "got 0.0 of 190 training images of old classes, which is none"),
        (0.5, [6], "got 0.5 of 0 training images of old classes, which is none"),
        (0.9, [], "got 0.9 of 0 training images of old classes, which is none"),
    ],
)
def test_refuses_to_label_no_image(fraction: float, classes: list[int], message: str) -> None:
    labels = {"train": np.repeat(np.arange(6), [90, 100, 1, 1, 1, 1]), "test": np.arange(7)}
    annotated = Annotations(labels, list("abcdefg"))
    with pytest.raises(ValueError, match=f"gcd.labeled_fraction must label an image, {message}"):
        split_gcd(annotated, old_classes=classes, labeled_fraction=fraction, split_seed=0)


def test_refuses_gcd_without_labels() -> None:
    gcd = {"old_classes": [0], "labeled_fraction": 0.5, "split_seed": 0}
    with pytest.raises(ValueError, match="gcd needs the labels of the training images"):
        split_labels(None, {"train": ["1", "2"]}, gcd=gcd)


# Class lists


def wnids(n_classes: int) -> list[str]:
    path = files("unic.images.readers").joinpath(f"class_lists/imagenet{n_classes}.txt")
    return path.read_text().splitlines()


@pytest.mark.parametrize("n_classes", [50, 100, 200])
def test_class_lists_are_sorted_wnids(n_classes: int) -> None:
    names = wnids(n_classes)
    assert len(names) == len(set(names)) == n_classes
    assert names == sorted(names)
    assert all(re.fullmatch(r"n\d{8}", name) for name in names)


def test_class_lists_are_nested() -> None:
    assert set(wnids(50)) < set(wnids(100)) < set(wnids(200))
