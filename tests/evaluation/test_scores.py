from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from unic.evaluation.metrics import clustering_scores, gcd_accuracy
from unic.evaluation.scores import Truth, evaluate, make_truth
from unic.storage.prediction_tables import tabulate
from unic.storage.stores import open_store, write_known_labels, write_labels

IDS = {"train": [f"train/{row}.png" for row in range(40)], "test": [f"{row}" for row in range(10)]}
N_OLD = 2


def true_labels() -> dict[str, NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    return {split: generator.integers(4, size=len(ids)) for split, ids in IDS.items()}


def make_example(*, n_labeled: int = 0, is_annotated: bool = True) -> Truth:
    labels = true_labels()
    is_labeled = np.zeros(40, dtype=np.bool_)
    is_labeled[np.flatnonzero(labels["train"] < N_OLD)[:n_labeled]] = True
    return Truth(
        image_ids=IDS,
        labels=labels if is_annotated else None,
        is_old={split: rows < N_OLD for split, rows in labels.items()},
        is_labeled=is_labeled,
        class_names=list("abcd"),
    )


def draw_clusters(seed: int) -> dict[str, NDArray[np.int64]]:
    """Two thirds right."""
    generator = np.random.default_rng(seed)
    return {
        split: np.where(
            generator.random(len(rows)) < 0.66, rows, generator.integers(4, size=len(rows))
        )
        for split, rows in true_labels().items()
    }


def make_predictions(clusters: dict[str, NDArray[np.int64]], *, seed: int = 0) -> pd.DataFrame:
    found = {s: (rows, np.ones(len(rows), dtype=np.float32)) for s, rows in clusters.items()}
    return tabulate("unic", seed, IDS, found)


# Against the metrics


def test_clustering_scores_every_split_of_every_seed() -> None:
    tables = [make_predictions(draw_clusters(seed), seed=seed) for seed in (3, 5)]
    scores = evaluate(pd.concat(tables, ignore_index=True), make_example())
    assert list(scores) == ["unic"]
    assert list(scores["unic"]) == ["3", "5"]
    for seed in (3, 5):
        assert list(scores["unic"][str(seed)]) == ["train", "test"]
        for split, clusters in draw_clusters(seed).items():
            found = scores["unic"][str(seed)][split]
            expected = clustering_scores(true_labels()[split], clusters)._asdict()
            assert found == expected | {"used_clusters": len(set(clusters.tolist()))}


def test_gcd_scores_the_unlabeled_training_images_alone() -> None:
    truth, clusters = make_example(n_labeled=8), draw_clusters(0)
    scores = evaluate(make_predictions(clusters), truth)
    assert list(scores["unic"]["0"]) == ["unlabeled"]
    rows = ~truth.is_labeled
    labels = true_labels()["train"]
    expected = gcd_accuracy(labels[rows], clusters["train"][rows], is_old=labels[rows] < N_OLD)
    found = scores["unic"]["0"]["unlabeled"]
    assert (found["all"], found["old"], found["new"]) == expected
    assert list(found) == ["all", "old", "new", "nmi", "ami", "ari", "used_clusters"]


def test_methods_are_kept_apart() -> None:
    ours = make_predictions(draw_clusters(0))
    theirs = make_predictions(draw_clusters(1)).assign(method="kmeans")
    scores = evaluate(pd.concat([ours, theirs]), make_example())
    assert scores["unic"] == evaluate(ours, make_example())["unic"]
    assert scores["kmeans"] == evaluate(theirs, make_example())["kmeans"]


# Laws


def test_clusters_of_labeled_images_do_not_matter() -> None:
    truth, clusters = make_example(n_labeled=8), draw_clusters(0)
    before = evaluate(make_predictions(clusters), truth)
    clusters["train"][truth.is_labeled] = 99
    assert evaluate(make_predictions(clusters), truth) == before


def test_without_labels_only_used_clusters_are_counted() -> None:
    clusters = {"train": np.arange(40) % 3, "test": np.zeros(10, dtype=np.int64)}
    scores = evaluate(make_predictions(clusters), make_example(is_annotated=False))
    assert scores["unic"]["0"] == {"train": {"used_clusters": 3}, "test": {"used_clusters": 1}}


# Truth from stores


def write_truth(
    folder: Path,
    *,
    ids: dict[str, list[str]] | None = None,
    known: int = 0,
    unknown: int = 0,
    n_old: int = 0,
) -> tuple[Path, Path]:
    ids = ids or IDS
    labels = {split: true_labels()[split] for split in ids}
    labels["train"][:unknown] = -1
    is_old = {split: np.isin(rows, range(n_old)) for split, rows in labels.items()}
    known_labels = np.full(40, -1, dtype=np.int64)
    known_labels[:known] = 0
    paths = folder / "labels.zarr" / "zarr.json", folder / "known_labels.zarr" / "zarr.json"
    write_labels(paths[0], labels, is_old, ids, class_names=list("abcd"))
    write_known_labels(paths[1], known_labels, ids["train"])
    return paths


def read_truth(paths: tuple[Path, Path], ids: dict[str, list[str]]) -> Truth:
    return make_truth(
        ids, open_store(paths[0], kind="labels"), open_store(paths[1], kind="known_labels")
    )


def test_truth_is_read_from_the_stores(tmp_path: Path) -> None:
    truth = read_truth(write_truth(tmp_path, known=5, n_old=N_OLD), IDS)
    assert truth.is_gcd
    assert truth.is_labeled.tolist() == [True] * 5 + [False] * 35
    assert truth.class_names == list("abcd")
    assert truth.labels is not None
    for split, rows in true_labels().items():
        np.testing.assert_array_equal(truth.labels[split], rows)
        np.testing.assert_array_equal(truth.is_old[split], rows < N_OLD)


def test_no_known_label_means_clustering(tmp_path: Path) -> None:
    assert not read_truth(write_truth(tmp_path), IDS).is_gcd


def test_a_label_that_nobody_knows_means_no_labels(tmp_path: Path) -> None:
    assert read_truth(write_truth(tmp_path, unknown=1), IDS).labels is None


# Refusals


def test_refuses_truth_of_other_images(tmp_path: Path) -> None:
    paths = write_truth(tmp_path)
    other = {**IDS, "test": IDS["test"][::-1]}
    with pytest.raises(ValueError, match=r"labels\.zarr must be of the test images of the index"):
        read_truth(paths, other)
    other = {**IDS, "train": IDS["train"][::-1]}
    with pytest.raises(ValueError, match=r"labels\.zarr must be of the train images of the index"):
        read_truth(paths, other)


def test_refuses_old_classes_of_which_no_image_is_labeled(tmp_path: Path) -> None:
    paths = write_truth(tmp_path, n_old=N_OLD)
    with pytest.raises(ValueError, match=r"must label images of old classes, .* has 17, it"):
        read_truth(paths, IDS)


def test_refuses_truth_without_a_split(tmp_path: Path) -> None:
    paths = write_truth(tmp_path, ids={"train": IDS["train"]})
    with pytest.raises(ValueError, match=r"labels\.zarr must be of the test images of the index"):
        read_truth(paths, IDS)


def test_refuses_predictions_in_another_order() -> None:
    predictions = make_predictions(draw_clusters(0), seed=7)
    swapped = [1, 0, *range(2, len(predictions))]
    message = "predictions of seed 7 must be of the train images, in order"
    with pytest.raises(ValueError, match=message):
        evaluate(predictions.iloc[swapped], make_example())


def test_refuses_predictions_of_some_images() -> None:
    predictions = make_predictions(draw_clusters(0))
    with pytest.raises(ValueError, match="must be of the test images, in order"):
        evaluate(predictions.iloc[:-1], make_example())


def test_refuses_predictions_of_a_split_that_is_not() -> None:
    predictions = make_predictions(draw_clusters(0)).replace({"split": {"test": "val"}})
    with pytest.raises(ValueError, match="must be of the val images, in order"):
        evaluate(predictions, make_example())


def test_known_labels_without_truth_leave_no_score_but_used_clusters() -> None:
    truth = make_example(n_labeled=8, is_annotated=False)
    scores = evaluate(make_predictions(draw_clusters(0)), truth)
    for of_method in scores.values():
        for of_seed in of_method.values():
            assert set(of_seed["unlabeled"]) == {"used_clusters"}
