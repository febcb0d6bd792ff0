import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from unic.evaluation.metrics import align_clusters, count_clusters, cross_tabulate
from unic.report.figures import (
    encode_png,
    encode_svg,
    plot_cluster_sizes,
    plot_comparison,
    plot_confusion,
    plot_losses,
    plot_metrics,
    plot_union_sizes,
    write_figure,
)

CURVES = ["loss_pos", "loss_neg", "loss_ent", "entropy", "used_clusters", "learning_rate"]


def make_history(n_epochs=4, seeds=(0, 3)):
    rows = [
        {"seed": seed, "epoch": epoch, **{c: seed + epoch + i for i, c in enumerate(CURVES)}}
        for seed in seeds
        for epoch in range(n_epochs)
    ]
    return pd.DataFrame(rows)


def measure(*values):
    return {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": list(values)}


def make_metrics():
    ours = {"acc": measure(0.9, 0.8), "nmi": measure(0.7, 0.7), "used_clusters": measure(10, 9)}
    theirs = {"acc": measure(0.6, 0.5), "nmi": measure(0.5)}
    return {"methods": {"unic": {"test": ours}, "kmeans_features": {"test": theirs}}}


def texts(axes):
    return [text.get_text() for text in axes.texts]


class TestPlotLosses:
    def test_one_line_a_seed_with_its_values(self):
        history = make_history()
        figure = plot_losses(history)
        assert len(figure.axes) == 6
        for axes, column in zip(figure.axes, CURVES, strict=True):
            for line, seed in zip(axes.lines, (0, 3), strict=True):
                np.testing.assert_array_equal(line.get_xdata(), range(4))
                np.testing.assert_array_equal(
                    line.get_ydata(), history.loc[history["seed"] == seed, column]
                )
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["seed 0", "seed 3"]

    def test_a_single_epoch_and_missing_values_are_drawn(self):
        history = make_history(n_epochs=1).assign(loss_neg=np.nan)
        assert encode_png(plot_losses(history)).startswith(b"\x89PNG")
        assert plot_losses(history).axes[0].lines[0].get_marker() == "o"

    def test_a_missing_column_is_refused(self):
        with pytest.raises(ValueError, match=r"lacks \['entropy'\]"):
            plot_losses(make_history().drop(columns="entropy"))


class TestPlotUnionSizes:
    @pytest.mark.parametrize("high", [30, 400])
    def test_threshold_line_and_bars(self, high):
        union_size = np.random.default_rng(0).integers(10, high, size=500)
        threshold = high - 12
        axes = plot_union_sizes(union_size, threshold).axes[0]
        assert list(axes.lines[0].get_xdata()) == [threshold, threshold]
        assert texts(axes) == [f"threshold {threshold}"]
        kept = [p for p in axes.patches if p.get_facecolor() == to_rgba("#0072B2")]
        assert sum(p.get_height() for p in axes.patches) == 500
        assert sum(p.get_height() for p in kept) == (union_size <= threshold).sum()
        assert max(p.get_x() + p.get_width() for p in kept) == threshold

    @pytest.mark.parametrize(
        ("threshold", "title"), [(20, "75.0%"), (5, "0.0%"), (10, "25.0%"), (900, "100.0%")]
    )
    def test_title_holds_the_kept_fraction(self, threshold, title):
        axes = plot_union_sizes(np.array([10, 20, 20, 21]), threshold).axes[0]
        assert axes.get_title("left").startswith(f"{title} of")

    def test_no_image_is_refused(self):
        with pytest.raises(ValueError, match="at least one image"):
            plot_union_sizes(np.zeros(0, np.int32), 3)


class TestPlotMetrics:
    def test_bars_std_and_seeds(self):
        figure = plot_metrics(make_metrics(), split="test")
        axes = figure.axes[0]
        heights = [bar.get_height() for bar in axes.patches]
        np.testing.assert_allclose(heights, [85, 70, 55, 50])
        points = [collection.get_offsets()[:, 1].tolist() for collection in axes.collections]
        seeds = [p for p in points if len(p) == 2]
        np.testing.assert_allclose(seeds, [[90, 80], [70, 70], [60, 50]])
        spread = [bar.lines[2][0].get_segments()[0][:, 1] for bar in axes.containers[1:3]]
        np.testing.assert_allclose(spread, [[80, 90], [70, 70]])  # mean - std to mean + std
        assert texts(axes) == ["85.0", "70.0"]
        assert [t.get_text() for t in axes.get_xticklabels()] == ["ACC", "NMI"]
        names = [text.get_text() for text in figure.legends[0].get_texts()]
        assert names == ["UNIC", "k-means on features"]

    def test_a_metric_that_a_baseline_lacks_leaves_a_gap(self):
        metrics = make_metrics()
        del metrics["methods"]["kmeans_features"]["test"]["nmi"]
        axes = plot_metrics(metrics, split="test").axes[0]
        assert np.isnan(axes.patches[-1].get_height())

    def test_nothing_against_labels_is_refused(self):
        with pytest.raises(ValueError, match="'train', got none"):
            plot_metrics(make_metrics(), split="train")


class TestPlotClusterSizes:
    def test_largest_first_with_empty_ones(self):
        predictions = pd.DataFrame({"cluster": [2, 2, 2, 0, 4, 4]})
        axes = plot_cluster_sizes(predictions, n_clusters=5).axes[0]
        assert [bar.get_height() for bar in axes.patches] == [3, 2, 1, 0, 0]
        assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "4", "0", "1", "3"]
        assert axes.get_title("left").startswith("3 of 5 clusters used: smallest 0, median 1")
        assert list(axes.lines[0].get_ydata()) == [6 / 5, 6 / 5]

    def test_a_cluster_out_of_range_is_refused(self):
        with pytest.raises(ValueError, match="below n_clusters=3, got 0 to 3"):
            plot_cluster_sizes(pd.DataFrame({"cluster": [0, 3]}), n_clusters=3)


