import csv
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.steering.runs import make_run, open_run
from unic.images.readers.known_labels import read_known_labels
from unic.steering.board import Run
from unic.steering.marks import LABELS, Marks, State

ROOT = Path(__file__).parents[2]


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    """Ten images in clusters of three, three and four."""
    return open_run(tmp_path, make_run())


def same(one: State, other: State) -> bool:
    return np.array_equal(one.clusters, other.clusters) and all(
        a == b for a, b, field in zip(one, other, State._fields, strict=True) if field != "clusters"
    )


def read_labels(folder: Path, run: Run) -> dict[str, str]:
    """What the next run is told."""
    return read_known_labels([str(folder / LABELS)], run.ids, root=None)


# Clusters


def test_nothing_is_said_at_first(tmp_path: Path) -> None:
    state = open_run(tmp_path, make_run(n_clusters=5)).state
    assert (state.names, state.labels, state.n_clusters, state.n_marks) == ({}, {}, 5, 0)
    assert state.clusters.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert not state.can_undo
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_the_label_of_the_surest_images(marks: Marks) -> None:
    state = marks.name_cluster(2, "dog")
    assert state.names == {2: "dog"}
    assert state.labels == {6: "dog", 7: "dog", 8: "dog"}
    assert state.examples == {6, 7, 8}
    assert state.n_clusters == 3


def test_one_image_is_enough(tmp_path: Path) -> None:
    marks = Marks(tmp_path, make_run(), np.arange(10)[::-1])
    assert marks.name_cluster(2, "dog").labels == {9: "dog"}
    assert marks.merge_clusters([0, 2]).labels == {2: "dog", 9: "dog"}


def test_a_name_is_the_label_of_images_that_were_shown(marks: Marks) -> None:
    assert marks.name_cluster(2, "dog", shown=[9, 0, 7]).labels == {7: "dog", 9: "dog"}


def test_wrong_images_are_no_examples(marks: Marks) -> None:
    marks.mark_wrong([6])
    assert marks.name_cluster(2, "dog").labels == {7: "dog", 8: "dog", 9: "dog"}
    state = marks.mark_wrong([8])
    assert state.labels == {7: "dog", 9: "dog"}
    assert state.wrong == {6, 8}


def test_a_new_name_is_that_of_the_images_too(marks: Marks) -> None:
    marks.name_cluster(2, "dog")
    marks.mark_right([9])
    marks.mark_images([0], "dog")  # of another cluster
    state = marks.name_cluster(2, "hound")
    assert state.labels == {0: "dog", 6: "hound", 7: "hound", 8: "hound", 9: "hound"}


def test_merged_clusters_have_examples_of_each(marks: Marks) -> None:
    marks.name_cluster(0, "dog")
    state = marks.merge_clusters([2, 0])
    assert state.names == {0: "dog"}
    assert state.groups == {0: (0, 2)}
    assert state.clusters.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0]
    assert state.labels == dict.fromkeys([0, 1, 2, 6, 7, 8], "dog")
    assert state.n_clusters == 2


def test_merged_clusters_without_names_get_one(marks: Marks) -> None:
    assert marks.merge_clusters([2, 1]).names == {1: "cluster 1+2"}
    assert marks.name_cluster(1, "dog").labels == dict.fromkeys([3, 4, 5, 6, 7, 8], "dog")


def test_a_split_keeps_the_name_where_most_of_its_images_are(marks: Marks) -> None:
    marks.name_cluster(2, "dog")
    state = marks.split_cluster(2, np.array([0, 1, 1, 1]))
    assert state.clusters.tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert state.names == {2: "dog.1", 3: "dog"}
    assert state.labels == {6: "dog.1", 7: "dog", 8: "dog", 9: "dog"}
    assert state.n_clusters == 4


def test_numbers_of_parts_are_never_given_again(marks: Marks) -> None:
    marks.split_cluster(2, np.array([5, 7, 9, 9]))
    marks.merge_clusters([2, 3])
    state = marks.split_cluster(0, np.array([1, 0, 0]))
    assert state.clusters.tolist() == [5, 0, 0, 1, 1, 1, 2, 2, 4, 4]
    assert state.names == {
        **{0: "cluster 0.1", 5: "cluster 0.2", 2: "cluster 2.1", 4: "cluster 2.3"},
    }
    assert state.n_clusters == 5


