import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import unic
from tests.inference.bundles import (
    CPU,
    N_NEW,
    N_TRAINING,
    make_bundle,
    make_trained_bundle,
    mine_distances,
    read_pixels,
)
from unic.images.views import crop_square
from unic.inference.bundle import Bundle
from unic.inference.predictor import Prediction, Predictor
from unic.quality.outliers import measure_reference

KINDS: dict[str, Callable[[Path, NDArray[np.uint8]], Any]] = {
    "a folder": lambda photos, _: photos,
    "its name": lambda photos, _: str(photos),
    "files": lambda photos, _: sorted(photos.glob("*.png")) + sorted(photos.glob("more/*.png")),
    "an array": lambda _, pixels: pixels[:6],
    "arrays": lambda _, pixels: list(pixels[:6]),
    "pictures": lambda _, pixels: [Image.fromarray(image) for image in pixels[:6]],
    "a generator": lambda _, pixels: (image for image in pixels[:6]),
    "a mixture": lambda photos, pixels: [
        *(photos / "0.png", Image.fromarray(pixels[1]), pixels[2], str(photos / "3.png")),
        pixels[4:6],
    ],
}


def assert_same(found: Prediction, wanted: Prediction, rows: Any = slice(None)) -> None:
    assert found.clusters.tolist() == wanted.clusters[rows].tolist()
    assert found.second.tolist() == wanted.second[rows].tolist()
    assert (found.neighbors[:, 0] == wanted.neighbors[rows, 0]).all()
    for name in ("confidence", "second_confidence", "distances"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name)[rows], atol=1e-5)