class TestPlotConfusion:
    def test_permuted_clusters_are_on_the_diagonal(self):
        labels = np.repeat(np.arange(4), 5)
        axes = plot_confusion(labels, np.array([2, 0, 3, 1])[labels], n_clusters=4).axes[0]
        np.testing.assert_array_equal(axes.images[0].get_array(), 100 * np.eye(4))
        assert [t.get_text() for t in axes.get_xticklabels()] == ["2", "0", "3", "1"]
        assert axes.get_title("left").startswith("100.0%")
        assert texts(axes) == ["100"] * 4

    @pytest.mark.parametrize(("n_classes", "n_clusters"), [(3, 5), (5, 3)])
    def test_what_has_no_partner_comes_last(self, n_classes, n_clusters):
        labels = np.arange(n_classes).repeat(4)
        axes = plot_confusion(labels, labels % n_clusters, n_clusters=n_clusters).axes[0]
        shares = np.asarray(axes.images[0].get_array())
        assert shares.shape == (n_classes, n_clusters)
        assert np.trace(shares[:3, :3]) == 300
        assert len(axes.lines) == 1

    def test_names_are_shown_and_absent_classes_are_rows_of_zeros(self):
        names = ["cat", "a $dollar$ sign", "x" * 60]
        figure = plot_confusion(np.array([0, 0, 2]), np.array([1, 1, 0]), names, n_clusters=3)
        axes = figure.axes[0]
        shown = [t.get_text() for t in axes.get_yticklabels()]
        assert "cat" in shown
        assert "x" * 21 + "…" in shown
        assert np.asarray(axes.images[0].get_array()).sum() == 200
        encode_png(figure)

    def test_two_hundred_classes_are_numbered_not_named(self):
        labels = np.arange(200).repeat(2)
        axes = plot_confusion(labels, labels, [f"n{i}" for i in range(200)], n_clusters=200).axes[0]
        assert len(axes.texts) == 0
        assert len(axes.get_yticklabels()) < 20

    @pytest.mark.parametrize(
        ("labels", "clusters", "message"),
        [
            ([0, 1], [0], "got 2 and 1"),
            ([], [], "got 0 and 0"),
            ([0, 2], [0, 1], "below n_classes=2, got 0 to 2"),
            ([0, -1], [0, 1], "got -1 to 0"),
            ([0, 1], [0, 2], "below n_clusters=2, got 0 to 2"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, labels, clusters, message):
        with pytest.raises(ValueError, match=message):
            plot_confusion(
                np.array(labels, np.int64), np.array(clusters, np.int64), ["a", "b"], n_clusters=2
            )


class TestCounts:
    def test_cross_tabulate_equals_a_loop(self):
        rng = np.random.default_rng(1)
        labels, clusters = rng.integers(0, 4, 50), rng.integers(0, 6, 50)
        expected = np.zeros((4, 7), np.int64)
        for label, cluster in zip(labels, clusters, strict=True):
            expected[label, cluster] += 1
        np.testing.assert_array_equal(cross_tabulate(labels, clusters, n_clusters=7), expected)
        np.testing.assert_array_equal(count_clusters(clusters, n_clusters=7), expected.sum(0))

    def test_align_clusters_maximizes_the_matched_images(self):
        counts = np.array([[5, 4, 0], [5, 0, 0]])
        rows, columns = align_clusters(counts)
        assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0, 2])


