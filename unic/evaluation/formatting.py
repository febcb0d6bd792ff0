"""Scores, shares and methods as text, alike in reports, tables and on the command line."""

import math
from collections.abc import Mapping
from typing import Any

MISSING = "\N{EN DASH}"
METHOD_NAMES = {
    "unic": "UNIC",
    "kmeans_pixels": "k-means on pixels",
    "kmeans_pixels_normalized": "k-means on pixels, unit length",
    "kmeans_features": "k-means on features",
    "kmeans_features_normalized": "k-means on features, unit length",
    "kmeans_finetuned": "k-means on finetuned features",
    "kmeans_finetuned_normalized": "k-means on finetuned features, unit length",
    "semi_supervised_kmeans_features": "semi-supervised k-means",
    "semi_supervised_kmeans_features_normalized": "semi-supervised k-means, unit length",
    "simgcd": "SimGCD",
    "consensus": "UNIC, recipe without settings",
    "hierarchical_kmeans": "hierarchical semi-supervised k-means",
    "icon": "I-Con",
    "scan": "SCAN",
    "spectral": "spectral clustering",
    "spherical_kmeans": "spherical k-means",
    "temi": "TEMI",
    "turtle": "TURTLE",
    "umap_ward": "UMAP and Ward",
    "ward": "Ward",
}

METRIC_NAMES = {
    "acc": "ACC",
    "balanced_acc": "Balanced ACC",
    "all": "All",
    "old": "Old",
    "new": "New",
    "nmi": "NMI",
    "ami": "AMI",
    "ari": "ARI",
    "mean_confidence": "Mean confidence",
    "used_clusters": "Clusters used",
}


def is_missing(value: float | None) -> bool:
    """Whether a score is none: JSON has null or NaN for it."""
    return value is None or math.isnan(value)


def format_estimate(estimate: Mapping[str, Any]) -> str:
    """How sure an estimate of the number of clusters is, in words.

    Args:
        estimate: ``n_clusters.json``, see :meth:`unic.quality.n_clusters.Estimate.record`.

    Example:
        >>> found = {"n_clusters": 12, "best": 12, "low": 9, "high": 20, "candidates": [12, 17]}
        >>> format_estimate(found)
        '12 clusters by estimate, between 9 and 20; next best 17'
    """
    found = estimate["n_clusters"]
    others = ", ".join(str(each) for each in estimate["candidates"] if each != found)
    told = f"{found} clusters by estimate, between {estimate['low']} and {estimate['high']}"
    if estimate["best"] < 2:
        told = f"The images may well be of one kind; {told}"
    return told + (f"; next best {others}" if others else "")


def format_percent(fraction: float) -> str:
    """Write a share in [0, 1] in percent, with one digit behind the point.

    >>> format_percent(0.9526)
    '95.3%'
    """
    return f"{100 * fraction:.1f}%"


def format_count(mean: float) -> str:
    """Write a mean of counts, a whole one without digits behind the point.

    >>> format_count(9.5), format_count(1000.0)
    ('9.5', '1,000')
    """
    return f"{mean:,.1f}".removesuffix(".0")


def format_value(name: str, value: float | None) -> str:
    """Write a score by its name: ``used_clusters`` is a count, all others are shares.

    >>> format_value("acc", 0.9526), format_value("used_clusters", 10.0)
    ('95.3%', '10')
    """
    if value is None or math.isnan(value):
        return MISSING
    return format_count(value) if name == "used_clusters" else format_percent(value)


def format_spread(mean: float, std: float, *, n_seeds: int) -> str:
    """Write a mean and its standard deviation, both in percent; one seed has no deviation.

    >>> format_spread(91.004, 1.41, n_seeds=3), format_spread(91.004, 0.0, n_seeds=1)
    ('91.00 ± 1.41', '91.00')
    """
    return f"{mean:.2f} ± {std:.2f}" if n_seeds > 1 else f"{mean:.2f}"
