import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.experiment import MAX_UNION_SIZE, N_NEIGHBORS, write_experiment
from unic.inspection.neighbors import (
    QUANTILES,
    Anchor,
    Artifacts,
    inspect_images,
    open_artifacts,
    summarize_neighbors,
)
from unic.inspection.text import format_anchors, format_summary, list_records, shorten

ROWS = [12, 3]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return open_artifacts(write_experiment(tmp_path_factory.mktemp("results") / "toy"))


@pytest.fixture(scope="module")
def anchors(artifacts: Artifacts) -> list[Anchor]:
    return inspect_images(artifacts, ROWS, n_negatives=2)


def table_at(lines: list[str], header: str) -> list[list[str]]:
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == header.split())
    cells = [line.split() for line in lines[start:]]
    return cells[: next((i for i, row in enumerate(cells) if not row), None)]


def test_the_table_has_every_neighbor_and_negative(
    anchors: list[Anchor], artifacts: Artifacts
) -> None:
    lines = format_anchors(anchors[:1], artifacts, "table").splitlines()
    anchor = anchors[0]
    assert lines[0] == "image 12: train/a/12.png"
    state = "clean" if anchor.is_clean else "discarded"
    assert f"  union size {anchor.union_size} of at most {MAX_UNION_SIZE}: {state}" in lines
    n_mutual = int(anchor.neighbors["is_mutual"][1:].sum())
    assert any(line.startswith(f"  {n_mutual} of 5 neighbors mutual") for line in lines)
    header, first, *others = table_at(lines, "rank row")
    assert header == ["rank", "row", "image", "distance", "mutual", "union", "clean", "label"]
    assert first[:5] == ["0", "12", "train/a/12.png", "0.0000", "itself"]
    assert len(others) == N_NEIGHBORS - 1
    for cells, row in zip(others, anchor.neighbors[1:].to_dict("records"), strict=True):
        label = "-" if pd.isna(row["known_label"]) else str(row["known_label"])
        yes_no = ["yes" if row[name] else "no" for name in ("is_mutual", "is_clean")]
        numbers = [str(row["rank"]), str(row["row"]), row["image_id"], f"{row['distance']:.4f}"]
        assert cells == [*numbers, yes_no[0], str(row["union_size"]), yes_no[1], label]
    assert "  negatives, 2 of 5" in lines
    assert len(table_at(lines, "row image")) == 3


def test_columns_are_aligned(anchors: list[Anchor], artifacts: Artifacts) -> None:
    lines = format_anchors(anchors, artifacts, "table").splitlines()
    rows = [line for line in lines if line.endswith(("label", "-", "0", "1", "2", "3"))]
    tables = [line for line in rows if ".png" in line and not line.startswith("image")]
    assert len({line.index("train/") for line in tables if "yes" in line or "no" in line}) == 1


def test_a_known_label_is_in_the_heading(artifacts: Artifacts, anchors: list[Anchor]) -> None:
    assert format_anchors(anchors[1:], artifacts, "table").startswith(
        "image 3: train/b/3.png, known label 3\n"
    )


def test_what_has_not_run_is_named(tmp_path: Path) -> None:
    artifacts = open_artifacts(write_experiment(tmp_path / "toy", stages=["neighbors"]))
    text = format_anchors(inspect_images(artifacts, [0]), artifacts, "table")
    assert "union size not there yet (clean_neighbors has not run)" in text
    assert "negatives not there yet (index_negatives has not run)" in text
    assert "union " not in text.splitlines()[6]
    summary = format_summary(summarize_neighbors(artifacts), "table")
    for stage in ("clean_neighbors", "index_negatives", "split_labels"):
        assert f"not there yet ({stage} has not run)" in summary
    assert "union size" not in summary


