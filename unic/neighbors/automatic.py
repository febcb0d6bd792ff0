"""How many neighbors there are, and from which rank on images are far, where nobody says it."""

import math

AUTO = "auto"
_FEWEST, _MOST = 10, 50  # A.10 of the paper: of small data sets, of ImageNet


def choose_n_neighbors(given: int | str, n_images: int) -> int:
    """tau_1: as given, or for ``auto`` a fifth of the square root of n, in 10 to 50.

    That is 10 for 3,000 images, and the paper's 50 from 62,500 on; fewer where half of the images
    are not as many.

    Args:
        given: A number, or ``auto``.
        n_images: n, at least 4.

    Example:
        >>> choose_n_neighbors("auto", 20_000), choose_n_neighbors("auto", 12)
        (28, 5)
    """
    if isinstance(given, int):
        return given
    wished = min(_MOST, max(_FEWEST, round(math.sqrt(n_images) / 5)))
    return min(wished, choose_far_rank(AUTO, n_images) - 1)


def choose_far_rank(given: int | str, n_images: int) -> int:
    """tau_2: as given, or for ``auto`` half of n: beyond a class, however few there are.

    Args:
        given: A number, or ``auto``.
        n_images: n, at least 4.

    Raises:
        ValueError: If there are less than 4 images, of which none is far.
    """
    if isinstance(given, int):
        return given
    if n_images < 4:
        raise ValueError(f"there must be at least 4 training images, got {n_images}")
    return n_images // 2
