"""The number of clusters: as it is given, or as it was estimated."""

from pathlib import Path

from unic.storage.files import read_json


def read_n_clusters(given: int | str, estimate: str | Path | None) -> int:
    """K: as given, or as it was estimated.

    Args:
        given: A number, or ``auto``.
        estimate: JSON file of the estimate, where K is ``auto``.

    Raises:
        ValueError: If the estimate holds no number.
    """
    if isinstance(given, int):
        return given
    found = read_json(str(estimate)).get("n_clusters")
    if not isinstance(found, int):
        raise ValueError(f"{estimate} must hold the whole number n_clusters, got {found}")
    return found
