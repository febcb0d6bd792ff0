import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.experiment import (
    FAR_RANK,
    MAX_UNION_SIZE,
    N_IMAGES,
    N_NEGATIVES,
    N_NEIGHBORS,
    draw_features,
    image_ids,
    known_labels,
    path_of,
    rank_images,
    write_experiment,
)
from unic.images.index import write_index
from unic.inspection.neighbors import (
    QUANTILES,
    find_rows,
    inspect_images,
    open_artifacts,
    summarize_neighbors,
)
from unic.neighbors.cleaning import reciprocity, union_sizes

ROWS = [12, 0, 39]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that tests read only."""
    return write_experiment(tmp_path_factory.mktemp("project") / "results" / "toy")


# Single images


def test_neighbors_are_those_of_a_full_sort(folder: Path) -> None:
    order, distances = rank_images(draw_features())
    indices = order[:, :N_NEIGHBORS]
    unions = union_sizes(indices)
    anchors = inspect_images(open_artifacts(folder), ROWS)
    assert [anchor.row for anchor in anchors] == ROWS
    for anchor in anchors:
        table, nearest = anchor.neighbors, indices[anchor.row]
        assert anchor.image_id == image_ids()[anchor.row]
        assert table["rank"].tolist() == list(range(N_NEIGHBORS))
        assert table["row"].tolist() == nearest.tolist()
        assert table["image_id"].tolist() == [image_ids()[row] for row in nearest]
        np.testing.assert_allclose(
            table["distance"], distances[anchor.row, :N_NEIGHBORS], rtol=1e-6
        )
        assert table["is_mutual"].tolist() == [anchor.row in indices[row] for row in nearest]
        assert table["union_size"].tolist() == unions[nearest].tolist()
        assert table["is_clean"].tolist() == (unions[nearest] <= MAX_UNION_SIZE).tolist()
        assert anchor.far_radius == pytest.approx(distances[anchor.row, FAR_RANK], rel=1e-6)
        assert (anchor.union_size, anchor.is_clean) == (
            unions[anchor.row],
            unions[anchor.row] <= MAX_UNION_SIZE,
        )
        assert anchor.reciprocity == pytest.approx(reciprocity(indices)[anchor.row])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_negatives_are_measured_in_the_features(metric: str, tmp_path: Path) -> None:
    artifacts = open_artifacts(write_experiment(tmp_path / "toy", metric=metric))
    features = draw_features().astype(np.float64)
    if metric == "cosine":
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    for anchor in inspect_images(artifacts, ROWS, n_negatives=3):
        rows = anchor.negatives["row"].to_numpy()
        assert len(rows) == 3
        assert anchor.n_negatives == N_NEGATIVES
        expected = np.linalg.norm(features[rows] - features[anchor.row], axis=1)
        np.testing.assert_allclose(anchor.negatives["distance"], expected, rtol=1e-6)
        assert (anchor.negatives["distance"] >= 0.999999 * anchor.far_radius).all()


def test_known_labels_are_shown_and_unknown_ones_missing(folder: Path) -> None:
    labeled, unlabeled = inspect_images(open_artifacts(folder), [6, 20])
    assert (labeled.known_label, unlabeled.known_label) == (2, None)
    for anchor in (labeled, unlabeled):
        for table in (anchor.neighbors, anchor.negatives):
            for row, label in zip(table["row"], table["known_label"], strict=True):
                assert pd.isna(label) if row >= 10 else label == known_labels()[row]


def test_true_labels_are_not_read(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "toy")
    (folder / "labels.zarr").mkdir()
    (folder / "labels.zarr" / "zarr.json").write_text("not to be opened")
    inspect_images(open_artifacts(folder), ROWS)
    summarize_neighbors(open_artifacts(folder))


def test_what_has_not_run_is_left_out(tmp_path: Path) -> None:
    artifacts = open_artifacts(write_experiment(tmp_path / "toy", stages=["neighbors"]))
    (anchor,) = inspect_images(artifacts, [3])
    expected = ["rank", "row", "image_id", "distance", "is_mutual"]
    assert anchor.neighbors.columns.tolist() == expected
    assert (anchor.union_size, anchor.is_clean, anchor.known_label) == (None, None, None)
    assert (len(anchor.negatives), anchor.n_negatives) == (0, 0)
    summary = summarize_neighbors(artifacts)
    assert summary["union_size"] is summary["clean_fraction"] is summary["n_negatives"] is None


def test_without_features_negatives_have_no_distance(tmp_path: Path) -> None:
    stages = ["neighbors", "negatives", "known_labels"]
    artifacts = open_artifacts(write_experiment(tmp_path / "toy", stages=stages, labeled=False))
    (anchor,) = inspect_images(artifacts, [3])
    assert anchor.negatives.columns.tolist() == ["row", "image_id"]


def test_refuses_a_negative_number_of_negatives(folder: Path) -> None:
    with pytest.raises(ValueError, match="n_negatives must be at least 0, got -1"):
        inspect_images(open_artifacts(folder), [0], n_negatives=-1)


# All images


def test_the_summary_is_that_of_the_arrays(folder: Path) -> None:
    order, distances = rank_images(draw_features())
    indices = order[:, :N_NEIGHBORS]
    summary = summarize_neighbors(open_artifacts(folder))
    assert json.loads(json.dumps(summary)) == summary
    assert [row["rank"] for row in summary["distances"]] == list(range(1, N_NEIGHBORS))
    for row in summary["distances"]:
        found = [row[name] for name in QUANTILES]
        expected = np.quantile(distances[:, row["rank"]], list(QUANTILES.values()))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    unions, mutual = union_sizes(indices), reciprocity(indices)
    assert summary["mutual_fraction"] == pytest.approx(mutual.mean())
    assert summary["reciprocity"]["max"] == pytest.approx(mutual.max())
    assert summary["union_size"]["median"] == np.median(unions)
    assert 0 < summary["clean_fraction"] < 1
    assert summary["clean_fraction"] == pytest.approx((unions <= MAX_UNION_SIZE).mean())
    assert summary["mining"]["redone_float64"] == 3
    assert (summary["n_images"], summary["n_labeled"]) == (N_IMAGES, 10)
    assert (summary["n_negatives"], summary["far_rank"]) == (N_NEGATIVES, FAR_RANK)


# Rows


def test_images_are_found_by_row_and_by_id() -> None:
    ids = image_ids()
    assert find_rows(["12", "train/b/3.png", "3", "0"], ids) == [12, 3, 0]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("40", "image must be from 0 to 39, got 40"),
        ("-1", "image must be from 0 to 39, got -1"),
        ("train/a/12.jpg", "got train/a/12.jpg; did you mean train/a/12.png?"),
        ("/data/photos/train/b/13.png", "did you mean train/b/13.png?"),
        ("???", "must be a row number or the id of a training image, got ???"),
    ],
)
def test_refuses_an_image_that_is_not_there(image: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find_rows(["0", image], image_ids())


# Folders


def test_shared_stages_are_found_in_the_folder_of_their_owner(tmp_path: Path) -> None:
    results = write_experiment(tmp_path / "results" / "first").parent
    second = results / "second"
    second.mkdir()
    shutil.move(path_of(results / "first", "negatives").parent, second)
    shared = ("index_images", "extract_features", "mine_neighbors", "clean_neighbors")
    owners = dict.fromkeys(shared, "first") | {"index_negatives": "second"}
    (second / "metrics.json").write_text(json.dumps({"stage_owners": owners}))
    artifacts = open_artifacts(second)
    assert artifacts.experiment == "second"
    assert artifacts.neighbors.path == results / "first" / "neighbors.zarr"
    assert artifacts.negatives is not None
    assert artifacts.negatives.path == second / "negatives.zarr"
    assert artifacts.known_labels is None


def test_the_folder_may_be_the_current_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert open_artifacts(Path()).experiment == "toy"
    assert open_artifacts(Path("../toy")).experiment == "toy"


def test_a_missing_folder_names_one_that_is_alike(folder: Path) -> None:
    message = f"{folder.parent}/tos must be the folder of an experiment, there is none; did you"
    with pytest.raises(FileNotFoundError, match=f"{message} mean {folder}"):
        open_artifacts(folder.parent / "tos")
    with pytest.raises(FileNotFoundError, match=r"there is none$"):
        open_artifacts(folder / "nowhere" / "at all")


@pytest.mark.parametrize(
    ("missing", "target"),
    [
        ("neighbors.zarr/zarr.json", "results/toy/neighbors.zarr/zarr.json"),
        ("images.parquet", "results/toy/images.parquet"),
    ],
)
def test_a_stage_that_has_not_run_says_what_to_run(
    missing: str, target: str, tmp_path: Path
) -> None:
    folder = write_experiment(tmp_path / "toy")
    (folder / missing).unlink()
    message = re.escape(f"{missing} is missing; run: snakemake --cores 8 -- {target}, or name")
    with pytest.raises(FileNotFoundError, match=message):
        open_artifacts(folder)
    (folder / "metrics.json").write_text('{"stage_owners": {"mine_neighbors": "toy"}}')
    with pytest.raises(FileNotFoundError, match=f"{re.escape(target)}$"):
        open_artifacts(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("images.parquet", "images.parquet is damaged: "),
        ("metrics.json", "metrics.json must hold the scores of an experiment"),
        ("neighbors.zarr/zarr.json", "zarr.json is damaged: "),
    ],
)
def test_a_damaged_file_is_named(file: str, message: str, tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "toy")
    (folder / file).write_text("damaged")
    with pytest.raises(ValueError, match=re.escape(message)):
        open_artifacts(folder)


def test_an_index_of_other_images_is_refused(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "toy")
    ids = image_ids()[::-1]
    write_index(folder / "images.parquet", {"train": ids}, name="folder", root=None)
    with pytest.raises(ValueError, match=r"row i must mean the same image in .*images\.parquet"):
        open_artifacts(folder)


def test_stores_of_other_images_are_refused(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "toy")
    other = write_experiment(tmp_path / "other", n_images=30)
    shutil.rmtree(folder / "positives.zarr")
    shutil.copytree(other / "positives.zarr", folder / "positives.zarr")
    with pytest.raises(ValueError, match="row i must mean the same image"):
        open_artifacts(folder)
