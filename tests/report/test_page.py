import html
import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from unic.report.page import build_report, compare_with_kmeans, describe_clusters, list_confusions


def measure(*values):
    return {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": list(values)}


def make_metrics(split="test", keys=("acc", "nmi", "ari"), **changes):
    ours = {key: measure(0.9123, 0.8011 - 0.1 * i) for i, key in enumerate(keys)}
    theirs = {key: measure(0.6123, 0.5011) for key in keys}
    return {
        "experiment": "tiny",
        "method": "finetuning",
        "task": "clustering",
        "version": "0.1.0",
        "n_images": {split: 60},
        "n_clusters": 3,
        "n_classes": 3,
        "n_labeled": 0,
        "seeds": [0, 7],
        "methods": {
            "kmeans_features": {split: theirs},
            "unic": {split: ours | {"used_clusters": measure(3, 3)}},
        },
        "neighbors": {
            "n_neighbors": 10,
            "far_rank": 500,
            "engine": "exact",
            "recall": 1.0,
            "far_share": 1.0,
            "max_union_size": 70,
            "quantile": None,
            "clean_fraction": 0.83,
            "reciprocity": 0.625,
        },
        "shown": {"seed": 0, "why": "the lower of the two middle ones of 2 seeds by accuracy"},
    } | changes


def make_arguments(n_images=60, n_clusters=3, **changes):
    rng = np.random.default_rng(0)
    columns = ["loss_pos", "loss_neg", "loss_ent", "entropy", "used_clusters", "learning_rate"]
    history = pd.DataFrame(rng.random((4, 6)), columns=columns)
    pixels = rng.integers(0, 256, (n_images, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n_images) % 3
    return {
        "metrics": make_metrics(),
        "history": history.assign(seed=[0, 0, 7, 7], epoch=[0, 1, 0, 1]),
        "union_size": np.arange(10, 110),
        "max_union_size": 70,
        "predictions": pd.DataFrame(
            {
                "image_id": [f"image{i:03d}" for i in range(n_images)],
                "cluster": np.arange(n_images) % n_clusters,
                "confidence": rng.random(n_images).astype(np.float32),
            }
        ),
        "read_image": lambda row: pixels[row],
        "labels": labels,
        "class_names": ["cat", "dog", "owl"],
        "seed": 0,
        "split": "test",
    } | changes


def text_of(page):
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


@pytest.fixture(scope="module")
def report():
    return build_report(**make_arguments())


@pytest.fixture
def unencoded(monkeypatch):
    """Figures are drawn but not encoded, which is most of the time of a report."""
    monkeypatch.setattr("unic.report.page.encode_png", lambda _: b"png")


class TestPage:
    def test_holds_the_numbers(self, report):
        text = text_of(report.html)
        assert "Clustering of 60 test images into 3 clusters (true classes: 3)" in text
        assert "85.7% ± 5.6" in text  # ours
        assert "55.7% ± 5.6" in text  # k-means
        for value in ("91.2%", "80.1%", "61.2%", "50.1%"):  # each seed
            assert value in text
        assert "30.0 points above k-means on the same features (55.7%)" in text
        assert "61.0%" in text  # neighborhoods kept
        assert text.index("UNIC 85.7%") < text.index("k-means on features 55.7%")

    def test_says_which_seed_it_shows_and_why(self, report):
        why = "by seed 0, the lower of the two middle ones of 2 seeds by accuracy."
        assert f"The test images {why}" in text_of(report.html)

    @pytest.mark.usefixtures("unencoded")
    def test_says_how_neighbors_were_found_and_cleaned(self, report):
        plain = text_of(report.html)
        assert "On average 62.5% of an image's neighbors have it among theirs." in plain
        assert "approximate" not in plain
        assert "chosen without labels" not in plain
        metrics = make_metrics()
        metrics["neighbors"] |= {"engine": "faiss_ivf", "recall": 0.973, "quantile": 0.8}
        text = text_of(build_report(**make_arguments(metrics=metrics)).html)
        assert "faiss_ivf found 97.3% of the true neighbors" in text
        assert "chosen without labels, as the least that keeps 80.0% of the images." in text

    def test_reads_nothing_from_elsewhere(self, report):
        assert not re.search(r"https?:|//[a-z]", report.html.split("base64")[0])
        references = re.findall(r"(?:src|href)=\"([^\"]*)|url\(\"([^\"]*)", report.html)
        for reference in (a or b for a, b in references):
            assert reference.startswith(("data:", "#")) or reference == "quality.html"
        assert "http://" not in report.html
        assert "https://" not in report.html
        assert "<script" not in report.html
        assert "unic explore results/" in report.html

    def test_embeds_the_figures_it_returns(self, report):
        assert set(report.figures) == {
            "losses.png",
            "union_sizes.png",
            "cluster_sizes.png",
            "metrics.png",
            "confusion.png",
        }
        embedded = re.findall(r"<img src=\"data:image/png;base64,([^\"]+)\"", report.html)
        assert sorted(map(b64decode, embedded)) == sorted(report.figures.values())

    def test_says_how_the_page_of_quality_is_made(self, report):
        assert '<a href="quality.html">' in report.html
        assert "snakemake results/tiny/quality.html" in text_of(report.html)

    def test_is_the_same_on_a_second_build(self, report):
        assert build_report(**make_arguments()) == report

    def test_ids_point_at_existing_clusters(self, report):
        targets = set(re.findall(r"href=\"#([^\"]+)\"", report.html))
        assert targets <= set(re.findall(r"id=\"([^\"]+)\"", report.html))

    @pytest.mark.usefixtures("unencoded")
    def test_names_are_escaped(self):
        arguments = make_arguments(class_names=["<script>alert(1)</script>", 'a"b', "o&w"])
        arguments["metrics"]["experiment"] = "<b>bold</b>"
        ids = [f"<i>\"'{i}" for i in range(60)]
        arguments["predictions"] = arguments["predictions"].assign(image_id=ids)
        page = build_report(**arguments).html
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert "<b>bold" not in page
        assert "&lt;b&gt;bold" in page
        assert "<i>&#34;" not in page
        assert "&lt;i&gt;&#34;&#39;" in page


@pytest.mark.usefixtures("unencoded")
class TestContactSheets:
    def test_every_cell_is_the_image_it_names(self):
        arguments = make_arguments()
        page = build_report(**arguments).html
        sheets = dict(re.findall(r"\.s(\d+) b \{ background-image: url\(\"([^\"]+)", page))
        predictions = arguments["predictions"]
        for number in range(3):
            content = b64decode(sheets[str(number)].partition(",")[2])
            pixels = np.asarray(Image.open(BytesIO(content)))  # lossless
            article = re.search(rf"id=\"cluster-{number}\".*?</article>", page, re.DOTALL)
            cells = re.findall(
                r"background-position: ([\d.]+)% ([\d.]+)%.*?aria-label=\"image(\d+)\"",
                article.group(),
            )
            rows = predictions.index[predictions["cluster"] == number]
            assert sorted(int(row) for *_, row in cells) == sorted(rows)
            n_rows = len(pixels) // 8
            for x, y, row in cells:
                column, line = round(float(x) * 5 / 100), round(float(y) * (n_rows - 1) / 100)
                cell = pixels[8 * line :, 8 * column :][:8, :8]
                np.testing.assert_array_equal(cell, arguments["read_image"](int(row)))

    def test_photographs_of_many_clusters_stay_small(self):
        rng = np.random.default_rng(0)
        # Smooth with fine grain, as photographs are.
        coarse = rng.integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
        photographs = [
            np.asarray(Image.fromarray(image).resize((160, 120), Image.Resampling.BICUBIC))
            for image in coarse
        ]
        arguments = make_arguments(
            n_images=200 * 24,  # as many as are shown
            n_clusters=200,
            labels=None,
            class_names=None,
            read_image=lambda row: photographs[row % 8],
            metrics=make_metrics(n_clusters=200),
        )
        page = build_report(**arguments).html
        assert page.count("image/jpeg") == 200
        assert len(page) < 15_000_000


@pytest.mark.usefixtures("unencoded")
class TestOtherExperiments:
    def test_without_labels(self):
        metrics = make_metrics(keys=("mean_confidence",), n_classes=None)
        del metrics["methods"]["kmeans_features"]
        arguments = make_arguments(metrics=metrics, labels=None, class_names=None)
        report = build_report(**arguments)
        assert set(report.figures) == {"losses.png", "union_sizes.png", "cluster_sizes.png"}
        text = text_of(report.html)
        assert "No labels were given" in text
        assert "Mean confidence Clusters used" in text
        assert "85.7%" in text
        assert "pure" not in text
        assert "true classes" not in text

    def test_an_estimated_number_of_clusters_is_drawn_and_said(self):
        curve = {"n_clusters": [2, 3, 5], "score": [0.1, 0.4, 0.2]}
        curve |= {name: [0.1, None, 0.3] for name in ("agreement", "silhouette", "modularity")}
        estimate = {"n_clusters": 3, "best": 3, "low": 2, "high": 5, "candidates": [3, 5]}
        estimate["curve"] = curve | {"labels": [None] * 3}
        report = build_report(**make_arguments(estimate=estimate))
        assert "n_clusters.png" in report.figures
        told = "3 clusters by estimate, between 2 and 5; next best 5."
        assert told in text_of(report.html)
        assert "by estimate" not in text_of(build_report(**make_arguments()).html)

    def test_labels_without_class_names(self):
        text = text_of(build_report(**make_arguments(class_names=None)).html)
        assert "class 1 cluster 1" in text

    def test_generalized_category_discovery(self):
        keys = ("all", "old", "new", "nmi", "ami", "ari")
        metrics = make_metrics("unlabeled", keys, task="gcd", n_labeled=25)
        text = text_of(build_report(**make_arguments(metrics=metrics, split="unlabeled")).html)
        assert "Generalized category discovery of 60 unlabeled images" in text
        assert "25 known labels" in text
        assert "Method All Old New NMI AMI ARI" in text
        assert "UNIC reaches 85.7% All accuracy on the unlabeled images" in text

    def test_one_seed_has_no_spread(self):
        metrics = make_metrics(seeds=[0])
        for method in metrics["methods"].values():
            method["test"] = {key: measure(m["values"][0]) for key, m in method["test"].items()}
        text = text_of(build_report(**make_arguments(metrics=metrics)).html)
        assert "±" not in text
        assert "the spread is not known" in text

    def test_a_method_without_a_metric_has_a_dash(self):
        metrics = make_metrics()
        del metrics["methods"]["kmeans_features"]["test"]["nmi"]
        page = build_report(**make_arguments(metrics=metrics)).html
        assert "<td>\N{EN DASH}</td>" in page


class TestWarnings:
    def test_no_warning_if_every_cluster_is_used(self, report):
        assert "Not every cluster was used" not in report.html

    @pytest.mark.usefixtures("unencoded")
    def test_empty_clusters_and_other_seeds(self):
        metrics = make_metrics(n_clusters=5)
        metrics["methods"]["unic"]["test"]["used_clusters"] = measure(3, 4)
        page = build_report(**make_arguments(metrics=metrics)).html
        text = text_of(page)
        assert "2 of 5 clusters are empty on the test images with seed 0: 3, 4." in text
        assert "Seed 7 used 4 of 5 clusters on the test images." in text
        assert 'id="cluster-2"' in page
        assert 'id="cluster-3"' not in page


@pytest.mark.usefixtures("unencoded")
class TestSkippedImages:
    def test_are_counted_and_the_first_named(self):
        skipped = [
            {"split": "train", "image_id": f"<{number}>.png", "reason": "OSError: truncated"}
            for number in range(10)
        ]
        metrics = make_metrics() | {"n_skipped": 1012, "skipped": skipped}
        page = build_report(**make_arguments(metrics=metrics)).html
        text = text_of(page)
        assert "1,012 images could not be decoded and were left out" in text
        assert "&lt;9&gt;.png (train): OSError: truncated" in page
        assert "and 1,002 more" in text

    def test_one_alone(self):
        skipped = [{"split": "test", "image_id": "a.png", "reason": "why"}]
        metrics = make_metrics() | {"n_skipped": 1, "skipped": skipped}
        text = text_of(build_report(**make_arguments(metrics=metrics)).html)
        assert "1 image could not be decoded and was left out" in text
        assert "more, listed" not in text

    @pytest.mark.parametrize("skipped", [{}, {"n_skipped": 0, "skipped": []}])
    def test_none(self, skipped):
        page = build_report(**make_arguments(metrics=make_metrics() | skipped)).html
        assert "could not be decoded" not in page


class TestCompareWithKmeans:
    @pytest.mark.parametrize(
        ("ours", "theirs", "end"),
        [
            ((0.9, 0.9), (0.8, 0.8), "10.0 points above k-means on the same features (80.0%)."),
            ((0.7, 0.7), (0.8, 0.8), "10.0 points below k-means on the same features (80.0%)."),
            ((0.8, 0.8), (0.8, 0.8), "the same as k-means on the same features (80.0%)."),
            ((0.9, 0.74), (0.8, 0.8), "(80.0%); the seeds differ by more than that."),
        ],
    )
    def test_says_above_and_below(self, ours, theirs, end):
        metrics = make_metrics()
        metrics["methods"]["unic"]["test"]["acc"] = measure(*ours)
        metrics["methods"]["kmeans_features"]["test"]["acc"] = measure(*theirs)
        assert compare_with_kmeans(metrics, split="test").endswith(end)

    def test_says_that_kmeans_was_not_run(self):
        metrics = make_metrics()
        del metrics["methods"]["kmeans_features"]
        assert compare_with_kmeans(metrics, split="test").endswith("was not run.")


class TestDescribeClusters:
    def test_order_majority_and_purity(self):
        predictions = pd.DataFrame(
            {"cluster": [0] * 30 + [2] * 5, "confidence": np.r_[np.linspace(0, 1, 30), [0.5] * 5]}
        )
        labels = np.r_[np.zeros(20, np.int64), np.ones(15, np.int64)]
        large, empty, small = describe_clusters(predictions, n_clusters=3, labels=labels)
        assert large.most_confident.tolist() == list(range(29, 17, -1))
        assert large.least_confident.tolist() == list(range(12))
        assert (large.majority_class, large.purity) == ("class 0", 20 / 30)
        assert large.mean_confidence == pytest.approx(0.5)
        assert (empty.size, empty.majority_class, empty.purity) == (0, None, None)
        assert np.isnan(empty.mean_confidence)
        assert small.most_confident.tolist() == [30, 31, 32, 33, 34]  # ties: the lower row
        assert small.least_confident.size == 0  # no image is shown twice

    def test_labels_of_another_length_are_refused(self):
        predictions = pd.DataFrame({"cluster": [0, 1], "confidence": [1.0, 1.0]})
        with pytest.raises(ValueError, match="got 3 and 2"):
            describe_clusters(predictions, n_clusters=2, labels=np.zeros(3, np.int64))


def test_list_confusions_sorts_by_images_and_leaves_out_the_matched():
    labels = np.repeat([0, 1, 2], [10, 10, 10])
    clusters = np.repeat([1, 0, 3, 2, 0], [8, 2 + 7, 3, 9, 1])
    first, second, *others = list_confusions(labels, clusters, ["a", "b", "c"], n_clusters=4)
    assert (first.class_name, first.cluster_class, first.n_images) == ("b", "no class", 3)
    assert (second.class_name, second.cluster_class, second.n_images) == ("a", "b", 2)
    assert second.share == pytest.approx(0.2)
    assert [other.n_images for other in others] == [1]
