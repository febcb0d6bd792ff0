"""The number of clusters: as it is given, or as it was estimated."""

from pathlib import Path
from typing import Any

from unic.storage.files import read_json


def read_estimate(path: str | Path | None) -> dict[str, Any] | None:
    """Read an estimate of K, see :meth:`unic.quality.n_clusters.Estimate.record`.

    Args:
        path: JSON file; None where K is given.
    """
    return None if path is None else read_json(str(path))


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
