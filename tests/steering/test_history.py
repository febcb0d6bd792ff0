import pytest

from tests.steering.runs import make_run
from unic.steering.history import History
from unic.steering.journal import Line

NAME: Line = {"do": "name", "cluster": 0, "name": "dog", "examples": ["i0.png"]}
LABEL: Line = {"do": "label", "labels": {"i5.png": "cat"}}
UNDO: Line = {"do": "undo"}
REDO: Line = {"do": "redo"}


def labels_of(*lines: Line) -> dict[str, str]:
    board = History([make_run().line(), *lines]).board
    assert board is not None
    return board.labels()


def test_all_that_was_done_and_not_undone_holds() -> None:
    dog, cat = {"i0.png": "dog"}, {"i5.png": "cat"}
    assert labels_of() == {}
    assert labels_of(NAME, LABEL) == dog | cat
    assert labels_of(NAME, LABEL, UNDO) == dog
    assert labels_of(NAME, LABEL, UNDO, UNDO, REDO) == dog
    assert labels_of(NAME, LABEL, UNDO, UNDO, REDO, REDO) == dog | cat
    assert labels_of(NAME, UNDO, LABEL) == cat


def test_another_run_ends_what_can_be_undone() -> None:
    history = History([make_run().line(), NAME, LABEL, make_run("1110002222").line()])
    assert (history.done, history.n_marks) == ([], 2)
    history.take(LABEL | {"labels": {"i5.png": "owl"}})
    history.take(UNDO)
    assert history.board is not None
    assert history.board.labels() == {"i0.png": "dog", "i5.png": "cat"}
    assert history.board.names == {1: "dog"}


def test_nothing_was_said_of_no_run() -> None:
    assert History().board is None
    assert History().n_marks == 0


@pytest.mark.parametrize("line", [NAME, LABEL])
def test_refuses_marks_before_a_run(line: Line) -> None:
    with pytest.raises(ValueError, match="first line must be of a run"):
        History([line])


@pytest.mark.parametrize("line", [UNDO, REDO])
def test_refuses_to_undo_nothing(line: Line) -> None:
    with pytest.raises(IndexError):
        History([make_run().line(), line])
