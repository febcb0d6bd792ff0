"""Boards by themselves; tests/steering/test_marks.py has what people do with them."""

import json

import numpy as np
import pytest

from tests.steering.runs import make_run
from unic.steering.board import Board, Run
from unic.steering.journal import Line


def put(run: Run, *lines: Line) -> Board:
    board = Board(run)
    for line in lines:
        board.put(line)
    return board


def name(cluster: int, said: str, *examples: str) -> Line:
    return {"do": "name", "cluster": cluster, "name": said, "examples": list(examples)}


def place_slowly(board: Board, run: Run) -> dict[int, str]:
    """Names by cluster of another run: of every pair the images are counted."""
    clusters = {image: int(cluster) for image, cluster in zip(run.ids, run.clusters, strict=True)}
    wanted: dict[int, list[tuple[int, str]]] = {}
    for cluster, said in board.names.items():
        own = [i for i, c in zip(board.run.ids, board.clusters, strict=True) if c == cluster]
        there = [clusters[image] for image in own if image in clusters]
        for place in set(there):
            if 2 * there.count(place) > len(there):
                wanted.setdefault(place, []).append((there.count(place), said))
    return {place: max(found, key=lambda each: each[0])[1] for place, found in wanted.items()}


def test_a_run_comes_back_from_its_line() -> None:
    run = make_run(names={1: "dög"}, given={"i3.png": "dög"}, n_clusters=7)
    line = json.loads(json.dumps(run.line()))
    again = Run.of_line(line)
    assert again.clusters.tolist() == run.clusters.tolist()
    assert again._replace(clusters=run.clusters) == run
    assert again.line() == line


@pytest.mark.parametrize("changed", [{"n_clusters": 4}, {"names": {0: "x"}}, {"first": 1}])
def test_runs_that_differ_have_other_digests(changed: dict[str, object]) -> None:
    assert make_run(**changed).line()["digest"] != make_run().line()["digest"]  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_names_go_where_most_of_their_images_are(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first = make_run("0123" * 10)
    board = put(first, *(name(cluster, f"class {cluster}") for cluster in range(4)))
    moved = np.where(generator.random(40) < 0.4, generator.integers(4, size=40), first.clusters)
    shown = generator.permutation(4)[moved]
    run = Run(first.ids[5:], shown[5:], 4, {}, {})
    assert board.carry_over(run).names == place_slowly(board, run)


def test_a_run_that_is_carried_over_to_itself_says_the_same() -> None:
    board = put(make_run(), name(0, "dog", "i0.png"), {"do": "wrong", "images": ["i1.png"]})
    again = board.carry_over(board.run)
    assert (again.names, again.wrong, again.labels()) == (board.names, board.wrong, board.labels())


def test_carrying_over_changes_nothing_of_what_was() -> None:
    board = put(make_run(), name(0, "dog", "i0.png"))
    board.carry_over(make_run("1110002222")).put(name(1, "cat", "i2.png"))
    assert board.names == {0: "dog"}
    assert board.labels() == {"i0.png": "dog"}


def test_counts_at_least_two_clusters() -> None:
    board = put(make_run("0001"), {"do": "merge", "clusters": [0, 1], "name": "x", "examples": []})
    assert board.count_clusters() == 2
    assert board.n_clusters == 1


def test_refuses_marks_of_later_versions() -> None:
    with pytest.raises(ValueError, match=r"unknown mark 'paint'"):
        put(make_run(), {"do": "paint"})
