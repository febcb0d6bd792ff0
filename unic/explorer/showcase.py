"""The showcase: one experiment, or two on the same images beside each other."""

from collections.abc import Sequence
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unic.explorer.columns import Column, list_columns
from unic.explorer.exhibits import Exhibit, check_same_exhibits, open_exhibit
from unic.explorer.pictures import Pictures
from unic.explorer.steering import Steering, open_steering
from unic.inspection.clusters import describe_clusters
from unic.inspection.comparison import Comparison, compare_runs
from unic.inspection.text import list_records

N_MOVES = 200  # of one cluster to another that the page lists


class Shown:
    """An experiment with all that the page asks of it."""

    def __init__(self, exhibit: Exhibit) -> None:
        self.exhibit = exhibit
        self.columns: dict[str, Column] = list_columns(exhibit)
        self.pictures = Pictures(exhibit.artifacts.images, exhibit.image_ids)

    @cached_property
    def clusters(self) -> list[dict[str, Any]]:
        """A description of each cluster, for JSON."""
        run = self.exhibit.run
        return [] if run is None else list_records(pd.DataFrame(describe_clusters(run)))

    def describe(self) -> dict[str, Any]:
        """What the page must know before it draws, for JSON."""
        exhibit = self.exhibit
        mined = exhibit.artifacts.neighbors.parameters("neighbors")
        return {
            "name": exhibit.name,
            "n_images": exhibit.n_images,
            "n_clusters": exhibit.n_clusters,
            "n_neighbors": mined["n_neighbors"] - 1,  # without the image itself
            "seed": None if exhibit.run is None else exhibit.run.seed,
            "columns": [column.describe() for column in self.columns.values()],
            "map": exhibit.describe_map(),
        }


class Showcase:
    """What a server shows.

    Args:
        exhibits: One, or two of the same images: before and after.

    Raises:
        ValueError: If their images differ.
    """

    def __init__(self, exhibits: Sequence[Exhibit]) -> None:
        for exhibit in exhibits[1:]:
            check_same_exhibits(exhibits[0], exhibit)
        self.shown = [Shown(exhibit) for exhibit in exhibits]
        self.steering: Steering | None = open_steering(exhibits[-1])
        if len(self.shown) == 2 and self._comparison is not None:
            self._add_moves(self._comparison)

    @cached_property
    def _comparison(self) -> Comparison | None:
        before, after = (shown.exhibit.run for shown in self.shown)
        return None if before is None or after is None else compare_runs(before, after)

    def _add_moves(self, comparison: Comparison) -> None:
        """Give the later experiment columns that say which images moved, and from where."""
        before, after = self.shown
        moved = comparison.moved[comparison.moved["split"] == "train"]
        flags = np.zeros(after.exhibit.n_images, dtype=np.uint8)
        flags[[after.exhibit.rows[image_id] for image_id in moved["image_id"]]] = 1
        title = f"cluster in {before.exhibit.name}"
        earlier = before.columns["cluster"]
        after.columns["moved"] = Column("moved", "moved", "flag", lambda: flags)
        after.columns["before"] = earlier._replace(key="before", title=title)

    def describe(self) -> dict[str, Any]:
        """What the page must know before it draws, for JSON.

        Of two experiments the first has ``paired``: to each of its clusters the one of the second
        that it is paired with, by which it is colored, else a number that none has.
        """
        runs = [shown.describe() for shown in self.shown]
        comparison = self._comparison if len(runs) == 2 else None
        if comparison is not None:
            runs[0]["paired"] = list_partners(comparison.matching, runs[1]["n_clusters"])
        return {"runs": runs, "can_steer": self.steering is not None}

    def compare(self) -> dict[str, Any]:
        """How the clusters of the second experiment match those of the first, for JSON.

        Raises:
            ValueError: If there is one only, or one is not finished.
        """
        comparison = self._comparison if len(self.shown) == 2 else None
        if comparison is None:
            raise ValueError("two finished experiments can be compared: unic explore A B")
        return {
            "names": list(comparison.names),
            "n_images": comparison.n_images,
            "stayed": float(comparison.agreement.accuracy),
            "matching": list_records(comparison.matching),
            "moves": list_records(comparison.moves.head(N_MOVES)),
            "scores": list_records(comparison.scores),
        }


def list_partners(matching: pd.DataFrame, n_others: int) -> list[int]:
    """The other cluster that each cluster is paired with; numbers from ``n_others`` for the rest.

    Example:
        >>> matching = pd.DataFrame({"cluster": [0, 1, 2], "other": [1, 0, None]}, dtype="Int64")
        >>> list_partners(matching, 2)
        [1, 0, 2]
    """
    pairs = matching.dropna(subset="cluster").sort_values("cluster")["other"]
    alone = count(n_others)
    return [next(alone) if pd.isna(other) else int(other) for other in pairs]


def open_showcase(folders: Sequence[Path]) -> Showcase:
    """Open one or two experiments, see :func:`unic.explorer.exhibits.open_exhibit`."""
    return Showcase([open_exhibit(folder) for folder in folders])
