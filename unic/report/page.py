"""The report of a finished experiment: one HTML file that opens anywhere, and its figures."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.evaluation.formatting import (
    METHOD_NAMES,
    METRIC_NAMES,
    MISSING,
    format_estimate,
    format_percent,
    format_value,
    is_missing,
)
from unic.evaluation.metrics import align_clusters, count_clusters, cross_tabulate
from unic.evaluation.summary import HEADLINES
from unic.report.contact_sheets import contact_sheet
from unic.report.figures import (
    LABELED_METRICS,
    encode_png,
    plot_cluster_sizes,
    plot_confusion,
    plot_losses,
    plot_metrics,
    plot_n_clusters,
    plot_union_sizes,
)
from unic.storage.files import whole_file, whole_folder

_N_SHOWN = 12  # images at either end of a cluster
_N_COLUMNS = 6  # cells in a row of a contact sheet
_N_CONFUSIONS = 10
_MAX_TINY = 64  # pixels; larger images are photographs
_MAX_LOSSLESS = 10_000_000  # bytes of all contact sheets together, before compression
_MAX_PIXELS = 28_000_000  # of all contact sheets together: about 10 MB of JPEG
_MAX_CELL = 112  # pixels


class Cluster(NamedTuple):
    """One cluster, and the images that show what it holds."""

    number: int
    size: int
    mean_confidence: float  # nan if empty
    most_confident: NDArray[np.int64]  # (<= 12,) rows of images, most confident first
    least_confident: NDArray[np.int64]  # (<= 12,) other rows, least confident first
    majority_class: str | None  # None without labels, or if empty
    purity: float | None  # share of the majority class


class Confusion(NamedTuple):
    """Images of one class that are in the cluster of another."""

    class_name: str
    cluster: int
    cluster_class: str  # the class matched to the cluster, or "no class"
    n_images: int
    share: float  # of the class


class Report(NamedTuple):
    """A self-contained page, and the figures it shows."""

    html: str
    figures: dict[str, bytes]  # PNG by file name


class _Row(NamedTuple):
    """A method in the table of metrics."""

    name: str
    is_ours: bool
    cells: list[tuple[str, str, bool]]  # mean, std or "", best of the column
    seeds: list[tuple[str, list[str]]]  # metric, a value per seed


class _Table(NamedTuple):
    """The metrics on one split."""

    split: str
    columns: list[str]
    rows: list[_Row]
    n_seeds: int


def build_report(
    *,
    metrics: Mapping[str, Any],
    history: pd.DataFrame,
    union_size: NDArray[np.integer[Any]],
    max_union_size: int,
    predictions: pd.DataFrame,
    read_image: Callable[[int], NDArray[np.uint8]],
    labels: NDArray[np.int64] | None,
    class_names: Sequence[str] | None,
    seed: int,
    split: str,
    estimate: Mapping[str, Any] | None = None,
) -> Report:
    """Build the report of a finished experiment.

    Args:
        metrics: ``metrics.json`` of the experiment, values in ``[0, 1]``.
        history: What finetuning logged, one row per seed and epoch.
        union_size: Shape ``(n_train,)``, size of each second-order neighborhood.
        max_union_size: eta of the paper, the largest size that is kept.
        predictions: One row an image of the shown split, with the columns ``image_id``,
            ``cluster`` and ``confidence``.
        read_image: Gives the RGB pixels, uint8 ``(h, w, 3)``, of a row of ``predictions``.
        labels: Shape ``(n,)``, the class of each row of ``predictions``, or None if unknown.
        class_names: A name per class, or None for numbers.
        seed: The seed that made ``predictions``.
        split: The split of ``predictions``, such as ``"test"``, ``"unlabeled"`` or ``"train"``.
        estimate: Of the number of clusters, ``n_clusters.json``; None where it was given.

    Raises:
        ValueError: If ``labels`` do not fit ``predictions``, or a cluster is out of range.
    """
    n_clusters = int(metrics["n_clusters"])
    clusters = describe_clusters(
        predictions, n_clusters=n_clusters, labels=labels, class_names=class_names
    )
    figures = _draw_figures(
        metrics=metrics,
        history=history,
        union_size=union_size,
        max_union_size=max_union_size,
        predictions=predictions,
        labels=labels,
        class_names=class_names,
        split=split,
        estimate=estimate,
    )
    shown = [cluster for cluster in clusters if cluster.size]
    confusions = []
    if labels is not None:
        confusions = list_confusions(
            labels, predictions["cluster"].to_numpy(np.int64), class_names, n_clusters=n_clusters
        )
    html = _load_template().render(
        metrics=metrics,
        n_columns=_N_COLUMNS,
        seed=seed,
        split=split,
        summary=_summarize(metrics),
        estimated=None if estimate is None else format_estimate(estimate),
        comparison=compare_with_kmeans(metrics, split=split),
        facts=_list_facts(metrics, clusters, union_size, max_union_size, split=split),
        warnings=_list_warnings(metrics, clusters, seed=seed, split=split),
        tables=_tabulate(metrics),
        figures={name.removesuffix(".png"): _data_uri(png) for name, png in figures.items()},
        confusions=confusions,
        clusters=shown,
        sheets={c.number: _draw_sheet(c, read_image, n_clusters=n_clusters) for c in shown},
        image_ids=predictions["image_id"].astype(str).tolist(),
        confidence=predictions["confidence"].tolist(),
    )
    return Report(html=html, figures=figures)


def write_report(report: Report, *, html: str | Path, figures: str | Path) -> None:
    """Write the page and the folder of its figures, each whole or not at all."""
    with whole_folder(figures) as folder:
        for name, content in report.figures.items():
            (folder / name).write_bytes(content)
    with whole_file(html) as temporary:
        temporary.write_text(report.html, encoding="utf-8")


def describe_clusters(
    predictions: pd.DataFrame,
    *,
    n_clusters: int,
    labels: NDArray[np.int64] | None = None,
    class_names: Sequence[str] | None = None,
) -> list[Cluster]:
    """Describe every cluster, empty ones too; ties in confidence go to the lower row.

    Args:
        predictions: One row an image, with the columns ``cluster`` and ``confidence``.
        n_clusters: Outputs of the cluster head.
        labels: Shape ``(n,)``, the class of each image, or None.
        class_names: A name per class, or None for numbers.

    Raises:
        ValueError: If ``labels`` do not fit ``predictions``, or a cluster is out of range.
    """
    assigned = predictions["cluster"].to_numpy(dtype=np.int64)
    confidence = predictions["confidence"].to_numpy(dtype=np.float64)
    sizes = count_clusters(assigned, n_clusters=n_clusters)
    if labels is None:
        counts = None
    else:
        n_classes = None if class_names is None else len(class_names)
        counts = cross_tabulate(labels, assigned, n_classes=n_classes, n_clusters=n_clusters)
    clusters = []
    for number in range(n_clusters):
        rows = np.flatnonzero(assigned == number)
        rows = rows[np.argsort(-confidence[rows], kind="stable")]
        majority, purity = None, None
        if counts is not None and len(rows):
            majority = _name_class(int(counts[:, number].argmax()), class_names)
            purity = float(counts[:, number].max() / len(rows))
        clusters.append(
            Cluster(
                number=number,
                size=int(sizes[number]),
                mean_confidence=float(confidence[rows].mean()) if len(rows) else math.nan,
                most_confident=rows[:_N_SHOWN],
                least_confident=rows[_N_SHOWN:][::-1][:_N_SHOWN],
                majority_class=majority,
                purity=purity,
            )
        )
    return clusters


def list_confusions(
    labels: NDArray[np.int64],
    clusters: NDArray[np.int64],
    class_names: Sequence[str] | None = None,
    *,
    n_clusters: int,
) -> list[Confusion]:
    """List the ten largest groups of images that are in the cluster of another class.

    Args:
        labels: Shape ``(n,)``, the class of each image.
        clusters: Shape ``(n,)``, in ``[0, n_clusters)``.
        class_names: A name per class, or None for numbers.
        n_clusters: Outputs of the cluster head.
    """
    n_classes = None if class_names is None else len(class_names)
    counts = cross_tabulate(labels, clusters, n_classes=n_classes, n_clusters=n_clusters)
    rows, columns = align_clusters(counts)
    class_of = dict(zip(columns.tolist(), rows.tolist(), strict=False))
    wrong = counts.copy()
    n_matched = min(counts.shape)
    wrong[rows[:n_matched], columns[:n_matched]] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:_N_CONFUSIONS]
    matched = set(columns[:n_matched].tolist())
    return [
        Confusion(
            class_name=_name_class(label, class_names),
            cluster=cluster,
            cluster_class=(
                _name_class(class_of[cluster], class_names) if cluster in matched else "no class"
            ),
            n_images=int(wrong[label, cluster]),
            share=float(wrong[label, cluster] / counts[label].sum()),
        )
        for label, cluster in (divmod(int(i), n_clusters) for i in order)
        if wrong[label, cluster]
    ]


def compare_with_kmeans(metrics: Mapping[str, Any], *, split: str) -> str:
    """Say in a sentence by how much ours is above or below k-means on the same features."""
    ours = metrics["methods"]["unic"].get(split, {})
    key = _main_metric(ours)
    if key is None:
        return "No labels were given, so accuracy could not be measured."
    name = HEADLINES.get(key, METRIC_NAMES[key])
    start = f"UNIC reaches {format_percent(ours[key]['mean'])} {name} on the {split} images"
    n_seeds = len(ours[key]["values"])
    start += f" (mean of {n_seeds} seeds)" if n_seeds > 1 else " (one seed)"
    kmeans = metrics["methods"].get("kmeans_features", {}).get(split, {}).get(key)
    if kmeans is None or is_missing(kmeans["mean"]):
        return f"{start}. K-means on the same features was not run."
    difference = ours[key]["mean"] - kmeans["mean"]
    points = f"{100 * abs(difference):.1f}"
    end = f"k-means on the same features ({format_percent(kmeans['mean'])})"
    if points == "0.0":
        return f"{start}, the same as {end}."
    sentence = f"{start}, {points} points {'above' if difference > 0 else 'below'} {end}"
    if abs(difference) < math.hypot(ours[key]["std"] or 0, kmeans["std"] or 0):
        sentence += "; the seeds differ by more than that"
    return f"{sentence}."


def _draw_figures(
    *,
    metrics: Mapping[str, Any],
    history: pd.DataFrame,
    union_size: NDArray[np.integer[Any]],
    max_union_size: int,
    predictions: pd.DataFrame,
    labels: NDArray[np.int64] | None,
    class_names: Sequence[str] | None,
    split: str,
    estimate: Mapping[str, Any] | None,
) -> dict[str, bytes]:
    n_clusters = int(metrics["n_clusters"])
    figures = {
        "union_sizes.png": plot_union_sizes(union_size, max_union_size),
        "cluster_sizes.png": plot_cluster_sizes(predictions, n_clusters=n_clusters),
    }
    if estimate is not None:
        figures["n_clusters.png"] = plot_n_clusters(estimate)
    if metrics["method"] == "finetuning":
        figures["losses.png"] = plot_losses(history)
    if _main_metric(metrics["methods"]["unic"].get(split, {})) is not None:
        figures["metrics.png"] = plot_metrics(metrics, split=split)
    if labels is not None:
        clusters = predictions["cluster"].to_numpy(dtype=np.int64)
        figures["confusion.png"] = plot_confusion(
            labels, clusters, class_names, n_clusters=n_clusters
        )
    return {name: encode_png(figure) for name, figure in figures.items()}


def _draw_sheet(
    cluster: Cluster, read_image: Callable[[int], NDArray[np.uint8]], *, n_clusters: int
) -> tuple[str, int, bool]:
    """Return the contact sheet as a data URI, its rows, and whether its images are tiny."""
    rows = [*cluster.most_confident.tolist(), *cluster.least_confident.tolist()]
    images = [read_image(row) for row in rows]
    side = max(min(image.shape[:2]) for image in images)
    is_tiny = side <= _MAX_TINY
    n_cells = 2 * _N_SHOWN * n_clusters
    is_lossless = is_tiny and 3 * side**2 * n_cells <= _MAX_LOSSLESS
    if not is_lossless:
        # Whole blocks of 16 pixels keep JPEG from mixing neighboring cells.
        limit = min(_MAX_CELL, math.isqrt(_MAX_PIXELS // n_cells))
        side = max(16, min(limit, side) // 16 * 16)
    sheet = contact_sheet(images, n_columns=_N_COLUMNS, cell_size=side)
    buffer = io.BytesIO()
    if is_lossless:
        sheet.save(buffer, "PNG", optimize=True)
    else:
        sheet.save(buffer, "JPEG", quality=80, optimize=True)
    kind = "png" if is_lossless else "jpeg"
    return _data_uri(buffer.getvalue(), kind=kind), sheet.height // side, is_tiny


def _summarize(metrics: Mapping[str, Any]) -> str:
    """Say in a sentence what was run."""
    images = " and ".join(f"{n:,} {split}" for split, n in metrics["n_images"].items())
    task = {"gcd": "Generalized category discovery"}.get(metrics["task"], "Clustering")
    n_labeled = metrics.get("n_labeled") or 0
    known = f"{n_labeled:,} known labels" if n_labeled else "no known labels"
    seeds = metrics["seeds"]
    runs = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    classes = f" (true classes: {metrics['n_classes']:,})" if metrics.get("n_classes") else ""
    return (
        f"{task} of {images} images into {metrics['n_clusters']:,} clusters{classes} "
        f"with {known}, {runs}, by UNIC {metrics['version']}."
    )


def _list_facts(
    metrics: Mapping[str, Any],
    clusters: Sequence[Cluster],
    union_size: NDArray[np.integer[Any]],
    max_union_size: int,
    *,
    split: str,
) -> list[tuple[str, str, str]]:
    """The numbers at the top of the page: value, name, remark."""
    ours = metrics["methods"]["unic"].get(split, {})
    key = _main_metric(ours)
    facts = []
    if key is not None:
        mean, std = _format(key, ours[key])
        facts.append((mean, f"{METRIC_NAMES[key]}, {split}", std))
        kmeans = metrics["methods"].get("kmeans_features", {}).get(split, {}).get(key)
        if kmeans is not None and not is_missing(kmeans["mean"]):
            points = 100 * (ours[key]["mean"] - kmeans["mean"])
            facts.append((f"{points:+.1f}", "points to k-means", "on the same features"))
    n_used = sum(cluster.size > 0 for cluster in clusters)
    facts.append((f"{n_used:,} of {len(clusters):,}", "clusters used", f"{split} images"))
    kept = float(np.mean(union_size <= max_union_size))
    facts.append((format_percent(kept), "neighborhoods kept", f"union size up to {max_union_size}"))
    return facts


def _list_warnings(
    metrics: Mapping[str, Any], clusters: Sequence[Cluster], *, seed: int, split: str
) -> list[str]:
    n_clusters = len(clusters)
    warnings = []
    empty = [str(cluster.number) for cluster in clusters if not cluster.size]
    if empty:
        names = ", ".join(empty[:30]) + (" and more" if len(empty) > 30 else "")
        verb = "is" if len(empty) == 1 else "are"
        warnings.append(
            f"{len(empty)} of {n_clusters} clusters {verb} empty on the {split} images "
            f"with seed {seed}: {names}."
        )
    used = metrics["methods"]["unic"].get(split, {}).get("used_clusters", {}).get("values", [])
    for other, n_used in zip(metrics["seeds"], used, strict=False):
        if other != seed and not is_missing(n_used) and n_used < n_clusters:
            warnings.append(
                f"Seed {other} used {n_used:.0f} of {n_clusters} clusters on the {split} images."
            )
    return warnings


def _tabulate(metrics: Mapping[str, Any]) -> list[_Table]:
    """One table a split; ours first, the baselines in the order given."""
    methods = metrics["methods"]
    splits = dict.fromkeys(split for method in methods.values() for split in method)
    ordered = sorted(methods, key=lambda name: name != "unic")
    tables = []
    for split in splits:
        present = {name: methods[name][split] for name in ordered if split in methods[name]}
        keys = [key for key in METRIC_NAMES if any(key in found for found in present.values())]
        best = {key: _find_best(key, present) for key in keys}
        rows = [
            _Row(
                name=METHOD_NAMES.get(name, name),
                is_ours=name == "unic",
                cells=[(*_format(key, found.get(key)), name in best[key]) for key in keys],
                seeds=[
                    (METRIC_NAMES[key], [format_value(key, v) for v in found[key]["values"]])
                    for key in keys
                    if key in found
                ],
            )
            for name, found in present.items()
        ]
        tables.append(_Table(split, [METRIC_NAMES[k] for k in keys], rows, len(metrics["seeds"])))
    return tables


def _find_best(key: str, present: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The methods whose mean is best as printed; none if there is nothing to compare."""
    means = {name: _format(key, found.get(key))[0] for name, found in present.items()}
    numbers = {n: float(mean.rstrip("%")) for n, mean in means.items() if mean != MISSING}
    if key not in LABELED_METRICS or len(numbers) < 2:
        return []
    return [name for name, number in numbers.items() if number == max(numbers.values())]


def _format(key: str, measure: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the mean, and the standard deviation if there is more than one value."""
    if measure is None or is_missing(measure["mean"]):
        return MISSING, ""
    if len(measure["values"]) < 2 or is_missing(measure["std"]):
        return format_value(key, measure["mean"]), ""
    scale = 1 if key == "used_clusters" else 100
    return format_value(key, measure["mean"]), f"± {scale * measure['std']:.1f}"


def _main_metric(measures: Mapping[str, Any]) -> str | None:
    """The accuracy of the task, else the first metric against labels that was measured."""
    for key in LABELED_METRICS:
        if key in measures and not is_missing(measures[key]["mean"]):
            return key
    return None


def _name_class(label: int, class_names: Sequence[str] | None) -> str:
    return f"class {label}" if class_names is None else class_names[label]


def _data_uri(content: bytes, *, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _load_template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unic.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = format_percent
    return environment.get_template("page.html.jinja")