def test_a_merge_that_is_split_again_leaves_the_count(marks: Marks) -> None:
    marks.merge_clusters([0, 1])
    assert marks.split_cluster(0, np.array([0, 0, 0, 1, 1, 1])).n_clusters == 3


def test_two_clusters_of_one_name_leave_the_count(marks: Marks) -> None:
    marks.name_cluster(0, "dog")
    state = marks.name_cluster(1, "dog")
    assert state.n_clusters == 3
    assert state.labels == dict.fromkeys(range(6), "dog")
    assert marks.merge_clusters([0, 1]).n_clusters == 2


def test_classes_beyond_those_of_the_clusters_count(marks: Marks) -> None:
    for number, name in enumerate(("dog", "cat", "cow")):
        marks.name_cluster(number, name)
    assert marks.mark_images([9], "owl").n_clusters == 4


# Images


def test_images_of_a_class(marks: Marks) -> None:
    state = marks.mark_images([4, 9, 4], "dog")
    assert state.labels == {4: "dog", 9: "dog"}
    assert state.examples == frozenset()
    assert marks.mark_images([4], "cat").labels == {4: "cat", 9: "dog"}


def test_a_label_of_its_own_stands_before_the_name(marks: Marks) -> None:
    marks.mark_images([6], "cat")
    state = marks.name_cluster(2, "dog")
    assert state.labels == {6: "cat", 7: "dog", 8: "dog", 9: "dog"}
    assert state.examples == {7, 8, 9}
    assert marks.mark_images([7], "cat").labels == {6: "cat", 7: "cat", 8: "dog", 9: "dog"}


def test_what_is_right_is_not_wrong(marks: Marks) -> None:
    marks.name_cluster(2, "dog")
    marks.mark_wrong([9, 6])
    state = marks.mark_right([9])
    assert state.wrong == {6}
    assert state.labels == {7: "dog", 8: "dog", 9: "dog"}
    state = marks.mark_wrong([9])
    assert state.wrong == {6, 9}
    assert state.labels == {7: "dog", 8: "dog"}


def test_clearing_forgets_all_of_an_image(marks: Marks) -> None:
    marks.name_cluster(2, "dog")
    marks.mark_wrong([6])
    marks.mark_images([0], "cat")
    state = marks.clear([0, 6, 7])
    assert state.labels == {8: "dog"}
    assert state.wrong == frozenset()


def test_without_labels_there_is_no_file(marks: Marks, tmp_path: Path) -> None:
    marks.mark_images([0], "cat")
    assert (tmp_path / LABELS).is_file()
    marks.clear([0])
    assert not (tmp_path / LABELS).exists()


# Undo, and laws of any sequence


def test_undo_and_redo(marks: Marks) -> None:
    first = marks.name_cluster(2, "dog")
    second = marks.merge_clusters([0, 2])
    undone = marks.undo()
    assert undone.can_redo
    assert same(undone._replace(can_redo=False), first)
    assert same(marks.redo(), second)
    marks.undo()
    assert not marks.mark_wrong([1]).can_redo


def say_something(marks: Marks, generator: np.random.Generator) -> State:
    """One mark of any kind that fits."""
    state = marks.state
    clusters = np.unique(state.clusters)
    rows = generator.choice(len(state.clusters), 3).tolist()
    name = f"class {generator.integers(4)}"
    large = clusters[np.bincount(state.clusters)[clusters] > 1]
    cluster = int(generator.choice(large))
    parts = np.arange((state.clusters == cluster).sum()) % 2
    named = [row for row in rows if int(state.clusters[row]) in state.names]
    calls: list[Callable[[], State]] = [
        lambda: marks.name_cluster(cluster, name),
        lambda: marks.split_cluster(cluster, parts),
        lambda: marks.mark_images(rows, name),
        lambda: marks.mark_wrong(rows),
        lambda: marks.clear(rows),
    ]
    if len(clusters) > 2:
        calls.append(lambda: marks.merge_clusters(generator.choice(clusters, 2, replace=False)))
    if named:
        calls.append(lambda: marks.mark_right(named))
    if state.can_undo:
        calls.append(marks.undo)
    if state.can_redo:
        calls.append(marks.redo)
    return calls[generator.integers(len(calls))]()


