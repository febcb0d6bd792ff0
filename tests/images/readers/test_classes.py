import hashlib
import re

import numpy as np
import pytest

from unic.images.datasets import IMAGENETS
from unic.images.readers.annotations import Annotations
from unic.images.readers.classes import PUBLISHED_SPLITS, published_old_classes, read_wnids
from unic.images.splits import split_gcd
from unic.storage.known_labels import UNKNOWN

# SHA-256 of the lists as they were published, one entry a line.
WNIDS = {
    "imagenet50": (50, "1bf348de16b5d843b7e410a1ca302345dc74c27e9093bd327addec0c216da1f9"),
    "imagenet100": (100, "cc76c3260eea6dd829d363702c89f321195dc45e060091558160ebff95d3f938"),
    "imagenet200": (200, "8f129a78304272c83c39eb362ffd340395f60422b27a4134b71d448613a49766"),
    "imagenet100_gcd": (100, "a215e2f016446332e8f770cc207a18d0ae2ac0df4d7dcc92ade497d459a03be5"),
    "imagenet1k": (1000, "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"),
}
# Old classes in the published order, and all others in numeric order.
OLD_AND_NEW = {
    "cub200": (
        200,
        "1a383d69b3e9626649c24cddb8c0a9276cbb6e1ef6a3518196b34fe6a8a668e9",
        "f70887e25fa429799ff29c463b8c8a13970d480f834d7ced0c617787b99f094c",
    ),
    "stanford_cars": (
        196,
        "dbbd84561af4bda37d6d4726a82c8f867b04f29103e6c91c92e56476fdd5da42",
        "dc66b8d45cb336f22adf49084e4bcaf4bf5efa8e7696564f41f9343aa9a084d1",
    ),
    "fgvc_aircraft": (
        100,
        "2f5f92c32fe7c6ed1b1ea7cdf138128acb04064ad31edc1182da4417e3f39ce5",
        "9e6fb58775f0c5712795eb79c42d00b6b29cecf5ec51b370752071909ba69698",
    ),
    "herbarium19": (
        683,
        "9a02984481f971614a3c864dc87fb6fdbd1066219e95d8054cccce349133b1d9",
        "a2d7b3f34c2ebdeb4702c6822b5221f5b514b9102146e5ebee796148a44118bc",
    ),
}
FIRST = {"cifar10": (5, 10), "cifar100": (80, 100), "imagenet100_gcd": (50, 100)}
FIRST["imagenet1k"] = (500, 1000)


def digest(entries: list[str] | list[int]) -> str:
    return hashlib.sha256("".join(f"{entry}\n" for entry in entries).encode()).hexdigest()


@pytest.mark.parametrize("name", WNIDS)
def test_wnids_are_the_published_ones(name: str) -> None:
    wnids = read_wnids(name)
    assert (len(wnids), digest(wnids)) == WNIDS[name]
    assert wnids == sorted(set(wnids))
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)


def test_subsets_lie_within_imagenet() -> None:
    assert set(WNIDS) == set(IMAGENETS)
    whole = read_wnids("imagenet1k")
    for name in WNIDS:
        assert set(read_wnids(name)) <= set(whole)
    nested = [set(read_wnids(f"imagenet{n}")) for n in (50, 100, 200)]
    assert nested[0] < nested[1] < nested[2]
    assert len(nested[1] & set(read_wnids("imagenet100_gcd"))) == 12


def test_the_subset_of_gcd_is_a_draw_of_the_legacy_generator() -> None:
    whole = read_wnids("imagenet1k")
    drawn = np.random.RandomState(0).choice(1000, 100, replace=False)
    assert read_wnids("imagenet100_gcd") == [whole[number] for number in sorted(drawn)]


@pytest.mark.parametrize("name", OLD_AND_NEW)
def test_listed_old_classes_are_the_published_ones(name: str) -> None:
    n_classes, old_digest, new_digest = OLD_AND_NEW[name]
    old = published_old_classes(name)
    assert len(old) == len(set(old)) == n_classes // 2
    assert digest(old) == old_digest
    assert digest(sorted(set(range(n_classes)) - set(old))) == new_digest


@pytest.mark.parametrize("name", FIRST)
def test_the_first_classes_are_old_elsewhere(name: str) -> None:
    assert published_old_classes(name) == list(range(FIRST[name][0]))


@pytest.mark.parametrize("name", ["digits", "folder", "imagenet100", "stl10"])
def test_refuses_a_set_without_a_published_split(name: str) -> None:
    with pytest.raises(ValueError, match=f"cifar10, .*; there are none for {name}"):
        published_old_classes(name)


@pytest.mark.parametrize("name", PUBLISHED_SPLITS)
def test_old_masks_follow_the_list_and_not_the_numbers(name: str) -> None:
    n_classes = (OLD_AND_NEW.get(name) or FIRST[name][::-1])[0]
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(n_classes), 4))
    old = published_old_classes(name)
    annotated = Annotations({"train": labels}, [str(number) for number in range(n_classes)])
    split = split_gcd(annotated, old_classes=old, labeled_fraction=0.5, split_seed=0)
    is_old = np.array([label in old for label in labels.tolist()])
    np.testing.assert_array_equal(split.is_old["train"], is_old)
    np.testing.assert_array_equal(split.labels["train"] < len(old), is_old)
    position = {label: number for number, label in enumerate(old)}
    assert split.labels["train"][is_old].tolist() == [position[x] for x in labels[is_old].tolist()]
    is_labeled = split.known_labels != UNKNOWN
    assert is_labeled.sum() == int(0.5 * is_old.sum())
    assert not (is_labeled & ~is_old).any()