def test_csv_reads_back(anchors: list[Anchor], artifacts: Artifacts) -> None:
    table = pd.read_csv(io.StringIO(format_anchors(anchors, artifacts, "csv")))
    assert table.columns[:3].tolist() == ["anchor_row", "anchor_id", "role"]
    assert len(table) == len(ROWS) * (N_NEIGHBORS + 2)
    for anchor in anchors:
        for role, expected in (("neighbor", anchor.neighbors), ("negative", anchor.negatives)):
            rows = table[(table["anchor_row"] == anchor.row) & (table["role"] == role)]
            assert rows["row"].tolist() == expected["row"].tolist()
            assert rows["distance"].tolist() == pytest.approx(expected["distance"].tolist())
    neighbors = table[table["role"] == "neighbor"]
    assert neighbors["rank"].tolist() == 2 * list(range(N_NEIGHBORS))
    text = format_anchors(anchors, artifacts, "csv")
    assert f",{anchors[0].neighbors['union_size'][0]}," in text.splitlines()[1]  # not 12.0


def test_json_reads_back(anchors: list[Anchor], artifacts: Artifacts) -> None:
    found: list[dict[str, Any]] = json.loads(format_anchors(anchors, artifacts, "json"))
    assert [anchor["row"] for anchor in found] == ROWS
    for content, anchor in zip(found, anchors, strict=True):
        assert content["max_union_size"] == MAX_UNION_SIZE
        assert content["is_clean"] is anchor.is_clean
        assert content["known_label"] == anchor.known_label
        assert [row["row"] for row in content["neighbors"]] == anchor.neighbors["row"].tolist()
        for row in content["neighbors"]:
            assert isinstance(row["is_mutual"], bool)
            assert row["known_label"] is None or row["row"] < 10


def test_the_summary_shows_ranks_and_quantiles(artifacts: Artifacts) -> None:
    summary = summarize_neighbors(artifacts)
    lines = format_summary(summary, "table").splitlines()
    assert (
        lines[0] == "toy: 6 neighbors (itself included) of 40 images, far rank 12, euclidean, vit"
    )
    text = "\n".join(lines)
    assert "mining        engine exact, recall 1.0, redone float64 3\n" in text
    assert "far sets      87.5% of the images beyond the far rank" in text
    assert f"unions of at most {MAX_UNION_SIZE}" in text
    for rank in (1, 2, 5, 12):
        assert f"distance, rank {rank} " in text
    assert f"{summary['distances'][0]['median']:.4f}" in text
    assert len({len(line) for line in lines[-7:]}) == 1


def test_the_summary_as_csv_and_json(artifacts: Artifacts) -> None:
    summary = summarize_neighbors(artifacts)
    table = pd.read_csv(io.StringIO(format_summary(summary, "csv")))
    assert table.columns.tolist() == ["quantity", "rank", *QUANTILES]
    assert table["quantity"].tolist() == 5 * ["distance"] + [
        "far_radius",
        "reciprocity",
        "union_size",
    ]
    assert table["rank"][:5].tolist() == [1, 2, 3, 4, 5]
    assert json.loads(format_summary(summary, "json")) == summary


def test_artifacts_of_older_versions_have_no_record_of_mining(artifacts: Artifacts) -> None:
    summary = summarize_neighbors(artifacts) | {"mining": None}
    assert "mining        how it went not recorded" in format_summary(summary, "table")


def test_long_ids_lose_their_middle() -> None:
    assert shorten("train/a/1.png", 13) == "train/a/1.png"
    assert shorten("train/a/1.png", 9) == "trai….png"
    assert [len(shorten("abcdefgh", length)) for length in range(1, 8)] == list(range(1, 8))


def test_records_are_json() -> None:
    table = pd.DataFrame({"n": np.float32([0.5]), "is": [True], "a": [np.nan], "b": [None]})
    (record,) = list_records(table.assign(rows=[[1, 2]], missing=[pd.NA]))
    assert record["a"] is None
    assert record["b"] is None
    assert json.loads(json.dumps(record, allow_nan=False)) == record
