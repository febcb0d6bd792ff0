"""Downloads of the data sets of which torchvision knows the address."""

from functools import partial

DOWNLOADABLE = ("stl10", "cifar10", "cifar100", "fashion_mnist", "fgvc_aircraft")


def download(name: str, *, root: str) -> None:
    """Download a data set to the folder that it is read from.

    torchvision compares the checksum of each archive. Files that are there are left alone.

    Args:
        name: One of ``DOWNLOADABLE``.
        root: Folder for the files; made if it is missing.

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
