import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from unic.steering.marks import State
from unic.steering.suggestions import Suggestion, suggest_images


def make_state(
    clusters: NDArray[np.int64],
    labels: dict[int, str] | None = None,
    *,
    names: dict[int, str] | None = None,
    wrong: frozenset[int] = frozenset(),
) -> State:
    n_clusters = int(clusters.max()) + 1
    return State(
        names or {}, {}, clusters, labels or {}, frozenset(), wrong, n_clusters, 0, False, False
    )


def find_neighbors(points: NDArray[np.float64], n_neighbors: int = 10) -> NDArray[np.int64]:
    distances = cdist(points, points)
    np.fill_diagonal(distances, -1.0)
    return np.argsort(distances, axis=1, kind="stable")[:, : n_neighbors + 1]


def make_groups(sizes: list[int], seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Points in groups far from each other."""
    generator = np.random.default_rng(seed)
    own = np.repeat(np.arange(len(sizes)), sizes)
    return np.stack([100.0 * own, 0.0 * own], 1) + generator.normal(size=(len(own), 2)), own


def suggest_slowly(
    indices: NDArray[np.int64], labeled: list[int], n_suggested: int
) -> tuple[list[int], list[int]]:
    """With the whole matrix of walks, and every image tried each time."""
    n_images = len(indices)
    graph = np.zeros((n_images, n_images))
    for row, near in enumerate(indices[:, 1:11]):
        for other in near:
            graph[row, other] += 1
            graph[other, row] += 1
    step = graph / graph.sum(axis=1, keepdims=True)
    walk = (np.eye(n_images) + step + step @ step) / 3
    chosen = list(labeled)
    for _ in range(n_suggested):
        covered = walk[:, chosen].max(axis=1, initial=0.0)
        gains = np.maximum(walk - covered[:, None], 0.0).sum(axis=0)
        gains[chosen] = -1.0
        chosen.append(int(gains.round(9).argmax()))
    nearest = np.array(chosen)[walk[:, chosen].argmax(axis=1)]
    is_covered = walk[:, chosen].max(axis=1) > 0
    is_covered[labeled] = False
    new = chosen[len(labeled) :]
    return new, [max(1, int((nearest[is_covered] == row).sum())) for row in new]


def rows_of(suggestions: list[Suggestion]) -> list[int]:
    return [each.row for each in suggestions]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_labeled", [0, 7])
def test_is_the_greedy_choice(seed: int, n_labeled: int) -> None:
    generator = np.random.default_rng(seed)
    indices = find_neighbors(generator.normal(size=(90, 2)), 4)
    labeled = generator.choice(90, n_labeled, replace=False).tolist()
    state = make_state(np.zeros(90, dtype=np.int64), dict.fromkeys(labeled, "dog"))
    found = suggest_images(state, indices, n_suggested=12)
    rows, counts = suggest_slowly(indices, labeled, 12)
    assert rows_of(found) == rows
    assert [each.n_alike for each in found] == counts


def test_goes_to_every_group_before_it_comes_back() -> None:
    points, own = make_groups([40, 30, 20, 12])
    found = rows_of(suggest_images(make_state(own), find_neighbors(points), n_suggested=4))
    assert sorted(own[found].tolist()) == [0, 1, 2, 3]


def test_what_has_a_label_is_left_to_it() -> None:
    points, own = make_groups([12, 12, 12])
    state = make_state(own, {3: "dog", 15: "cat"})
    found = suggest_images(state, find_neighbors(points), n_suggested=1)
    assert own[found[0].row] == 2


def test_strangers_are_not_asked_about() -> None:
    points, own = make_groups([40, 40])
    points = np.concatenate([points, [[5000.0, 0.0]]])
    state = make_state(np.append(own, 0))
    assert 80 not in rows_of(suggest_images(state, find_neighbors(points), n_suggested=10))


def test_the_same_input_gives_the_same_images() -> None:
    points, own = make_groups([30, 30])
    indices = find_neighbors(points)
    assert suggest_images(make_state(own), indices) == suggest_images(make_state(own), indices)


def test_there_may_be_fewer_images() -> None:
    points, own = make_groups([3, 3])
    labels = dict.fromkeys(range(4), "dog")
    found = suggest_images(make_state(own, labels), find_neighbors(points, 2))
    assert sorted(rows_of(found)) == [4, 5]
    assert (
        suggest_images(make_state(own, dict.fromkeys(range(6), "dog")), find_neighbors(points))
        == []
    )


def test_says_why() -> None:
    points, own = make_groups([30, 30])
    indices = find_neighbors(points)
    state = make_state(own, {1: "dog"}, names={0: "dog"})
    first = suggest_images(state, indices, n_suggested=1)[0]
    assert first.reason.startswith("in cluster 1, of which no image has a label; ")
    assert first.reason.endswith(f"{first.n_alike} images like it")
    halves = np.where(points[:, 0] < np.median(points[:30, 0]), 0, own + 1)
    reasons = [each.reason for each in suggest_images(make_state(halves), indices, n_suggested=30)]
    assert any("between cluster 0 and cluster 1" in reason for reason in reasons)
    row = suggest_images(make_state(own), indices, n_suggested=1)[0].row
    state = make_state(own, {(row + 1) % 60: "cat"}, names={0: "a", 1: "b"}, wrong=frozenset([row]))
    reasons = [each.reason for each in suggest_images(state, indices, n_suggested=59)]
    assert any(reason.startswith("marked as not of ") for reason in reasons)


def test_refuses_neighbors_of_other_images() -> None:
    points, own = make_groups([5, 5])
    with pytest.raises(ValueError, match=r"must be neighbors of the 10 images, got shape \(9, 5\)"):
        suggest_images(make_state(own), find_neighbors(points[:9], 4))
