"""What a person has said of the clusters and images of a run, kept as it is said."""

import csv
import io
import logging
import operator
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unic.images.readers.known_labels import read_known_labels
from unic.steering.board import Board, Run
from unic.steering.history import History
from unic.steering.journal import Journal, Line
from unic.steering.names import check_name
from unic.storage.files import write_text

logger = logging.getLogger(__name__)

JOURNAL = "marks.jsonl"
LABELS = "labels.csv"
N_EXAMPLES = 1  # most typical images that have the name of their cluster as a label


class State(NamedTuple):
    """All that was said, of ``n`` images by row; nothing that was given out changes later."""

    names: dict[int, str]  # cluster to its name
    groups: dict[int, tuple[int, ...]]  # merged cluster to those that it was made of
    clusters: NDArray[np.int64]  # (n,), after merges and splits
    labels: dict[int, str]  # image to its label: all that the next run is told
    examples: frozenset[int]  # images whose label is the name of a cluster that they stand for
    wrong: frozenset[int]  # images that are not of their cluster
    n_clusters: int  # that the next run should have
    n_marks: int
    can_undo: bool
    can_redo: bool


class Marks:
    """What is said of the clusters and images of ``results/NAME``.

    Each call has its line in ``marks.jsonl``, on the disk, before it returns; ``labels.csv``
    follows from the lines and is written anew. Lines hold image ids, and so keep their meaning
    when clusters are numbered anew (:meth:`unic.steering.board.Board.carry_over`). Several
    processes may mark; each sees what the others said once it marks something itself.

    A merged cluster has the lowest number of those it was made of. The first part of a split one
    keeps its number, the others have numbers that no cluster has had. Naming a cluster makes its
    most typical image an example: it has the name as its label, unless it has one of its own or
    is marked as wrong. Two clusters of one name are one class, and the next run has one
    cluster for it; of how many, only merges and splits say something.

    All calls raise ValueError for what does not fit, and OSError where the journal cannot be
    written; then nothing has changed. Where ``labels.csv`` alone cannot, which is an OSError, too,
    the mark holds, and the file follows with the next one.
    """

    def __init__(
        self,
        folder: Path,
        run: Run,
        surest: NDArray[np.int64],
        *,
        n_examples: int = N_EXAMPLES,
        root: str | None = None,
    ):
        """Read what was said so far.

        Args:
            folder: ``results/NAME``.
            run: The images and clusters that are shown.
            surest: All rows, the most typical images of their clusters first, ``(n,)``.
            n_examples: How many images have the name of a cluster that gets one as a label: by
                default 1, which added the most for the number of labels (docs/log.md).
            root: Folder of the images, by which absolute paths of a ``labels.csv`` that was there
                before the first mark are understood.

        Raises:
            ValueError: If the journal is damaged elsewhere than at its end; names the line.
        """
        self._run, self._surest, self._root = run, surest, root
        self._n_examples = n_examples
        self._journal, self._labels_csv = Journal(folder / JOURNAL), folder / LABELS
        self._shown = run.line()
        self._lines = self._journal.read()
        self._pending: list[Line] = []  # to be written before the next mark
        self._history = History()
        self._read_history()
        self.state = self._find_state()
        if self._lines:  # the process that wrote the last may have been killed before it could
            self._write_labels()

    @property
    def ids(self) -> list[str]:
        """The images by row."""
        return self._run.ids

    def name_cluster(self, cluster: int, name: str, shown: Sequence[int] = ()) -> State:
        """Name a cluster.

        Images of it that had its earlier name as a label have the new one.

        Args:
            cluster: Of ``state.clusters``.
            name: Of any script, see :func:`unic.steering.names.check_name`.
            shown: The images by which it was named, if other ones than the surest.
        """
        kept = check_name(name)

        def make(board: Board) -> Line:
            _check_cluster(board, cluster)
            rows = self._check_rows(shown) if len(shown) else self._surest
            examples = self._find_examples(board, cluster, kept, rows)
            return {"do": "name", "cluster": int(cluster), "name": kept, "examples": examples}

        return self._add(make)

    def merge_clusters(self, clusters: Sequence[int], name: str | None = None) -> State:
        """Make one of several clusters.

        Args:
            clusters: At least two of ``state.clusters``.
            name: Of all of them; by default the first one's that has one, else ``cluster 3+5``.
        """
        kept = None if name is None else check_name(name)
        chosen = [*dict.fromkeys(operator.index(cluster) for cluster in clusters)]
        if len(chosen) < 2:
            raise ValueError(f"clusters to merge must be at least two, got {chosen}")

        def make(board: Board) -> Line:
            for cluster in chosen:
                _check_cluster(board, cluster)
            names = [board.names[cluster] for cluster in chosen if cluster in board.names]
            made = "cluster " + "+".join(map(str, sorted(chosen)))
            taken = kept or next(iter(names), made)
            examples = [self._find_examples(board, each, taken, self._surest) for each in chosen]
            return {
                "do": "merge",
                "clusters": chosen,
                "name": taken,
                "examples": [image for images in examples for image in images],
            }

        return self._add(make)

    def split_cluster(self, cluster: int, parts: NDArray[np.int64]) -> State:
        """Make several clusters of one.

        The part with the most images of its name keeps the name; others are named after it and
        numbered.

        Args:
            cluster: Of ``state.clusters``.
            parts: Part of each of its ``m`` images in the order of their rows, ``(m,)``.
        """

        def make(board: Board) -> Line:
            _check_cluster(board, cluster)
            rows = np.flatnonzero(board.clusters == cluster)
            numbers = np.asarray(parts)
            if numbers.shape != rows.shape or numbers.dtype.kind not in "iu":
                raise ValueError(
                    f"parts must be whole numbers, one for each of the {len(rows)} images of "
                    f"cluster {cluster}, got {numbers.dtype} of shape {numbers.shape}"
                )
            images = [self._ids(rows[numbers == part]) for part in np.unique(numbers)]
            if len(images) < 2:
                raise ValueError(f"parts must be at least two, cluster {cluster} has one")
            names = _name_parts(board, cluster, images)
            ordered = [row for row in self._surest if board.clusters[row] == cluster]
            part_of = dict(zip(rows.tolist(), numbers.tolist(), strict=True))
            examples = [
                self._choose_examples(board, name, (r for r in ordered if part_of[r] == part))
                for part, name in zip(np.unique(numbers).tolist(), names, strict=True)
            ]
            return {
                "do": "split",
                "cluster": int(cluster),
                "parts": images,
                "names": names,
                "examples": examples,
            }

        return self._add(make)

    def mark_images(self, rows: Sequence[int], label: str) -> State:
        """Say of which class images are."""
        kept = check_name(label)
        images = self._ids(self._check_rows(rows))
        return self._add(lambda _: {"do": "label", "labels": dict.fromkeys(images, kept)})

    def mark_right(self, rows: Sequence[int]) -> State:
        """Say that images are of the class that their cluster is named after."""
        images = self._ids(self._check_rows(rows))

        def make(board: Board) -> Line:
            names = {image: board.name_of(image) for image in images}
            nameless = [image for image, name in names.items() if name is None]
            if nameless:
                raise ValueError(
                    f"images must be in clusters that have a name to be right, cluster "
                    f"{board.cluster_of(nameless[0])} of {nameless[0]} has none"
                )
            return {"do": "label", "labels": names}

        return self._add(make)

    def mark_wrong(self, rows: Sequence[int]) -> State:
        """Say that images are not of their cluster; they lose its name as a label."""
        images = self._ids(self._check_rows(rows))
        return self._add(lambda _: {"do": "wrong", "images": images})

    def clear(self, rows: Sequence[int]) -> State:
        """Forget what was said of images: labels, also those of examples, and wrong ones."""
        images = self._ids(self._check_rows(rows))
        return self._add(lambda _: {"do": "clear", "images": images})

    def undo(self) -> State:
        """Take back what was said last of this run."""

        def make(_: Board) -> Line:
            if not self._history.done:
                raise ValueError("there must be a mark on this run to be undone, there is none")
            return {"do": "undo"}

        return self._add(make)

    def redo(self) -> State:
        """Say again what was undone last."""

        def make(_: Board) -> Line:
            if not self._history.undone:
                raise ValueError("there must be a mark that was undone last, there is none")
            return {"do": "redo"}

        return self._add(make)

    def write_labels(self, path: Path) -> None:
        """Write the labels to a CSV file with the columns ``path`` and ``label``."""
        write_text(path, self._format_labels())

    def _add(self, make: Callable[[Board], Line]) -> State:
        """Write what a function makes of the board, once what others have said is on it."""
        with self._journal.alone() as others:
            if others:
                self._lines += others
                self._read_history()
            line = make(self._board()) | {"at": datetime.now(UTC).isoformat(timespec="seconds")}
            self._journal.append([*self._pending, line])
            self._lines += [*self._pending, line]
            self._pending = []
            self._history.take(line)
            self.state = self._find_state()
            self._write_labels()
        return self.state

    def _read_history(self) -> None:
        """Put the lines together, and after them what is to be written before the next one."""
        self._history = History()
        for number, line in enumerate(self._lines, 1):
            try:
                self._history.take(line)
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                where = f"{self._journal.path}, line {number}"
                raise ValueError(f"{where} must be a mark, cannot read it: {error!r}") from None
        self._pending = []
        if self._history.digest != self._shown["digest"]:
            self._pending = [self._shown]
            if not self._lines and self._labels_csv.is_file():
                self._pending.append({"do": "label", "labels": self._read_labels()})
        for line in self._pending:
            self._history.take(line)

    def _board(self) -> Board:
        board = self._history.board
        if board is None:
            raise ValueError("a run must have been taken in")
        return board

    def _find_state(self) -> State:
        board, history = self._board(), self._history
        row_of = board.row_of
        labels = {row_of[i]: label for i, label in board.labels().items() if i in row_of}
        examples = {i for images in board.examples.values() for i in images}
        examples -= board.wrong | board.own.keys()
        return State(
            names=dict(sorted(board.names.items())),
            groups=dict(board.groups),
            clusters=board.clusters.copy(),
            labels=dict(sorted(labels.items())),
            examples=frozenset(row_of[image] for image in examples if image in row_of),
            wrong=frozenset(row_of[image] for image in board.wrong if image in row_of),
            n_clusters=board.count_clusters(),
            n_marks=history.n_marks,
            can_undo=bool(history.done),
            can_redo=bool(history.undone),
        )

    def _write_labels(self) -> None:
        """Write ``labels.csv`` anew where it is not as it should be; without labels none is."""
        if not self.state.labels:
            self._labels_csv.unlink(missing_ok=True)
            return
        text = self._format_labels()
        if not self._labels_csv.is_file() or self._labels_csv.read_bytes() != text.encode():
            write_text(self._labels_csv, text)

    def _format_labels(self) -> str:
        file = io.StringIO(newline="")
        table = csv.writer(file)
        table.writerow(["path", "label"])
        for row, label in self.state.labels.items():
            image = self._run.ids[row]
            # Those who read it take spaces at the ends of a path for no part of it.
            table.writerow([f"./{image}" if image[0].isspace() else image, label])
        return file.getvalue()

    def _read_labels(self) -> dict[str, str]:
        """A file of labels that was there before the first mark."""
        labels = read_known_labels([str(self._labels_csv)], self._run.ids, root=self._root)
        logger.warning("%s is taken for marks, and written anew", self._labels_csv)
        return labels

    def _find_examples(
        self, board: Board, cluster: int, name: str, rows: Iterable[int]
    ) -> list[str]:
        """Examples that a named cluster has, else the first of some rows that may be some."""
        if cluster in board.names:
            found = [i for i in board.examples.get(cluster, []) if i not in board.wrong]
            if found or cluster in board.run.names:  # whose labeled images are examples enough
                return found
        own = (row for row in rows if board.clusters[row] == cluster)
        return self._choose_examples(board, name, own)

    def _choose_examples(self, board: Board, name: str, rows: Iterable[int]) -> list[str]:
        """The first that are not marked as wrong, nor have a label of another name."""
        images = (self._run.ids[row] for row in rows)
        free = (i for i in images if i not in board.wrong and board.own.get(i, name) == name)
        return [*islice(free, self._n_examples)]

    def _check_rows(self, rows: Sequence[int]) -> list[int]:
        found = [*dict.fromkeys(operator.index(row) for row in rows)]
        if not found:
            raise ValueError("rows must name at least one image, got none")
        strange = [row for row in found if not 0 <= row < len(self._run.ids)]
        if strange:
            raise ValueError(f"rows must be below {len(self._run.ids)}, got {strange[0]}")
        return found

    def _ids(self, rows: Iterable[int]) -> list[str]:
        return [self._run.ids[row] for row in rows]


def _check_cluster(board: Board, cluster: int) -> None:
    if not (board.clusters == operator.index(cluster)).any():
        n_clusters = len(np.unique(board.clusters))
        raise ValueError(f"cluster must be one of the {n_clusters} that have images, got {cluster}")


def _name_parts(board: Board, cluster: int, parts: Sequence[Sequence[str]]) -> list[str]:
    """Names of the parts of a cluster: its own for one of them, numbered ones for the others."""
    name, labels = board.names.get(cluster), board.labels()
    base = name or f"cluster {cluster}"
    numbered = (f"{base}.{number}" for number in count(1))
    free = (each for each in numbered if each not in board.names.values())
    names = [*islice(free, len(parts))]
    if name is not None:
        shares = [(sum(labels.get(i) == name for i in part), len(part)) for part in parts]
        names[shares.index(max(shares))] = name
    return names