@pytest.fixture(scope="module")
def wanted(predictor: Predictor, pixels: NDArray[np.uint8]) -> Prediction:
    return predictor.predict(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_images_give_the_same(
    kind: str, photos: Path, predictor: Predictor, pixels: NDArray[np.uint8], wanted: Prediction
) -> None:
    assert_same(predictor.predict(KINDS[kind](photos, pixels)), wanted, slice(6))


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_change_nothing_but_rounding(
    batch_size: int, predictor: Predictor, pixels: NDArray[np.uint8], wanted: Prediction
) -> None:
    assert_same(predictor.predict(pixels, batch_size=batch_size, n_workers=1), wanted)


def test_has_the_shapes_that_it_says(wanted: Prediction, predictor: Predictor) -> None:
    assert wanted.images == [str(row) for row in range(N_NEW)]
    assert wanted.clusters.shape == wanted.outliers.score.shape == (N_NEW,)
    assert wanted.neighbors.shape == wanted.distances.shape == (N_NEW, 10)
    assert wanted.features.shape == (N_NEW, predictor.bundle.backbone.n_dims)
    ids = predictor.bundle.training_ids
    assert wanted.neighbor_ids[3] == [ids[row] for row in wanted.neighbors[3]]
    assert ((wanted.confidence >= wanted.second_confidence) & (wanted.confidence <= 1)).all()
    assert (wanted.clusters != wanted.second).all()
    assert (np.diff(wanted.distances, axis=1) > -1e-6).all()
    assert wanted.skipped == {}
    assert wanted.names == [""] * N_NEW


def test_images_of_unequal_sizes_go_together(predictor: Predictor) -> None:
    generator = np.random.default_rng(0)
    sizes = [(8, 8), (40, 20), (1, 1), (33, 90), (5, 200)]
    images = [generator.integers(256, size=(*size, 3), dtype=np.uint8) for size in sizes]
    together = predictor.predict(images)
    for row, image in enumerate(images):
        assert_same(predictor.predict(image), together, [row])


def test_pictures_of_other_modes_are_read_as_files_are(
    predictor: Predictor, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    gray = Image.fromarray(pixels[0][..., 0])
    turned = Image.fromarray(pixels[1])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    gray.save(tmp_path / "gray.png")
    with Image.open(tmp_path / "turned.jpg") as opened:
        found = predictor.predict([gray, opened, gray.convert("P"), gray.convert("LA")])
        assert opened.getexif()[0x0112] == 6  # it is left as it was
    files = predictor.predict([tmp_path / "gray.png", tmp_path / "turned.jpg"])
    assert_same(found, files, [0, 1, 0, 0])


def test_clusters_of_labeled_images_have_names(
    labeled_bundle: Bundle, pixels: NDArray[np.uint8]
) -> None:
    found = Predictor(labeled_bundle, device=CPU).predict(pixels)
    names = {0: "zero", 1: "one", 2: "two"}
    assert found.names == [names.get(cluster, "") for cluster in found.clusters.tolist()]
    assert set(found.names) == {"zero", "one", "two", ""}
    assert found.to_frame()["name"].tolist() == found.names


def test_a_table_has_a_row_an_image(predictor: Predictor, photos: Path) -> None:
    found = predictor.predict(photos)
    table = found.to_frame()
    assert table.columns.tolist() == [
        *("path", "cluster", "name", "confidence", "second", "second_confidence"),
        *("distance", "outlier_score", "p_value", "is_outlier", "neighbors"),
    ]
    assert table["path"].tolist()[-1] == str(photos / "more/5.png")
    assert table["neighbors"][0].split(";") == found.neighbor_ids[0]
    np.testing.assert_allclose(table["distance"], found.distances.mean(1))


def test_unreadable_images_are_named_or_left_out(
    predictor: Predictor, photos: Path, wanted: Prediction
) -> None:
    (photos / "1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"images must be readable, cannot read .*1\.png"):
        predictor.predict(photos)
    found = predictor.predict(photos, bad_images="skip")
    assert_same(found, wanted, [0, 2, 3, 4, 5])
    names = [Path(name).stem for name in found.images]
    assert names == ["0", "2", "3", "4", "5"]
    ((path, why),) = found.skipped.items()
    assert path == str(photos / "1.png")
    assert "UnidentifiedImageError" in why
    nothing = predictor.predict(photos / "1.png", bad_images="skip")
    assert len(nothing.to_frame()) == len(nothing.features) == 0
    assert nothing.outliers.is_outlier.dtype == np.bool_


def test_squares_are_taken_where_training_had_them(pixels: NDArray[np.uint8]) -> None:
    predictor = Predictor(make_bundle(decoded=5), device=CPU)
    squares = np.stack([crop_square(image, 5) for image in pixels])
    assert_same(predictor.predict(pixels), predictor.predict(squares))
    whole = Predictor(predictor.bundle._replace(description=make_bundle().description), device=CPU)
    differences = whole.predict(pixels).confidence - predictor.predict(pixels).confidence
    assert np.abs(differences).max() > 0.01


def test_wrong_inputs_are_refused(
    predictor: Predictor, tmp_path: Path, pixels: NDArray[np.uint8]
) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        predictor.predict(pixels, batch_size=0)
    with pytest.raises(ValueError, match="bad_images must be error or skip, got ignore"):
        predictor.predict(pixels, bad_images="ignore")
    with pytest.raises(ValueError, match="got tpu"):
        unic.load(tmp_path, device="tpu")


@pytest.mark.parametrize("make", [make_bundle, make_trained_bundle])
def test_training_images_have_the_outlier_scores_of_new_ones(make: Callable[[], Bundle]) -> None:
    bundle = make()
    found = Predictor(bundle, device=CPU).predict(read_pixels("train", N_TRAINING)).outliers
    # To these ten nearest training images each belongs itself, at distance 0.
    points = bundle.learned.take_apart()["training_points"].numpy()
    between = mine_distances(points)[:, :10]
    typical = bundle.description.outliers.typical
    np.testing.assert_allclose(found.score, between.mean(1) / typical, atol=1e-3)
    assert 0.5 < np.median(found.score) < 1.0
    assert found.p_value.max() <= 0.25


def test_strangers_are_farther_than_others(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    noise = np.random.default_rng(0).integers(256, size=(5, 8, 8, 3), dtype=np.uint8)
    found = predictor.predict([*pixels, *noise])
    scores = found.outliers.score
    assert scores[-5:].min() > np.quantile(scores[:-5], 0.8)
    expected = found.outliers.p_value * N_TRAINING  # training images that are as far
    assert found.outliers.is_outlier.tolist() == (expected < 1).tolist()
    assert found.to_frame()["is_outlier"].tolist() == found.outliers.is_outlier.tolist()


def test_few_training_images_have_fewer_neighbors(pixels: NDArray[np.uint8]) -> None:
    bundle = make_trained_bundle()
    few = bundle.learned._replace(points=bundle.learned.points[:6])  # type: ignore[attr-defined]
    said = replace(
        bundle.description, outliers=measure_reference(mine_distances(few.points)[:, :6])
    )
    small = bundle._replace(learned=few, description=said, training_ids=bundle.training_ids[:6])
    found = Predictor(small, device=CPU).predict(pixels)
    assert found.neighbors.shape == (N_NEW, 6)
    nearest = found.distances[:, :5].mean(1) / said.outliers.typical
    np.testing.assert_allclose(found.outliers.score, nearest, rtol=1e-5)


def test_is_loaded_without_torch_until_asked(results: Path, pixels: NDArray[np.uint8]) -> None:
    code = "import sys, unic; assert 'torch' not in sys.modules"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert unic.load(results, device="cpu").predict(pixels[0]).clusters.shape == (1,)
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        unic.laod  # noqa: B018
