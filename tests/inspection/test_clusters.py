from pathlib import Path

import numpy as np
import pytest

from tests.experiment import N_IMAGES, draw_features, known_labels, rank_images, write_run
from unic.inspection.clusters import describe_clusters, list_images
from unic.inspection.runs import Run, open_run

K, N_NEIGHBORS = 5, 6
ROWS = range(N_IMAGES)
SEEDS = {
    0: {"train": [row % 4 for row in ROWS], "test": [3]},
    1: {"train": [(row + (row % 7 == 0)) % 4 for row in ROWS], "test": [3]},
    2: {"train": [(row + 2 * (row % 5 == 0)) % 4 for row in ROWS], "test": [0]},
}
LABELS = {"train": [(row + (row % 6 == 0)) % 4 for row in ROWS], "test": [2]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("project") / "results" / "toy"
    return open_run(write_run(folder, SEEDS, labels=LABELS, n_clusters=K))


def neighbors_in_cluster(row: int) -> float:
    """Share of the neighbors of an image that are in its cluster, one by one."""
    order, _ = rank_images(draw_features())
    found = [other % 4 == row % 4 for other in order[row, 1:N_NEIGHBORS]]
    return float(np.mean(found))


def test_clusters_are_those_of_a_count_one_by_one(run: Run) -> None:
    described = describe_clusters(run)
    assert [about.cluster for about in described] == list(range(K))
    for about in described[:4]:
        members = [row for row in ROWS if row % 4 == about.cluster]
        classes = [LABELS["train"][row] for row in members]
        known = [label for row in members if (label := int(known_labels()[row])) >= 0]
        majority = max(sorted(set(classes)), key=classes.count)
        assert (about.size, about.share) == (len(members), len(members) / N_IMAGES)
        assert about.confidence == pytest.approx(np.mean([1 - row / 100 for row in members]))
        assert about.least_confidence == pytest.approx(1 - max(members) / 100)
        expected = np.mean([neighbors_in_cluster(row) for row in members])
        assert about.neighbor_agreement == pytest.approx(expected)
        assert about.majority_class == f"class {majority}"
        assert about.purity == pytest.approx(classes.count(majority) / len(members))
        assert about.n_labeled == len(known)
        assert about.known_label == str(max(sorted(set(known)), key=known.count))


def test_an_empty_cluster_says_nothing(run: Run) -> None:
    empty = describe_clusters(run)[4]
    assert (empty.size, empty.share, empty.n_labeled, empty.nearest) == (0, 0.0, 0, [])
    assert np.isnan(empty.confidence)
    assert np.isnan(empty.least_confidence)
    assert (empty.neighbor_agreement, empty.seed_agreement) == (None, None)
    assert (empty.known_label, empty.majority_class, empty.purity) == (None, None, None)
    assert len(list_images(run, 4)) == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_are_the_means_in_the_metric_of_the_neighbors(metric: str, tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "results" / "toy", SEEDS, metric=metric))
    features = draw_features().astype(np.float64)
    if metric == "cosine":
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([features[np.arange(N_IMAGES) % 4 == c].mean(axis=0) for c in range(4)])
    for about in describe_clusters(run):
        distances = np.linalg.norm(means - means[about.cluster], axis=1)
        assert about.nearest == np.argsort(distances)[1:4].tolist()


def test_seeds_agree_where_they_have_the_same_cluster(run: Run) -> None:
    images = list_images(run, 0).set_index("row")
    for row, found in images["seed_agreement"].items():
        agrees = [SEEDS[seed]["train"][int(str(row))] == 0 for seed in (1, 2)]
        assert found == np.mean(agrees)
    assert describe_clusters(run)[0].seed_agreement == pytest.approx(
        images["seed_agreement"].mean()
    )


def test_images_come_from_most_to_least_confident(run: Run) -> None:
    images = list_images(run, 2)
    assert images["row"].tolist() == [row for row in ROWS if row % 4 == 2]
    assert images["confidence"].is_monotonic_decreasing
    assert images["image_id"].tolist() == [f"train/a/{row}.png" for row in images["row"]]
    for row, agreement in zip(images["row"], images["neighbor_agreement"], strict=True):
        assert agreement == pytest.approx(neighbors_in_cluster(row))
    expected = [f"class {LABELS['train'][row]}" for row in images["row"]]
    assert images["class"].tolist() == expected
    known = [str(known_labels()[row]) if row < 10 else None for row in images["row"]]
    assert images["known_label"].tolist() == known


def test_test_images_have_no_neighbors_and_no_known_labels(run: Run) -> None:
    (images,) = (list_images(run, 3, split="test"),)
    assert images.columns.tolist() == ["row", "image_id", "confidence", "seed_agreement", "class"]
    about = describe_clusters(run, split="test")[3]
    assert (about.size, about.neighbor_agreement, about.n_labeled) == (1, None, 0)
    assert about.majority_class == "class 2"


def test_one_seed_without_labels_and_features_says_less(tmp_path: Path) -> None:
    one = {0: SEEDS[0]}
    folder = write_run(tmp_path / "results" / "toy", one, stages=["neighbors"])
    run = open_run(folder)
    about = describe_clusters(run)[1]
    assert (about.seed_agreement, about.known_label, about.majority_class) == (None, None, None)
    assert about.nearest == []
    assert about.neighbor_agreement is not None
    columns = ["row", "image_id", "confidence", "neighbor_agreement"]
    assert list_images(run, 1).columns.tolist() == columns


@pytest.mark.parametrize("cluster", [-1, K])
def test_an_unknown_cluster_is_named(run: Run, cluster: int) -> None:
    with pytest.raises(ValueError, match=f"cluster must be from 0 to 4, got {cluster}"):
        list_images(run, cluster)
