import math
from typing import Any

import pytest

from unic.report.paper_tables import Row, Table, compare, format_markdown, read_table


def scores(**values: list[float]) -> dict[str, dict[str, Any]]:
    return {
        name: {"mean": sum(found) / len(found), "std": 0.02, "values": found}
        for name, found in values.items()
    }


METRICS = {
    "clusters": {
        "neighbors": {"clean_fraction": 0.8, "neighbor_purity": None, "reciprocity": 0.5},
        "methods": {
            "unic": {"train": scores(acc=[0.1]), "test": scores(acc=[0.5, 0.7], nmi=[0.3, 0.3])},
            "kmeans_features": {"train": scores(acc=[0.2]), "test": scores(acc=[0.4], nmi=[0.2])},
        },
    },
    "gcd": {
        "neighbors": {"clean_fraction": 0.9, "neighbor_purity": 0.75, "reciprocity": 0.5},
        "methods": {"unic": {"unlabeled": scores(acc=[0.9])}},
    },
}
TABLE = Table(
    "Losses (Table 3)",
    {"ACC": "acc", "kept": "clean_fraction"},
    [
        Row("UNIC", "clusters", paper={"ACC": 61.5}),
        Row("k-means", "clusters", "kmeans_features"),
        Row("SCAN", None, paper={"ACC": 55.25}),
        Row("GCD", "gcd"),
    ],
    "A note.",
)


def test_numbers_are_those_of_the_split_that_is_scored() -> None:
    compared = compare(TABLE, METRICS).set_index(["row", "column"])
    ours = compared.loc[("UNIC", "ACC")]
    assert ours["mean"] == pytest.approx(60)
    assert ours["difference"] == pytest.approx(-1.5)
    assert (ours["n_seeds"], ours["std"]) == (2, pytest.approx(2))
    assert compared.loc[("k-means", "ACC"), "mean"] == pytest.approx(40)
    assert math.isnan(compared.loc[("k-means", "ACC"), "difference"])
    assert math.isnan(compared.loc[("SCAN", "ACC"), "mean"])
    assert compared.loc[("GCD", "ACC"), "mean"] == pytest.approx(90)
    assert compared.loc[("GCD", "kept"), "mean"] == pytest.approx(90)


def test_a_page_has_a_line_for_each_row() -> None:
    lines = format_markdown(TABLE, compare(TABLE, METRICS)).splitlines()
    assert lines == [
        "# Losses (Table 3)",
        "",
        "| | ACC | kept | experiment |",
        "|---|---|---|---|",
        "| UNIC | 60.00 ± 2.00 (61.50) | 80.00 | clusters |",
        "| k-means | 40.00 | 80.00 | clusters |",
        "| SCAN | (55.25) | - | - |",
        "| GCD | 90.00 | 90.00 | gcd |",
        "",
        "Percent; mean ± standard deviation over 1 or 2 seeds, the paper's number in parentheses.",
        "",
        "A note.",
    ]


def test_a_fact_that_nobody_knows_is_left_out() -> None:
    table = Table("T", {"purity": "neighbor_purity"}, [Row("UNIC", "clusters"), Row("GCD", "gcd")])
    means = compare(table, METRICS)["mean"].tolist()
    assert math.isnan(means[0])
    assert means[1] == pytest.approx(75)


def test_settings_make_a_table() -> None:
    settings = {
        "title": "Losses (Table 3)",
        "columns": {"ACC": "acc", "kept": "clean_fraction"},
        "rows": [
            {"name": "UNIC", "experiment": "clusters", "paper": {"ACC": 61.5}},
            {"name": "k-means", "experiment": "clusters", "method": "kmeans_features"},
            {"name": "SCAN", "paper": {"ACC": 55.25}},
            {"name": "GCD", "experiment": "gcd"},
        ],
        "note": "A note.",
    }
    assert read_table(settings) == TABLE


def test_refuses_a_method_or_score_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="gcd must have method scan, it has unic"):
        compare(Table("T", {"ACC": "acc"}, [Row("SCAN", "gcd", "scan")]), METRICS)
    with pytest.raises(ValueError, match="clusters must have score old of its test images, it has"):
        compare(Table("T", {"Old": "old"}, [Row("UNIC", "clusters")]), METRICS)
