"""The lines of a journal put together: what holds now, and what can be undone."""

from collections.abc import Iterable

from unic.steering.board import Board, Run
from unic.steering.journal import Line


class History:
    """What all lines say together.

    The first line is of a run, and so is one before the first mark of the clusters of another
    run. Undoing goes back to the latest of these: what a run may have been told is not taken back
    in silence, but can be said anew.
    """

    def __init__(self, lines: Iterable[Line] = ()):
        self.digest: str | None = None  # of the run
        self.n_before = 0  # marks on earlier runs
        self.done: list[Line] = []
        self.undone: list[Line] = []
        self._run: Run | None = None
        self._earlier: Board | None = None  # how it was before the run
        self.board: Board | None = None  # None before the first line
        for line in lines:
            self.take(line)

    def take(self, line: Line) -> None:
        """Take a line in.

        Raises:
            ValueError: If it says what this version does not know, or what cannot be done.
            KeyError, TypeError, IndexError: If it lacks something.
        """
        match line["do"]:
            case "run":
                self._begin(line)
            case "undo":
                self.undone.append(self.done.pop())
                self.board = self._repeat()
            case "redo":
                self._put(self.undone.pop())
            case _:
                self._put(line)
                self.undone.clear()

    @property
    def n_marks(self) -> int:
        """Marks that hold, on all runs."""
        return self.n_before + len(self.done)

    def _begin(self, line: Line) -> None:
        self.n_before += len(self.done)
        self.done, self.undone = [], []
        self.digest, self._run, self._earlier = line["digest"], Run.of_line(line), self.board
        self.board = self._repeat()

    def _put(self, line: Line) -> None:
        if self.board is None:
            raise ValueError("the first line must be of a run")
        self.board.put(line)
        self.done.append(line)

    def _repeat(self) -> Board:
        """The board of the run, with what was done since."""
        if self._run is None:
            raise ValueError("the first line must be of a run")
        earlier = self._earlier
        board = Board(self._run) if earlier is None else earlier.carry_over(self._run)
        for line in self.done:
            board.put(line)
        return board