@pytest.mark.parametrize("seed", range(4))
def test_the_journal_says_all(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    run = make_run("0123" * 6)
    marks = open_run(tmp_path, run)
    first = marks.state
    for _ in range(30):
        state = say_something(marks, generator)
        assert same(open_run(tmp_path, run).state, state)
        labels = {run.ids[row]: label for row, label in state.labels.items()}
        assert not labels or read_labels(tmp_path, run) == labels
        assert not (set(state.wrong) & set(state.examples))
        assert all((state.clusters == cluster).any() for cluster in state.names)
    while marks.state.can_redo:
        marks.redo()
    last = marks.state
    while marks.state.can_undo:
        marks.undo()
    assert same(marks.state._replace(can_redo=False), first)
    while marks.state.can_redo:
        marks.redo()
    assert same(marks.state, last)


@pytest.mark.parametrize(
    "name", ['a "dog", <b>big</b>', "=1+1", "Ёж, 亀", "a;b\tc".replace("\t", " "), "#", "-1", "nan"]
)
def test_ugly_names_and_paths_come_back(tmp_path: Path, name: str) -> None:
    ids = [" in front.png", 'quo"te,s.png', "new\nline.png", "cr\rline.png", "ü/亀.png", "#.png"]
    run = Run(ids, np.zeros(6, dtype=np.int64), 2, {}, {})
    marks = open_run(tmp_path, run)
    marks.mark_images(range(6), name)
    assert read_labels(tmp_path, run) == dict.fromkeys(ids, name)
    assert same(open_run(tmp_path, run).state, marks.state)


def test_what_was_given_out_stays(marks: Marks) -> None:
    first = marks.name_cluster(2, "dog")
    kept = first._replace(names=dict(first.names), clusters=first.clusters.copy())
    marks.merge_clusters([0, 2], "cat")
    assert same(first, kept)


# Several processes, and those that are killed


def test_two_who_mark_see_each_other(tmp_path: Path) -> None:
    run = make_run()
    one, other = open_run(tmp_path, run), open_run(tmp_path, run)
    one.name_cluster(2, "dog")
    other.mark_images([0], "cat")
    assert other.state.names == {2: "dog"}
    one.undo()
    assert one.state.labels == other.undo().labels | dict.fromkeys([6, 7, 8], "dog")


def test_threads_lose_nothing(tmp_path: Path) -> None:
    run = make_run("0" * 64, n_clusters=2)
    marks = open_run(tmp_path, run)

    def work(start: int) -> None:
        for row in range(start, start + 16):
            marks.mark_images([row], f"class {row}")

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 64, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert open_run(tmp_path, run).state.labels == {row: f"class {row}" for row in range(64)}


MARKING = """
import sys
from pathlib import Path
from tests.steering.runs import make_run, open_run
marks = open_run(Path(sys.argv[1]), make_run("01" * 100))
for number in range(marks.state.n_marks, 10_000):
    marks.mark_images([number % 200], f"class {number}")
    print(number + 1, flush=True)
"""


def test_a_kill_loses_no_mark_that_was_told(tmp_path: Path) -> None:
    run = make_run("01" * 100)
    generator = np.random.default_rng(0)
    n_told = 0
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", MARKING, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()  # it has begun
            time.sleep(generator.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            told = [*map(int, [first, *process.stdout.read().split()])]
        assert told[0] == n_told + 1
        n_told = told[-1]
        marks = open_run(tmp_path, run)
        assert marks.state.n_marks in (n_told, n_told + 1)  # the last may be told to nobody
        latest = marks.state.n_marks - 1
        assert marks.state.labels[latest % 200] == f"class {latest}"
        labels = {run.ids[row]: label for row, label in marks.state.labels.items()}
        assert read_labels(tmp_path, run) == labels
        n_told = marks.state.n_marks
    assert n_told > 20


@pytest.mark.parametrize("n_bytes", [1, 7, 30])
def test_a_mark_that_is_torn_is_dropped(
    marks: Marks, tmp_path: Path, n_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    before = marks.name_cluster(2, "dog")
    marks.merge_clusters([0, 1])
    journal = tmp_path / "marks.jsonl"
    journal.write_bytes(journal.read_bytes()[:-n_bytes])
    with caplog.at_level(logging.WARNING):
        again = open_run(tmp_path, make_run())
    assert same(again.state, before)
    assert read_labels(tmp_path, make_run()) == dict.fromkeys(["i6.png", "i7.png", "i8.png"], "dog")
    assert "is dropped" in caplog.text


# Another run of the same images


def test_a_name_follows_its_images(marks: Marks, tmp_path: Path) -> None:
    marks.name_cluster(0, "dog")
    marks.name_cluster(2, "cat")
    marks.mark_images([3], "owl")
    state = open_run(tmp_path, make_run("1110002220")).state
    assert state.names == {1: "dog", 2: "cat"}
    assert state.labels == {0: "dog", 1: "dog", 2: "dog", 3: "owl", 6: "cat", 7: "cat", 8: "cat"}
    assert not state.can_undo


def test_a_name_without_a_cluster_is_left_to_its_images(marks: Marks, tmp_path: Path) -> None:
    marks.name_cluster(2, "cat")
    marks.mark_images([9], "cat")
    again = open_run(tmp_path, make_run("0001112233"))
    assert again.state.names == {}
    assert again.state.labels == dict.fromkeys([6, 7, 8, 9], "cat")
    assert again.name_cluster(3, "tom").labels == {6: "cat", 7: "cat", 8: "tom", 9: "cat"}


def test_of_two_names_in_a_cluster_the_larger_counts(marks: Marks, tmp_path: Path) -> None:
    marks.name_cluster(0, "dog")
    marks.name_cluster(2, "cat")
    state = open_run(tmp_path, make_run("1110001111")).state
    assert state.names == {1: "cat"}
    assert state.labels == dict.fromkeys([0, 1, 2], "dog") | dict.fromkeys([6, 7, 8], "cat")


def test_the_run_itself_says_where_its_classes_are(marks: Marks, tmp_path: Path) -> None:
    state = marks.name_cluster(0, "dog")
    given = {"i0.png": "dog", "i1.png": "dog", "i2.png": "dog"}
    run = make_run("0001111112", names={0: "dog"}, given=given)
    again = open_run(tmp_path, run)
    assert again.state.names == {0: "dog"}
    assert again.state.labels == state.labels
    assert again.name_cluster(0, "hound").labels == dict.fromkeys([0, 1, 2], "hound")


def test_merges_and_splits_were_of_clusters_that_are_no_more(marks: Marks, tmp_path: Path) -> None:
    marks.merge_clusters([0, 1], "pet")
    state = marks.split_cluster(2, np.array([0, 0, 1, 1]))
    assert state.n_clusters == 3
    run = make_run("1111112200", names={1: "pet"}, given={"i0.png": "pet"})
    again = open_run(tmp_path, run).state
    assert again.groups == {}
    assert again.n_clusters == 3
    assert again.names == {0: "cluster 2.2", 1: "pet", 2: "cluster 2.1"}
    assert again.labels == state.labels


def test_wrong_stays_where_the_name_is_the_same(marks: Marks, tmp_path: Path) -> None:
    marks.name_cluster(0, "dog")
    marks.mark_wrong([2, 9])
    assert open_run(tmp_path, make_run("1110002222")).state.wrong == {2}
    assert open_run(tmp_path, make_run("1120002222")).state.wrong == frozenset()


def test_images_may_come_and_go(marks: Marks, tmp_path: Path) -> None:
    marks.name_cluster(2, "cat")
    fewer = make_run("00002", first=5)
    marks = open_run(tmp_path, fewer)
    assert marks.state.names == {0: "cat"}
    assert marks.mark_images([0], "owl").labels == {0: "owl", 1: "cat", 2: "cat", 3: "cat"}
    assert set(read_labels(tmp_path, fewer)) == {"i5.png", "i6.png", "i7.png", "i8.png"}
    assert open_run(tmp_path, make_run()).state.labels == {
        **{5: "owl", 6: "cat", 7: "cat", 8: "cat"},
    }


def test_labels_that_are_newer_count(marks: Marks, tmp_path: Path) -> None:
    marks.mark_images([0, 1], "dog")
    run = make_run(names={0: "cat"}, given={"i0.png": "cat", "i4.png": "cat"})
    assert open_run(tmp_path, run).state.labels == {0: "cat", 1: "dog", 4: "cat"}


def test_what_the_run_knew_can_be_changed(tmp_path: Path) -> None:
    run = make_run(names={0: "dog"}, given={"i0.png": "dog", "i1.png": "dog"})
    marks = open_run(tmp_path, run)
    assert marks.state.labels == {0: "dog", 1: "dog"}
    marks.clear([0])
    marks.mark_images([1], "cat")
    assert open_run(tmp_path, run).state.labels == {1: "cat"}
    assert marks.undo().labels == {1: "dog"}


def test_labels_that_were_there_before_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LABELS).write_text("path,label\ni3.png,dog\n/photos/i4.png,cat\n")
    marks = Marks(tmp_path, make_run(), np.arange(10), root="/photos")
    assert marks.state.labels == {3: "dog", 4: "cat"}
    assert "is taken for marks" in caplog.text
    assert marks.mark_images([5], "owl").labels == {3: "dog", 4: "cat", 5: "owl"}
    assert open_run(tmp_path, make_run()).state.labels == {3: "dog", 4: "cat", 5: "owl"}


def test_labels_csv_has_two_columns(marks: Marks, tmp_path: Path) -> None:
    marks.name_cluster(1, "dog, small")
    with (tmp_path / LABELS).open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["path", "label"], *([f"i{row}.png", "dog, small"] for row in (3, 4, 5))]


# Refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.name_cluster(3, "dog"), "must be one of the 3 that have images, got 3"),
        (lambda m: m.name_cluster(-1, "dog"), "must be one of the 3 that have images, got -1"),
        (lambda m: m.name_cluster(0, " "), "must have a letter"),
        (lambda m: m.name_cluster(0, "dog", shown=[10]), "must be below 10, got 10"),
        (lambda m: m.merge_clusters([1, 1]), "must be at least two, got [1]"),
        (lambda m: m.merge_clusters([1, 4]), "must be one of the 3 that have images, got 4"),
        (lambda m: m.merge_clusters([0, 1], "a\nb"), "must be one line"),
        (lambda m: m.split_cluster(0, np.zeros(3, int)), "must be at least two, cluster 0 has one"),
        (lambda m: m.split_cluster(0, np.arange(2)), "one for each of the 3 images of cluster 0"),
        (lambda m: m.split_cluster(0, np.arange(3.0)), "got float64 of shape (3,)"),
        (lambda m: m.mark_images([], "dog"), "must name at least one image"),
        (lambda m: m.mark_images([-1], "dog"), "must be below 10, got -1"),
        (lambda m: m.mark_images([0], ""), "must have a letter"),
        (lambda m: m.mark_right([0]), "cluster 0 of i0.png has none"),
        (lambda m: m.mark_wrong([11]), "must be below 10, got 11"),
        (lambda m: m.clear([]), "must name at least one image"),
        (lambda m: m.undo(), "must be a mark on this run to be undone"),
        (lambda m: m.redo(), "must be a mark that was undone last"),
    ],
)
def test_refuses_what_does_not_fit(
    marks: Marks, call: Callable[[Marks], State], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call(marks)
    assert not (tmp_path / LABELS).exists()
    assert marks.state.n_marks == 0
    assert marks.name_cluster(0, "dog").n_marks == 1


def test_refuses_a_journal_of_something_else(tmp_path: Path) -> None:
    journal = tmp_path / "marks.jsonl"
    journal.write_text('{"do": "name", "cluster": 0, "name": "dog", "examples": []}\n')
    with pytest.raises(ValueError, match=r"line 1 must be a mark, .*first line must be of a run"):
        open_run(tmp_path, make_run())
    journal.unlink()
    open_run(tmp_path, make_run()).name_cluster(0, "dog")
    journal.write_text(journal.read_text() + '{"do": "paint"}\n')
    with pytest.raises(ValueError, match=r"line 3 must be a mark, .*unknown mark 'paint'"):
        open_run(tmp_path, make_run())
    journal.write_text(journal.read_text().replace('"paint"', '"wrong"'))
    with pytest.raises(ValueError, match=r"line 3 must be a mark, .*KeyError"):
        open_run(tmp_path, make_run())
