import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import unic
from unic.evaluation.scores import Truth
from unic.evaluation.summary import choose_shown, summarize, summarize_seeds
from unic.images.index import Skipped
from unic.storage.prediction_tables import tabulate
from unic.storage.stores import Store, open_store, write_store


def make_truth(*, n_labeled: int = 0, has_test: bool = True, is_annotated: bool = True) -> Truth:
    ids = {"train": list("abcdef"), "test": list("xyz")}
    labels = {"train": np.array([0, 1, 2, 0, 1, 2]), "test": np.array([2, 1, 0])}
    if not has_test:
        ids.pop("test")
        labels.pop("test")
    return Truth(
        image_ids=ids,
        labels=labels if is_annotated else None,
        is_old={split: rows < 2 for split, rows in labels.items()},
        is_labeled=np.arange(6) < n_labeled,
        class_names=["cat", "dog", "elk"] if is_annotated else [],
    )


def make_predictions(truth: Truth, *, seed: int = 4) -> pd.DataFrame:
    def found(n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return np.arange(n), np.linspace(0.5, 1, n, dtype=np.float32)

    sizes = {split: len(ids) for split, ids in truth.image_ids.items()}
    clusters = {split: found(size) for split, size in sizes.items()}
    return tabulate("unic", seed, truth.image_ids, clusters)


def make_positives(folder: Path) -> Store:
    path = folder / "positives.zarr" / "zarr.json"
    arrays = {
        "union_size": np.array([3, 9, 4, 4, 8, 3], dtype=np.int32),
        "is_clean": np.array([True, False, True, True, False, True]),
        "reciprocity": np.array([1, 0.5, 0, 1, 1, 1], dtype=np.float32),
        "indices": np.array([[0, 3], [1, 1], [2, 3], [3, 0], [4, 4], [5, 0]]),
    }
    parameters = {
        "backbone": "vit",
        "n_neighbors": 2,
        "far_rank": 4,
        "mining": {"engine": "faiss_ivf", "recall": 0.9375, "far_kept": 6, "far_sampled": 8},
        "max_union_size": 5,
        "quantile": 0.6,
    }
    write_store(
        path,
        kind="positives",
        arrays={"train": arrays},
        images={"train": "0"},
        parameters=parameters,
    )
    return open_store(path, kind="positives")


# Over seeds


def test_mean_std_and_values_are_those_of_the_seeds() -> None:
    scores = {
        "2": {"test": {"acc": 0.9, "nmi": 0.5}},
        "0": {"test": {"acc": 0.6, "nmi": 0.5}},
        "1": {"test": {"acc": 0.3, "nmi": 0.5}},
    }
    found = summarize_seeds(scores, [0, 1, 2])["test"]
    assert found["acc"]["mean"] == pytest.approx(0.6)
    assert found["acc"]["std"] == pytest.approx(0.3)  # n - 1
    assert found["acc"]["values"] == [0.6, 0.3, 0.9]
    assert found["nmi"]["std"] == 0
    assert summarize_seeds(scores, [2, 0])["test"]["acc"]["values"] == [0.9, 0.6]


def test_one_seed_has_no_deviation() -> None:
    found = summarize_seeds({"7": {"train": {"acc": 0.25}}}, [7])
    assert found == {"train": {"acc": {"mean": 0.25, "std": 0.0, "values": [0.25]}}}


def test_a_missing_seed_does_not_pass() -> None:
    with pytest.raises(KeyError, match="1"):
        summarize_seeds({"0": {"train": {"acc": 0.25}}}, [0, 1])


# The whole


def test_simgcd_has_a_seed_of_its_own(tmp_path: Path) -> None:
    both = {"0": {"test": {"acc": 0.5}}, "1": {"test": {"acc": 1.0}}}
    scores = {"unic": both, "simgcd": {"7": {"test": {"acc": 0.25}}}}

    def run(found: dict[str, Any]) -> dict[str, Any]:
        return summarize(
            found,
            make_truth(),
            make_positives(tmp_path),
            experiment="toy",
            n_clusters=3,
            seeds=[0, 1],
            stage_owners={},
        )

    methods = run(scores)["methods"]
    assert methods["simgcd"]["test"]["acc"] == {"mean": 0.25, "std": 0.0, "values": [0.25]}
    assert methods["unic"]["test"]["acc"]["values"] == [0.5, 1.0]
    with pytest.raises(KeyError, match="0"):
        run({"unic": scores["simgcd"]})


@pytest.mark.parametrize(("n_labeled", "task"), [(0, "clustering"), (2, "gcd")])
def test_the_summary_says_what_was_done(tmp_path: Path, n_labeled: int, task: str) -> None:
    truth = make_truth(n_labeled=n_labeled)
    scores = {m: {"0": {"test": {"acc": 0.5}}, "1": {"test": {"acc": 1.0}}} for m in ("unic", "km")}
    summary = summarize(
        scores,
        truth,
        make_positives(tmp_path),
        experiment="toy",
        n_clusters=3,
        seeds=[0, 1],
        stage_owners={"mine_neighbors": "other"},
        skipped=[Skipped("train", f"{number}.png", "why") for number in range(12)],
    )
    assert json.loads(json.dumps(summary)) == summary
    methods = summary.pop("methods")
    assert list(methods) == ["unic", "km"]
    assert methods["km"]["test"]["acc"]["mean"] == 0.75
    assert summary == {
        "experiment": "toy",
        "task": task,
        "version": unic.__version__,
        "n_images": {"train": 6, "test": 3},
        "n_skipped": 12,
        "skipped": [{"split": "train", "image_id": f"{n}.png", "reason": "why"} for n in range(10)],
        "n_clusters": 3,
        "n_classes": 3,
        "n_labeled": n_labeled,
        "seeds": [0, 1],
        "neighbors": {
            "n_neighbors": 2,
            "far_rank": 4,
            "engine": "faiss_ivf",
            "recall": 0.9375,
            "far_share": 0.75,
            "max_union_size": 5,
            "quantile": 0.6,
            "clean_fraction": pytest.approx(4 / 6),
            "reciprocity": 0.75,
            "neighbor_purity": 0.5,
        },
        "stage_owners": {"mine_neighbors": "other"},
    }


def test_classes_that_nobody_knows_are_not_counted(tmp_path: Path) -> None:
    truth = make_truth(is_annotated=False)
    scores = {"unic": {"0": {"train": {"used_clusters": 3.0}}}}
    summary = summarize(
        scores,
        truth,
        make_positives(tmp_path),
        experiment="toy",
        n_clusters=3,
        seeds=[0],
        stage_owners={},
    )
    assert summary["n_classes"] is None


# What the report shows


@pytest.mark.parametrize(("has_test", "split"), [(True, "test"), (False, "train")])
def test_clustering_shows_test_images_where_there_are_any(has_test: bool, split: str) -> None:
    truth = make_truth(has_test=has_test)
    shown = choose_shown(make_predictions(truth), truth)
    assert (shown.split, shown.seed) == (split, 4)
    assert shown.predictions["image_id"].tolist() == truth.image_ids[split]
    assert shown.predictions.index.tolist() == list(range(len(truth.image_ids[split])))
    assert shown.labels is not None
    assert truth.labels is not None
    np.testing.assert_array_equal(shown.labels, truth.labels[split])
    assert shown.class_names == ["cat", "dog", "elk"]


def test_gcd_shows_unlabeled_training_images() -> None:
    truth = make_truth(n_labeled=2)
    shown = choose_shown(make_predictions(truth), truth)
    assert shown.split == "unlabeled"
    assert shown.predictions["image_id"].tolist() == list("cdef")
    assert shown.predictions["cluster"].tolist() == [2, 3, 4, 5]
    assert shown.predictions.index.tolist() == [0, 1, 2, 3]
    assert shown.labels is not None
    assert shown.labels.tolist() == [2, 0, 1, 2]


def test_without_labels_none_are_shown() -> None:
    truth = make_truth(is_annotated=False)
    shown = choose_shown(make_predictions(truth), truth)
    assert shown.labels is None
    assert shown.class_names is None
