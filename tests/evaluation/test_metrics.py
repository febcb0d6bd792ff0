import re
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)

from unic.evaluation.metrics import (
    align_clusters,
    balanced_accuracy,
    cluster_accuracy,
    clustering_scores,
    cross_tabulate,
    gcd_accuracy,
    match_clusters,
    name_clusters,
)

Integers = NDArray[np.int64]


@st.composite
def labels_and_predictions(draw: st.DrawFn) -> tuple[Integers, Integers]:
    """A few images; more clusters than classes, fewer, or as many."""
    n_images = draw(st.integers(1, 12))
    columns = [
        draw(
            st.lists(st.integers(0, draw(st.integers(0, 4))), min_size=n_images, max_size=n_images)
        )
        for _ in range(2)
    ]
    return np.array(columns[0], dtype=np.int64), np.array(columns[1], dtype=np.int64)


def reference_hits(labels: Integers, predictions: Integers) -> list[tuple[int, list[bool]]]:
    """Number of hits, and the hits, of every one-to-one matching of clusters and classes."""
    size = max(labels.max(), predictions.max()) + 1
    found = []
    for matching in permutations(range(size)):
        hits = [
            matching[cluster] == label
            for cluster, label in zip(predictions.tolist(), labels.tolist(), strict=True)
        ]
        found.append((sum(hits), hits))
    return found


# Against all permutations and scikit-learn


@settings(max_examples=60, deadline=None)
@given(drawn=labels_and_predictions())
def test_cluster_accuracy_is_that_of_the_best_of_all_matchings(
    drawn: tuple[Integers, Integers],
) -> None:
    labels, predictions = drawn
    best = max(count for count, _ in reference_hits(labels, predictions))
    assert cluster_accuracy(labels, predictions) == pytest.approx(best / len(labels))


@settings(max_examples=60, deadline=None)
@given(drawn=labels_and_predictions())
def test_balanced_accuracy_is_the_best_mean_recall_of_all_matchings(
    drawn: tuple[Integers, Integers],
) -> None:
    labels, predictions = drawn
    classes = np.unique(labels)
    means = [
        np.mean([np.mean(np.array(hits)[labels == label]) for label in classes])
        for _, hits in reference_hits(labels, predictions)
    ]
    assert balanced_accuracy(labels, predictions) == pytest.approx(max(means))


@settings(max_examples=60, deadline=None)
@given(drawn=labels_and_predictions(), n_old=st.integers(1, 4))
def test_gcd_accuracy_is_that_of_one_best_matching(
    drawn: tuple[Integers, Integers], n_old: int
) -> None:
    labels, predictions = drawn
    labels = np.append(labels, [0, 4])  # an old and a new image at least
    predictions = np.append(predictions, [0, 0])
    is_old = labels < n_old
    scores = gcd_accuracy(labels, predictions, is_old=is_old)
    found = reference_hits(labels, predictions)
    best = max(count for count, _ in found)
    candidates = {
        (np.mean(np.array(hits)[is_old]), np.mean(np.array(hits)[~is_old]))
        for count, hits in found
        if count == best
    }
    assert scores.all == pytest.approx(best / len(labels))
    assert any((scores.old, scores.new) == pytest.approx(pair) for pair in candidates)


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(10, 10), (10, 4), (4, 10), (1, 3), (3, 1)])
def test_other_scores_are_those_of_scikit_learn(n_classes: int, n_clusters: int) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(n_classes, size=300)
    noise = generator.integers(n_clusters, size=300)
    predictions = np.where(generator.random(300) < 0.6, labels % n_clusters, noise)
    scores = clustering_scores(labels, predictions)
    arithmetic = normalized_mutual_info_score(labels, predictions, average_method="arithmetic")
    assert scores.acc == cluster_accuracy(labels, predictions)
    assert scores.nmi == pytest.approx(arithmetic)
    assert scores.ami == pytest.approx(adjusted_mutual_info_score(labels, predictions))
    assert scores.ari == pytest.approx(adjusted_rand_score(labels, predictions))


# Laws


@pytest.mark.parametrize("n_classes", [1, 2, 7])
def test_of_equal_classes_balanced_accuracy_is_accuracy(n_classes: int) -> None:
    labels = np.repeat(np.arange(n_classes), 9)
    predictions = np.random.default_rng(0).integers(n_classes, size=len(labels))
    balanced = balanced_accuracy(labels, predictions)
    assert balanced == pytest.approx(cluster_accuracy(labels, predictions))


@settings(max_examples=30, deadline=None)
@given(drawn=labels_and_predictions(), seed=st.integers(0, 99))
def test_names_and_order_change_nothing(drawn: tuple[Integers, Integers], seed: int) -> None:
    labels, predictions = drawn
    generator = np.random.default_rng(seed)
    new_clusters, new_classes = generator.permutation(5), generator.permutation(5)
    order = generator.permutation(len(labels))
    renamed = clustering_scores(new_classes[labels][order], new_clusters[predictions][order])
    assert renamed == pytest.approx(clustering_scores(labels, predictions))


