import csv
import io
import json
from pathlib import Path

import pytest

from tests.experiment import N_IMAGES, write_run
from unic.evaluation.formatting import MISSING
from unic.inspection.comparison import Comparison, compare_runs
from unic.inspection.comparison_text import format_comparison
from unic.inspection.runs import open_run

ROWS = range(N_IMAGES)
ONE = {"train": [row % 4 for row in ROWS], "test": [3]}
OTHER = {"train": [(row % 4 + 1 + (row in (8, 16, 9))) % 4 for row in ROWS], "test": [0]}
LABELS = {"train": [row % 4 for row in ROWS], "test": [1]}


def compare(folder: Path, *, n_clusters: int = 4, labeled: bool = True) -> Comparison:
    labels = LABELS if labeled else None
    one, other = (
        open_run(write_run(folder / "results" / name, {0: of}, labels=labels, n_clusters=k))
        for name, of, k in (("one", ONE, 4), ("other", OTHER, n_clusters))
    )
    return compare_runs(one, other)


def rows_below(text: str, heading: str) -> list[list[str]]:
    lines = text.partition(heading)[2].splitlines()[1:]
    end = lines.index("") if "" in lines else len(lines)
    return [line.split() for line in lines[:end]]


def test_the_table_has_pairs_moves_and_scores(tmp_path: Path) -> None:
    text = format_comparison(compare(tmp_path), "table")
    lines = text.splitlines()
    assert lines[0] == "one (seed 0) and other (seed 0): 41 images"
    assert lines[1] == "  92.7% of the images are in paired clusters, 3 moved"
    pairs = rows_below(text, "clusters that are paired")
    assert pairs[0] == ["one", "other", "size", "size", "there", "shared", "stayed"]
    assert pairs[1:3] == [
        ["0", "1", "10", "8", "8", "80.0%"],
        ["1", "2", "10", "11", "9", "90.0%"],
    ]
    moves = rows_below(text, "2 moves")
    assert moves == [
        ["from", "to", "paired", "with", "images", "share"],
        ["0", "2", "1", "2", "20.0%"],
        ["1", "3", "2", "1", "10.0%"],
    ]
    scores = rows_below(text, "scores, means over seeds")
    assert scores[0] == ["split", "score", "one", "other", "difference"]
    assert ["train", "ACC", "100.0%", "92.5%", "-7.5"] in scores
    assert ["train", "Clusters", "used", "4", "4", "+0"] in scores


def test_what_has_no_partner_is_a_dash(tmp_path: Path) -> None:
    pairs = rows_below(format_comparison(compare(tmp_path, n_clusters=5), "table"), "paired\n")
    assert pairs[-1] == [MISSING, "4", "0", "0", "0", MISSING]


def test_equal_runs_have_no_moves(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path / "results" / "one", {0: ONE}))
    text = format_comparison(compare_runs(run, run), "table")
    assert "\n  no image moved\n" in text
    assert format_comparison(compare_runs(run, run), "csv") == "from,to,to_pair,n_images,share"


@pytest.mark.parametrize("labeled", [True, False])
def test_csv_has_the_moves_and_json_the_tables(labeled: bool, tmp_path: Path) -> None:
    comparison = compare(tmp_path, n_clusters=5, labeled=labeled)
    rows = list(csv.DictReader(io.StringIO(format_comparison(comparison, "csv"))))
    assert [(row["from"], row["to"], row["n_images"]) for row in rows] == [
        ("0", "2", "2"),
        ("1", "3", "1"),
    ]
    content = json.loads(format_comparison(comparison, "json"))
    assert (content["experiments"], content["seeds"]) == (["one", "other"], [0, 0])
    assert (content["n_images"], content["n_moved"]) == (41, 3)
    assert content["matching"][-1]["cluster"] is None
    assert content["matching"][-1]["stayed"] is None
    assert content["moves"][0] == {"from": 0, "to": 2, "to_pair": 1, "n_images": 2, "share": 0.2}
    assert content["agreement"]["accuracy"] == pytest.approx(38 / 41)
    assert any(row["score"] == "acc" for row in content["scores"]) == labeled
