"""Lists of classes that come with the package: subsets of ImageNet, published old classes."""

from importlib.resources import files

# Rules of the GCD literature that need no list: how many classes are old, the first ones.
_FIRST_ARE_OLD = {"cifar10": 5, "cifar100": 80, "imagenet100_gcd": 50, "imagenet1k": 500}
_LISTED_OLD = ("cub200", "stanford_cars", "fgvc_aircraft", "herbarium19")
PUBLISHED_SPLITS = (*_FIRST_ARE_OLD, *_LISTED_OLD)


def read_wnids(name: str) -> list[str]:
    """Classes of ImageNet or of a subset, in the order of their numbers, which is sorted."""
    return _read_list(name)


def published_old_classes(name: str) -> list[int]:
    """Old classes of a data set in the literature on GCD, in the published order.

    Half of CUB-200, Stanford Cars and FGVC-Aircraft after the Semantic Shift Benchmark; 341 of the
    683 of Herbarium-19; the first 5 of CIFAR-10, 80 of CIFAR-100, 50 of GCD's ImageNet-100 and 500
    of ImageNet-1k. All other classes are new.

    Raises:
        ValueError: If none are published for the set.
    """
    if name in _FIRST_ARE_OLD:
        return list(range(_FIRST_ARE_OLD[name]))
    if name in _LISTED_OLD:
        return [int(number) for number in _read_list(f"{name}_old")]
    raise ValueError(
        f"published old classes are those of {', '.join(PUBLISHED_SPLITS)}; there are none for "
        f"{name}, list their numbers"
    )


def _read_list(name: str) -> list[str]:
    return files("unic.images.readers").joinpath(f"class_lists/{name}.txt").read_text().split()