@settings(max_examples=30, deadline=None)
@given(drawn=labels_and_predictions())
def test_all_is_the_weighted_mean_of_old_and_new(drawn: tuple[Integers, Integers]) -> None:
    labels, predictions = np.append(drawn[0], [0, 4]), np.append(drawn[1], [1, 1])
    is_old = labels < 2
    scores = gcd_accuracy(labels, predictions, is_old=is_old)
    share = is_old.mean()
    assert scores.all == pytest.approx(share * scores.old + (1 - share) * scores.new)
    assert scores.all == pytest.approx(cluster_accuracy(labels, predictions))


def test_perfect_clusters_score_1() -> None:
    labels = np.repeat(np.arange(6), 5)
    assert clustering_scores(labels, (labels + 2) % 6) == pytest.approx((1, 1, 1, 1, 1))


def test_one_cluster_hits_the_largest_class() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2])
    assert cluster_accuracy(labels, np.full(6, 4)) == 0.5


def test_clusters_beyond_the_classes_are_wrong() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    predictions = np.array([0, 0, 1, 1, 2, 2])
    assert cluster_accuracy(labels, predictions) == pytest.approx(4 / 6)


def test_gaps_in_the_numbers_do_not_matter() -> None:
    labels, predictions = np.array([7, 7, 0, 0]), np.array([30, 30, 12, 30])
    assert cluster_accuracy(labels, predictions) == 0.75


def test_old_and_new_share_one_matching() -> None:
    # Cluster 0 is best for the 3 old images of class 0 and for the 4 new ones of class 2. With a
    # matching for each of Old and New ("v1") both would be right; with one, Old pays.
    labels = np.array([0, 0, 0, 1, 2, 2, 2, 2])
    predictions = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    scores = gcd_accuracy(labels, predictions, is_old=labels < 2)
    assert scores == pytest.approx((5 / 8, 1 / 4, 1.0))


def test_the_matching_is_one_to_one() -> None:
    generator = np.random.default_rng(0)
    matching = match_clusters(generator.integers(7, size=50), generator.integers(11, size=50))
    assert sorted(matching.tolist()) == list(range(11))


@pytest.mark.parametrize("seed", range(20))
def test_the_pairs_of_a_report_are_those_of_the_accuracy(seed: int) -> None:
    generator = np.random.default_rng(seed)  # few images, so that many matchings are as good
    labels, predictions = generator.integers(6, size=(2, 12))
    labels[0], predictions[0] = 5, 5
    counts = cross_tabulate(labels, predictions, n_clusters=6)
    classes, clusters = align_clusters(counts)
    assert classes.tolist() == list(range(6))
    assert match_clusters(labels, predictions)[clusters].tolist() == list(range(6))
    accuracy = cluster_accuracy(labels, predictions)
    assert counts[classes, clusters].sum() / 12 == pytest.approx(accuracy)


def test_arguments_are_left_alone() -> None:
    labels, predictions = np.array([1, 0, 2]), np.array([2, 2, 0])
    gcd_accuracy(labels, predictions, is_old=labels < 1)
    assert labels.tolist() == [1, 0, 2]
    assert predictions.tolist() == [2, 2, 0]


# Refusals


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([0, 1], [0, 1, 1], "of one length, got (2,) and (3,)"),
        ([], [], "non-empty, one-dimensional and of one length, got (0,) and (0,)"),
        ([[0, 1]], [[0, 1]], "got (1, 2) and (1, 2)"),
        ([0, -1], [0, 1], "labels must be >= 0, got -1 in row 1"),
        ([0, 1, 1], [0, 0, -7], "predictions must be >= 0, got -7 in row 2"),
    ],
)
def test_refuses_what_is_no_clustering(
    labels: list[int], predictions: list[int], message: str
) -> None:
    arrays = np.array(labels, dtype=np.int64), np.array(predictions, dtype=np.int64)
    for score in (match_clusters, cluster_accuracy, clustering_scores):
        with pytest.raises(ValueError, match=re.escape(message)):
            score(*arrays)


@pytest.mark.parametrize(
    ("is_old", "message"),
    [
        ([True, True, True], "of old and of new classes, got 3 old and 0 new"),
        ([False, False, False], "of old and of new classes, got 0 old and 3 new"),
        ([True, False], "is_old must have the shape of labels (3,), got (2,)"),
    ],
)
def test_refuses_gcd_without_old_or_new_images(is_old: list[bool], message: str) -> None:
    labels = np.array([0, 1, 2])
    with pytest.raises(ValueError, match=re.escape(message)):
        gcd_accuracy(labels, labels, is_old=np.array(is_old))


def test_clusters_are_named_after_their_labeled_images() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 300)
    clusters = np.array([4, 2, 0, 5, 1, 3])[truth]  # numbered anew
    known = np.where((rng.random(300) < 0.1) & (truth < 3), truth, -1)
    names = name_clusters(clusters, known, ["a", "b", "c"], n_clusters=7)
    assert names == ["c", "", "b", "", "a", "", ""]
    nothing = name_clusters(clusters, np.full(300, -1), [], n_clusters=7)
    assert nothing == [""] * 7


def test_two_clusters_of_one_class_do_not_both_have_its_name() -> None:
    clusters, known = np.array([0, 0, 1]), np.array([0, 0, 0])
    assert name_clusters(clusters, known, ["a"], n_clusters=2) == ["a", ""]


def test_classes_without_names_have_numbers() -> None:
    clusters, known = np.array([1, 0, 0]), np.array([0, 3, -1])
    assert name_clusters(clusters, known, [], n_clusters=2) == ["3", "0"]
