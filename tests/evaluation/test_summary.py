import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import unic
from unic.evaluation.scores import Truth
from unic.evaluation.summary import choose_seed, choose_shown, summarize, summarize_seeds
from unic.images.index import Skipped
from unic.storage.prediction_tables import tabulate
from unic.storage.stores import Store, manifest_of, open_store, write_derived, write_features


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
    features, neighbors = path.parents[1] / "features.zarr", path.parents[1] / "neighbors.zarr"
    ids = {"train": [str(row) for row in range(6)]}
    write_features(
        manifest_of(features), {"train": np.eye(6, dtype=np.float32)}, ids, backbone="vit"
    )
    write_derived(
        manifest_of(neighbors),
        "neighbors",
        {
            "indices": arrays["indices"],
            "distances": np.zeros((6, 2), dtype=np.float32),
            "far_radius": np.ones(6, dtype=np.float32),
        },
        of=open_store(features, kind="features"),
        parameters={
            "n_neighbors": 2,
            "far_rank": 4,
            "mining": {"engine": "faiss_ivf", "recall": 0.9375, "far_kept": 6, "far_sampled": 8},
        },
    )
    write_derived(
        path,
        "positives",
        arrays,
        of=open_store(neighbors, kind="neighbors"),
        parameters={"max_union_size": 5, "quantile": 0.6},
    )
    return open_store(path, kind="positives")


def make_history(losses: dict[int, float]) -> pd.DataFrame:
    """Three epochs a seed; only the last is in the order of the losses given."""
    rows = [
        (seed, epoch, loss if epoch == 3 else -loss)
        for seed, loss in losses.items()
        for epoch in (1, 2, 3)
    ]
    return pd.DataFrame(rows, columns=["seed", "epoch", "loss"])


def make_scores(values: dict[int, Any], *, split: str = "test", name: str = "acc") -> Any:
    return {str(seed): {split: {name: value}} for seed, value in values.items()}


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
            make_history({0: 2.0, 1: 1.0}),
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


@pytest.mark.parametrize(
    ("n_labeled", "task", "split", "name", "by"),
    [
        (0, "clustering", "test", "acc", "accuracy"),
        (2, "gcd", "unlabeled", "all", "All accuracy"),
    ],
)
def test_the_summary_says_what_was_done(
    tmp_path: Path, n_labeled: int, task: str, split: str, name: str, by: str
) -> None:
    truth = make_truth(n_labeled=n_labeled)
    scores = {m: make_scores({0: 0.5, 1: 1.0}, split=split, name=name) for m in ("unic", "km")}
    summary = summarize(
        scores,
        truth,
        make_positives(tmp_path),
        make_history({0: 2.0, 1: 1.0}),
        experiment="toy",
        n_clusters=3,
        seeds=[0, 1],
        stage_owners={"mine_neighbors": "other"},
        skipped=[Skipped("train", f"{number}.png", "why") for number in range(12)],
    )
    assert json.loads(json.dumps(summary)) == summary
    methods = summary.pop("methods")
    assert list(methods) == ["unic", "km"]
    assert methods["km"][split][name]["mean"] == 0.75
    why = f"the lower of the two middle ones of 2 seeds by {by} on the {split} images, 50.0%"
    assert summary == {
        "experiment": "toy",
        "method": "finetuning",
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
        "shown": {"seed": 0, "split": split, "by": name, "value": 0.5, "why": why},
    }


def test_classes_that_nobody_knows_are_not_counted(tmp_path: Path) -> None:
    truth = make_truth(is_annotated=False)
    scores = {"unic": {"0": {"train": {"used_clusters": 3.0}}}}
    summary = summarize(
        scores,
        truth,
        make_positives(tmp_path),
        make_history({0: 2.0, 1: 1.0}),
        experiment="toy",
        n_clusters=3,
        seeds=[0],
        stage_owners={},
    )
    assert summary["n_classes"] is None


# What the report shows


@pytest.mark.parametrize(
    ("accuracies", "seed", "why"),
    [
        ({0: 0.9}, 0, "the only seed, by accuracy on the test images, 90.0%"),
        ({0: 0.9, 1: 0.8}, 1, "the lower of the two middle ones of 2 seeds by"),
        (
            {0: 0.99, 1: 0.95, 2: 0.94},
            1,
            "the median of 3 seeds by accuracy on the test images, 95",
        ),
        ({5: 0.1, 3: 0.4, 8: 0.2, 9: 0.3}, 8, "the lower of the two middle ones of 4 seeds by"),
        ({4: 0.5, 2: 0.5, 7: 0.9}, 2, "the median of 3 seeds by"),
        ({0: 0.9, 1: None, 2: float("nan"), 3: 0.8, 4: 0.7}, 3, "the median of 3 seeds by"),
    ],
)
def test_the_seed_of_the_median_accuracy_stands_for_all(
    accuracies: dict[int, float], seed: int, why: str
) -> None:
    for seeds in itertools.permutations(accuracies):
        scores = make_scores({seed: accuracies[seed] for seed in seeds})
        history = make_history(dict.fromkeys(seeds, 1.0))
        chosen = choose_seed(scores, history, seeds=seeds, split="test")
        assert chosen[:4] == (seed, "test", "acc", accuracies[seed])
        assert chosen.why.startswith(why)


def test_gcd_goes_by_all() -> None:
    scores = {
        str(seed): {"unlabeled": {"all": value, "old": -value, "nmi": 1.0}}
        for seed, value in enumerate([0.8, 0.7, 0.9])
    }
    history = make_history({0: 3.0, 1: 2.0, 2: 1.0})
    chosen = choose_seed(scores, history, seeds=[0, 1, 2], split="unlabeled")
    assert chosen[:4] == (0, "unlabeled", "all", 0.8)
    assert chosen.why == "the median of 3 seeds by All accuracy on the unlabeled images, 80.0%"


@pytest.mark.parametrize(
    ("losses", "seed"),
    [({4: 2.5}, 4), ({0: 3.0, 1: 1.0, 2: 2.5}, 2), ({0: 3.0, 1: 1.0}, 1), ({1: 2.0, 0: 2.0}, 0)],
)
def test_without_labels_the_last_loss_decides(losses: dict[int, float], seed: int) -> None:
    scores = make_scores(dict.fromkeys(losses, 3.0), split="train", name="used_clusters")
    for seeds in itertools.permutations(losses):
        history = make_history({seed: losses[seed] for seed in seeds}).iloc[::-1]
        chosen = choose_seed(scores, history, seeds=seeds, split="train")
        assert chosen[:4] == (seed, "train", "loss", losses[seed])
        assert f"loss in the last epoch, {losses[seed]:.4g}, since" in chosen.why


def test_some_seed_must_have_a_value() -> None:
    scores = make_scores({0: None, 1: float("nan")})
    history = make_history({0: float("nan")})
    with pytest.raises(ValueError, match=r"one of the seeds \[0, 1\] must have a loss, none has"):
        choose_seed(scores, history, seeds=[1, 0], split="test")


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
