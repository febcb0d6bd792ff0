"""Data sets that torchvision knows a living address of."""

from functools import partial

DOWNLOADABLE = ("stl10", "cifar10", "cifar100", "fashion_mnist", "fgvc_aircraft")


def download(name: str, *, root: str) -> None:
    """Get a data set from where its authors or torchvision keep it, to where it is read from.

    torchvision compares the checksum of each archive. What is there already is not got again.

    Args:
        name: One of ``DOWNLOADABLE``.
        root: Folder that gets the files; made where it is missing.

    Raises:
        ValueError: If the set has no address.
        OSError: If the address cannot be reached, or gives other content.
    """
    if name not in DOWNLOADABLE:
        raise ValueError(
            f"--download works for {', '.join(DOWNLOADABLE)}; {name} must be got by hand, the "
            "check says from where"
        )
    from torchvision import datasets  # takes seconds to import

    get = {
        "stl10": datasets.STL10,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "fashion_mnist": datasets.FashionMNIST,
        "fgvc_aircraft": partial(datasets.FGVCAircraft, annotation_level="variant"),
    }[name]
    try:
        get(root, download=True)
    except (OSError, RuntimeError) as error:  # the latter for wrong checksums, dead mirrors
        raise OSError(f"cannot download {name} to {root}: {error}") from None
