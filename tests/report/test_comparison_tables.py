"""Methods beside each other: which scores are taken, which mean is formed, what is missing."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from unic.evaluation.formatting import MISSING
from unic.report.comparison_tables import (
    Comparison,
    collect_scores,
    format_comparison,
    read_times,
)


def scores(*values: float) -> dict[str, Any]:
    return {"acc": {"mean": sum(values) / len(values), "std": 0.02, "values": list(values)}}


METRICS = {
    "a": {
        "methods": {
            "unic": {"train": scores(0.1, 0.1), "test": scores(0.5, 0.7)},
            "ward": {"train": scores(0.2, 0.2), "test": scores(0.4, 0.4)},
        }
    },
    "b": {"methods": {"unic": {"unlabeled": scores(0.9, 0.7), "train": scores(0.2, 0.2)}}},
}
COMPARISON = Comparison("Both", {"A": "a", "B": "b"}, ["ward", "unic"], note="One has none.")


def write_times(folder: Path) -> dict[str, list[str]]:
    path = folder / "ward.csv"
    rows = {"method": ["ward", "ward"], "seed": [0, 1], "processor_s": [2.0, 3.0]}
    pd.DataFrame(rows).to_csv(path, index=False)
    return {"a": [str(path)], "b": []}


def test_scores_are_those_of_the_protocols_split(tmp_path: Path) -> None:
    found = collect_scores(COMPARISON, METRICS, read_times(write_times(tmp_path)))
    rows = found[["method", "data", "mean", "n_seeds"]].round(6).to_numpy().tolist()
    assert rows == [["ward", "A", 40.0, 2], ["unic", "A", 60.0, 2], ["unic", "B", 80.0, 2]]
    assert found["processor_s"].tolist()[0] == 2.5
    assert found["processor_s"].isna().tolist() == [False, True, True]


def test_a_method_has_a_mean_where_it_has_every_score(tmp_path: Path) -> None:
    found = collect_scores(COMPARISON, METRICS, read_times(write_times(tmp_path)))
    text = format_comparison(COMPARISON, found)
    assert "| ACC | A | B | mean | processor s a seed |" in text
    assert f"| Ward | 40.00 ± 2.00 | {MISSING} | {MISSING} | 2.5 |" in text
    assert f"| UNIC | 60.00 ± 2.00 | 80.00 ± 2.00 | 70.00 | {MISSING} |" in text
    assert text.endswith("over 2 seeds.\n\nOne has none.\n")


def test_each_score_has_a_table() -> None:
    metrics = {"a": {"methods": {"ward": {"test": scores(0.4) | {"nmi": scores(0.7)["acc"]}}}}}
    comparison = Comparison("One", {"A": "a"}, ["ward"], scores=["acc", "nmi"])
    found = collect_scores(comparison, metrics, read_times({}))
    assert found[["score", "mean"]].round(6).to_numpy().tolist() == [["acc", 40.0], ["nmi", 70.0]]
    lines = format_comparison(comparison, found).splitlines()
    assert [line[:13] for line in lines if line.startswith("| ")] == [
        "| ACC | A | m",
        "| Ward | 40.0",
        "| NMI | A | m",
        "| Ward | 70.0",
    ]


def test_times_may_all_be_unknown() -> None:
    found = collect_scores(COMPARISON, METRICS, read_times({"a": [], "b": []}))
    assert found["processor_s"].isna().all()


def test_refuses_a_method_that_no_experiment_has() -> None:
    comparison = COMPARISON._replace(methods=["temi"])
    with pytest.raises(ValueError, match="must have method temi, none of a, b has"):
        collect_scores(comparison, METRICS, read_times({}))
