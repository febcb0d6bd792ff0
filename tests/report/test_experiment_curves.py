from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unic.evaluation.summary import summarize_seeds
from unic.report.experiment_curves import CurveFigure, collect_points, name_score
from unic.storage.files import write_json

OVER_EPOCHS = CurveFigure(
    title="Toy",
    x="epoch",
    scores=["acc", "kmeans_acc"],
    panels={"Left": {"a": "one", "b": "two"}, "Right": {"a": "one"}},
)
OVER_SETTING = CurveFigure(
    title="Toy", x="finetuning.lambda_neg", panels={"": {"line": ["two", "one"]}}
)


def write_progress(folder: Path, *, splits: tuple[str, ...] = ("train", "test")) -> Any:
    files = {}
    for number, name in enumerate(("one", "two")):
        files[name] = [folder / name / f"seed{seed}.csv" for seed in range(2 - number)]
        for seed, path in enumerate(files[name]):
            path.parent.mkdir(exist_ok=True)
            rows = [
                {
                    "epoch": epoch,
                    "split": split,
                    "acc": 0.1 * epoch + 0.02 * seed + 0.3 * (split == "test"),
                    "kmeans_acc": 0.5 + 0.01 * number,
                }
                for epoch in (2, 4)
                for split in splits
            ]
            pd.DataFrame(rows).to_csv(path, index=False)
    return files


def collect(figure: CurveFigure, **given: Any) -> pd.DataFrame:
    return collect_points(figure, **{"progress": {}, "metrics": {}, "settings": {}} | given)


@pytest.mark.parametrize("splits", [("train", "test"), ("train",)])
def test_epochs_have_the_mean_over_seeds(splits: tuple[str, ...], tmp_path: Path) -> None:
    points = collect(OVER_EPOCHS, progress=write_progress(tmp_path, splits=splits))
    assert len(points) == 2 * 3 * 2
    assert set(points["split"]) == {splits[-1]}
    first = points[(points["score"] == "acc") & (points["experiment"] == "one")]
    better = 30 if splits[-1] == "test" else 0
    assert first["x"].tolist() == [2, 4, 2, 4]
    assert first["panel"].tolist() == ["Left", "Left", "Right", "Right"]
    np.testing.assert_allclose(first["mean"], 2 * [21 + better, 41 + better])
    np.testing.assert_allclose(first["std"], 100 * np.std([0, 0.02], ddof=1))
    assert set(first["n_seeds"]) == {2}
    other = points[points["line"] == "b"]
    assert (set(other["n_seeds"]), set(other["std"])) == ({1}, {0.0})


def test_a_score_that_is_not_followed_is_refused(tmp_path: Path) -> None:
    figure = OVER_EPOCHS._replace(scores=["nmi"])
    with pytest.raises(ValueError, match="one of acc, kmeans_acc over epochs, got nmi"):
        collect(figure, progress=write_progress(tmp_path))


def write_metrics(folder: Path) -> dict[str, Path]:
    files = {}
    for number, name in enumerate(("one", "two")):
        scores = {
            str(seed): {"train": {"acc": 0.1}, "test": {"acc": 0.5 + 0.1 * number + 0.02 * seed}}
            for seed in (0, 1)
        }
        metrics = {
            "methods": {"unic": summarize_seeds(scores, [0, 1])},
            "neighbors": {
                "max_union_size": 70 - 20 * number,
                "clean_fraction": 0.25,
                "neighbor_purity": None,
            },
        }
        files[name] = folder / f"{name}.json"
        write_json(files[name], metrics)
    return files


def test_settings_are_in_their_order(tmp_path: Path) -> None:
    settings = {"one": 0.5, "two": 10}
    points = collect(OVER_SETTING, metrics=write_metrics(tmp_path), settings=settings)
    assert points["experiment"].tolist() == ["one", "two"]
    assert points["x"].tolist() == [0.5, 10]
    np.testing.assert_allclose(points["mean"], [51, 61])
    np.testing.assert_allclose(points["std"], 100 * np.std([0, 0.02], ddof=1))
    assert points["split"].tolist() == ["test", "test"]


def test_facts_of_the_neighbors_are_drawn_and_drawn_over(tmp_path: Path) -> None:
    figure = OVER_SETTING._replace(x="max_union_size", scores=["acc", "clean_fraction"])
    points = collect(figure, metrics=write_metrics(tmp_path))
    assert points["x"].tolist() == [50, 70, 50, 70]
    facts = points[points["score"] == "clean_fraction"]
    assert facts["mean"].tolist() == [25, 25]
    assert (set(facts["split"]), set(facts["n_seeds"])) == ({""}, {0})
    unknown = collect(figure._replace(scores=["neighbor_purity"]), metrics=write_metrics(tmp_path))
    assert unknown["mean"].isna().all()


@pytest.mark.parametrize(
    ("x", "settings", "message"),
    [
        ("cleaning.max_union_size", {"one": None, "two": 3}, "one must have a number as cleaning"),
        ("lambda", {}, "two must have a number as lambda, got None"),
        ("cleaning.quantile", {"one": "auto", "two": 0.5}, "one must have .* got auto"),
    ],
)
def test_an_experiment_without_a_value_is_named(
    x: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        collect(OVER_SETTING._replace(x=x), metrics=write_metrics(tmp_path), settings=settings)


def test_axes_say_scores_and_settings() -> None:
    assert name_score("nmi") == "NMI (%)"
    assert name_score("kmeans_acc") == "k-means ACC (%)"
    assert name_score("neighbor_purity") == "Kept neighbors in the same class (%)"
    assert OVER_EPOCHS.x_label == "Epoch"
    assert OVER_SETTING.x_label == "finetuning.lambda_neg"
    assert OVER_SETTING._replace(label="Weight").x_label == "Weight"
