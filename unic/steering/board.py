"""What has been said of the clusters of a run, and how it is carried over to the next run."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.steering.journal import Line
from unic.storage.digests import json_digest


class Run(NamedTuple):
    """The clusters that a run has found of its images, and the labels that it knew."""

    ids: list[str]
    clusters: NDArray[np.int64]  # (n,), in [0, n_clusters)
    n_clusters: int
    names: Mapping[int, str]  # of the clusters of classes that had labels
    given: Mapping[str, str]  # image to its label

    def line(self) -> Line:
        """All of it, as the journal has it."""
        content = {
            "ids": self.ids,
            "clusters": self.clusters.tolist(),
            "n_clusters": self.n_clusters,
            "names": {str(cluster): name for cluster, name in self.names.items()},
            "given": dict(self.given),
        }
        return {"do": "run", "digest": json_digest(content), **content}

    @classmethod
    def of_line(cls, line: Line) -> "Run":
        """The run of a line that :meth:`line` made."""
        names = {int(cluster): name for cluster, name in line["names"].items()}
        clusters = np.array(line["clusters"], dtype=np.int64)
        return cls(line["ids"], clusters, line["n_clusters"], names, line["given"])


class Board:
    """What has been said so far, where the clusters are those of one run.

    Lines of the journal are put on it one by one (:meth:`put`). A label that was given to an image
    itself stands before one that it has as an example of a named cluster.
    """

    def __init__(self, run: Run):
        self.run = run
        self.row_of = {image_id: row for row, image_id in enumerate(run.ids)}
        self.clusters = run.clusters.copy()  # (n,), after merges and splits
        self.groups: dict[int, tuple[int, ...]] = {}  # joined cluster to what it was made of
        self.names = dict(run.names)
        self.examples: dict[int, list[str]] = {}  # named cluster to images that have its name
        self.own: dict[str, str] = dict(run.given)  # image to label
        self.loose: dict[str, str] = {}  # of examples whose cluster is no more
        self.wrong: set[str] = set()  # images that are not of their cluster
        self.n_clusters = run.n_clusters
        self.n_parts = 0  # that splits have made, beyond the first of each

    # What follows

    def labels(self) -> dict[str, str]:
        """Image to label, of all that have one, whether or not the run has the image."""
        labels = dict(self.loose)
        for cluster, images in self.examples.items():
            named = self.names[cluster]
            labels |= {image: named for image in images if image not in self.wrong}
        return labels | self.own

    def cluster_of(self, image: str) -> int:
        """The number of its cluster."""
        return int(self.clusters[self.row_of[image]])

    def name_of(self, image: str) -> str | None:
        """The name of its cluster; None where that has none, or the run no such image."""
        return self.names.get(self.cluster_of(image)) if image in self.row_of else None

    def count_clusters(self) -> int:
        """How many clusters the next run should have.

        Those of this run, less what was merged, more what was split; but at least as many as there
        are names. Two clusters that are only named alike leave the number: the next run has one for
        both, and one more for what had none.
        """
        named = {*self.names.values(), *self.labels().values()}
        return max(2, self.n_clusters, len(named))

    # What is said

    def put(self, line: Line) -> None:
        """Put a line of the journal on the board.

        Raises:
            ValueError: If it says what this version does not know.
            KeyError, TypeError: If it lacks something.
        """
        match line["do"]:
            case "name":
                self._name(line["cluster"], line["name"], line["examples"])
            case "merge":
                self._merge(line["clusters"], line["name"], line["examples"])
            case "split":
                self._split(line["cluster"], line["parts"], line["names"], line["examples"])
            case "label":
                self._label(line["labels"])
            case "wrong":
                self._mark_wrong(line["images"])
            case "clear":
                self._clear(line["images"])
            case other:
                raise ValueError(f"unknown mark {other!r}, of a later version of unic?")

    def _name(self, cluster: int, name: str, examples: Sequence[str]) -> None:
        """Name a cluster anew: its images that had the old name as a label have the new one."""
        old = self.names.get(cluster)
        if old is not None:
            for labels in (self.own, self.loose):
                for image, label in labels.items():
                    if label == old and self._is_in(image, cluster):
                        labels[image] = name
        self.names[cluster] = name
        self.examples[cluster] = list(examples)

    def _merge(self, clusters: Sequence[int], name: str, examples: Sequence[str]) -> None:
        """Join clusters under the lowest of their numbers."""
        kept = min(clusters)
        parts = [part for each in clusters for part in self.groups.pop(each, (each,))]
        for cluster in clusters:
            self._name(cluster, name, [])  # for the labels of its images
            del self.names[cluster], self.examples[cluster]
        self.clusters[np.isin(self.clusters, clusters)] = kept
        self.groups[kept] = tuple(sorted(parts))
        self.n_clusters -= len(clusters) - 1
        self._name(kept, name, examples)

    def _split(
        self,
        cluster: int,
        parts: Sequence[Sequence[str]],
        names: Sequence[str],
        examples: Sequence[Sequence[str]],
    ) -> None:
        """Parts are clusters of their own, the first has the number of what it was part of."""
        self.names.pop(cluster, None)
        self.groups.pop(cluster, None)
        first = self.run.n_clusters + self.n_parts  # a number that no cluster has had
        numbers = [cluster, *range(first, first + len(parts) - 1)]
        self.n_parts += len(parts) - 1
        self.n_clusters += len(parts) - 1
        for number, images, name, shown in zip(numbers, parts, names, examples, strict=True):
            self.clusters[[self.row_of[image] for image in images]] = number
            self.wrong.difference_update(images)
            self._name(number, name, shown)

    def _label(self, labels: Mapping[str, str]) -> None:
        self.own |= labels
        self.wrong -= {image for image, label in labels.items() if self.name_of(image) == label}

    def _mark_wrong(self, images: Sequence[str]) -> None:
        self.wrong.update(images)
        for labels in (self.own, self.loose):
            for image in images:
                if labels.get(image) is not None and labels[image] == self.name_of(image):
                    del labels[image]

    def _clear(self, images: Sequence[str]) -> None:
        cleared = set(images)
        self.wrong -= cleared
        for image in cleared:
            self.own.pop(image, None)
            self.loose.pop(image, None)
        for cluster, examples in self.examples.items():
            self.examples[cluster] = [image for image in examples if image not in cleared]

    def _is_in(self, image: str, cluster: int) -> bool:
        return image in self.row_of and self.cluster_of(image) == cluster

    # The next run

    def carry_over(self, run: Run) -> "Board":
        """What of it holds for the clusters of another run.

        - Labels stay with their images. What the other run knew beyond what this one knew is
          newer, and counts.
        - A name stays with the cluster that the run itself has given it to, since labels had it.
          Else it goes where more than half of the images that carried it are together, if that
          cluster has no name, and no other name has more images there. Else it is left to the
          images that are its examples.
        - An image stays wrong where it is again in a cluster of the name that it is not of.
        - Merges and splits were said of clusters that are no more; the names they made stay.
        """
        board = Board(run)
        labels = self.labels()
        news = {
            image: label
            for image, label in run.given.items()
            if self.run.given.get(image) != label and labels.get(image) != label
        }
        board.own = self.own | news
        board.loose = dict(self.loose)
        for cluster, place in self._place_names(board).items():
            name, examples = self.names[cluster], self.examples.get(cluster, [])
            if place is None:
                board.loose |= {image: name for image in examples if image not in self.wrong}
            else:
                board.names[place] = name
                board.examples.setdefault(place, []).extend(examples)
        names = {image: self.name_of(image) for image in self.wrong}
        board.wrong = {i for i, name in names.items() if name and board.name_of(i) == name}
        return board

    def _place_names(self, board: "Board") -> dict[int, int | None]:
        """Named clusters of this run to clusters of another, None where there is none."""
        given = {name: cluster for cluster, name in board.run.names.items()}
        places: dict[int, int | None] = {}
        best: dict[int, tuple[int, int]] = {}  # place to the images of a name there, and whose
        for cluster, name in self.names.items():
            places[cluster] = given.get(name)
            if name in given:
                continue
            images = [self.run.ids[row] for row in np.flatnonzero(self.clusters == cluster)]
            rows = [board.row_of[image] for image in images if image in board.row_of]
            counts = np.bincount(board.clusters[rows], minlength=1)
            place, count = int(counts.argmax()), int(counts.max())
            if 2 * count <= counts.sum() or place in board.run.names:
                continue
            if count > best.get(place, (0, 0))[0]:
                best[place] = count, cluster
        return places | {cluster: place for place, (_, cluster) in best.items()}
