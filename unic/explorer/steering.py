"""Steering from the page: marks, suggestions, and the command that clusters again with them."""

import shlex
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unic.explorer.exhibits import Exhibit
from unic.inspection.neighbors import find_source
from unic.steering.board import Run
from unic.steering.continuation import describe_again, find_free
from unic.steering.marks import LABELS, Marks, State

N_CHOICES = 3  # names that are offered for an image


class Steering:
    """What a person says of the clusters of an experiment; requests may come at once.

    Args:
        exhibit: A finished experiment.

    Raises:
        ValueError: If the marks that are there are damaged.
    """

    def __init__(self, exhibit: Exhibit) -> None:
        shown = exhibit.shown
        if shown is None:
            raise ValueError("an experiment that is steered must have clusters")
        self._exhibit = exhibit
        self._lock = threading.Lock()
        surest = np.argsort(-shown["confidence"].to_numpy(), kind="stable")
        root = find_source(exhibit.artifacts.images).root
        self._marks = Marks(exhibit.folder, make_run(exhibit), surest, root=root)

    @property
    def state(self) -> State:
        """All that was said."""
        return self._marks.state

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Clusters after merges and splits, (n,)."""
        return self._marks.state.clusters

    def describe(self, said: str = "") -> dict[str, Any]:
        """All that was said, for JSON; ``said`` is what was said last, in words."""
        state, folder = self._marks.state, self._exhibit.folder
        return {
            "names": {str(cluster): name for cluster, name in state.names.items()},
            "labels": [[row, label] for row, label in state.labels.items()],
            "wrong": sorted(state.wrong),
            "n_clusters": int(state.clusters.max()) + 1,
            "n_marks": state.n_marks,
            "can_undo": state.can_undo,
            "file": str(folder / LABELS),
            "said": said,
            "command": describe_again(folder, state),
            "look": shlex.join(["unic", "explore", str(folder), str(find_free(folder))]),
        }

    def mark(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what the page sends: an action, and what it is about.

        Raises:
            ValueError: If there is no such action, or what is said does not fit.
            OSError: If it cannot be written.
        """
        with self._lock:
            return self.describe(self._mark(asked))

    def _mark(self, asked: Mapping[str, Any]) -> str:
        """Keep a mark; what was said, in words."""
        marks, action = self._marks, asked.get("action")
        if action == "undo":
            marks.undo()
            return "the latest mark was taken back"
        if action == "name":
            cluster, name = _number(asked, "cluster"), _text(asked, "name")
            marks.name_cluster(cluster, name)
            return f"cluster {cluster} is {name}"
        if action == "merge":
            clusters = _numbers(asked, "clusters")
            marks.merge_clusters(clusters)
            return f"clusters {' and '.join(map(str, clusters))} are one"
        if action == "split":
            return self._split(_number(asked, "cluster"), _number(asked, "n_parts"))
        return self._mark_images(action, asked)

    def _mark_images(self, action: Any, asked: Mapping[str, Any]) -> str:
        rows = _numbers(asked, "rows")
        images = f"{len(rows)} image" + ("" if len(rows) == 1 else "s")
        if action == "label":
            label = _text(asked, "label")
            self._marks.mark_images(rows, label)
            return f"{images}: {label}"
        if action == "right":
            self._marks.mark_right(rows)
            return f"right: {images}"
        if action == "wrong":
            self._marks.mark_wrong(rows)
            return f"wrong: {images}"
        if action == "clear":
            self._marks.clear(rows)
            return f"forgotten: {images}"
        raise ValueError(
            f"action must be name, merge, split, label, right, wrong, clear or undo, got {action!r}"
        )

    def _split(self, cluster: int, n_parts: int) -> str:
        from unic.steering.splitting import split_images  # torch takes seconds

        features = self._exhibit.artifacts.features
        if features is None:
            raise ValueError("a split needs the features of the images, which are not there")
        rows = np.flatnonzero(self._marks.state.clusters == cluster)
        parts = split_images(features.read_rows("features", rows), n_parts=n_parts, seed=0)
        self._marks.split_cluster(cluster, parts)
        return f"cluster {cluster} is {n_parts} now"

    def suggest(self, n_images: int) -> dict[str, Any]:
        """The images whose answers say the most, for JSON.

        Each has a row, the reason, and as ``choices`` the names of clusters that it may be of.
        """
        from unic.steering.suggestions import suggest_images  # scipy's graphs

        state, indices = self._marks.state, self._exhibit.indices
        found = suggest_images(state, indices.astype(np.int64), n_suggested=n_images)
        return {
            "images": [
                {
                    "row": each.row,
                    "reason": each.reason,
                    "choices": list_choices(state, indices[each.row]),
                }
                for each in found
            ]
        }


def open_steering(exhibit: Exhibit) -> Steering | None:
    """Steering of an experiment; None before it has clusters."""
    return None if exhibit.run is None else Steering(exhibit)


def list_choices(state: State, neighbors: NDArray[np.int32]) -> list[str]:
    """Names of the clusters of an image and its neighbors, the one with most of these first.

    Args:
        state: What was said.
        neighbors: Of the image, itself first, (k,).
    """
    around = state.clusters[neighbors].tolist()
    by_count = sorted(set(around), key=lambda cluster: (-around.count(cluster), cluster))
    return [state.names[cluster] for cluster in by_count if cluster in state.names][:N_CHOICES]


def make_run(exhibit: Exhibit) -> Run:
    """The clusters that are marked, as marks know them."""
    names, known = exhibit.known_names, exhibit.known_labels
    rows = np.flatnonzero(known >= 0)
    return Run(
        ids=exhibit.image_ids,
        clusters=exhibit.clusters,
        n_clusters=exhibit.n_clusters,
        names={c: name for c, name in enumerate(exhibit.cluster_names) if name},
        given={
            exhibit.image_ids[row]: names[known[row]] if names else str(known[row]) for row in rows
        },
    )


def _number(asked: Mapping[str, Any], key: str) -> int:
    value = asked.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} must be a whole number, got {value!r}")
    return value


def _numbers(asked: Mapping[str, Any], key: str) -> list[int]:
    values = asked.get(key)
    if not isinstance(values, list):
        raise ValueError(f"{key} must be a list of whole numbers, got {values!r}")
    return [_number({key: value}, key) for value in values]


def _text(asked: Mapping[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text, got {value!r}")
    return value