class TestComparisons:
    def make(self):
        rows = [
            ("acc", "ward", "A", 40.0),
            ("acc", "unic", "A", 60.0),
            ("acc", "unic", "B", 80.0),
            ("nmi", "ward", "A", 30.0),
        ]
        return pd.DataFrame(rows, columns=["score", "method", "data", "mean"]).assign(std=1.0)

    def test_a_panel_a_score_and_a_row_a_method(self):
        panels = plot_comparison(self.make()).axes
        assert [axes.get_title(loc="left") for axes in panels] == ["ACC", "NMI"]
        assert [label.get_text() for label in panels[0].get_yticklabels()] == ["Ward", "UNIC"]

    def test_means_are_of_the_methods_that_have_every_set(self):
        axes = plot_comparison(self.make()).axes[0]
        means = next(line for line in axes.lines if line.get_label() == "mean")
        assert (list(means.get_xdata()), list(means.get_ydata())) == ([70.0], [-1])

    def test_more_sets_than_colors_have_marks_of_their_own(self):
        rows = [("acc", "unic", f"set {number}", 50.0) for number in range(12)]
        scores = pd.DataFrame(rows, columns=["score", "method", "data", "mean"]).assign(std=1.0)
        lines = plot_comparison(scores).axes[0].lines
        marks = {
            (line.get_color(), line.get_marker()) for line in lines if line.get_marker() != "|"
        }
        assert len({mark for mark in marks if mark[1] in {"o", "s", "^"}}) == 12

    def test_no_score_is_refused(self):
        with pytest.raises(ValueError, match="must hold a row"):
            plot_comparison(self.make().iloc[:0])


@pytest.mark.parametrize("encode", [encode_png, encode_svg])
def test_bytes_do_not_depend_on_the_build_or_the_user_settings(encode):
    import matplotlib

    first = encode(plot_union_sizes(np.arange(40), 30))
    with matplotlib.rc_context({"font.size": 20, "savefig.dpi": 50, "svg.hashsalt": "other"}):
        second = encode(plot_union_sizes(np.arange(40), 30))
    assert first == second


def test_a_png_says_nothing_of_what_wrote_it():
    first = encode_png(plot_union_sizes(np.arange(40), 30))
    assert not Image.open(io.BytesIO(first)).text.keys() - {"Author"}


def test_a_figure_is_written_as_pixels_and_as_paths(tmp_path):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    write_figure(plot_union_sizes(np.arange(40), 30), png=png, svg=svg)
    assert png.read_bytes() == encode_png(plot_union_sizes(np.arange(40), 30))
    text = svg.read_text(encoding="utf-8")
    assert text.startswith("<?xml")
    assert "<text" not in text  # the same where a font is not there
    assert 'href="http' not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
