"""What a run has found: a summary, and copies of the images in a folder a cluster."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

from unic.evaluation.formatting import format_estimate, format_percent
from unic.images.readers.annotations import first_of
from unic.photos.room import check_room
from unic.storage.files import read_csv, read_json

PREDICTIONS = "predictions.csv"
_N_LISTED = 12  # clusters in a summary
COPY, LINK = "copy", "link"


def describe_outcome(folder: Path) -> str:
    """The clusters in a few lines, and where everything lies.

    Args:
        folder: ``results/NAME`` of a finished run.
    """
    metrics = read_json(folder / "metrics.json")
    rows = read_csv(folder / PREDICTIONS, columns=("path", "cluster", "name", "confidence"))
    sizes = Counter((int(row["cluster"]), row["name"]) for row in rows)
    lines = _describe_estimate(folder / "n_clusters.json", metrics["n_clusters"])
    lines.append(f"{len(rows):,} images in {len(sizes)} of {metrics['n_clusters']} clusters:")
    for (cluster, name), size in sizes.most_common(_N_LISTED):
        sure = [float(r["confidence"]) for r in rows if int(r["cluster"]) == cluster]
        lines.append(
            f"  {cluster:>5}  {name:<20} {size:>7,} images, mean confidence "
            f"{format_percent(sum(sure) / len(sure))}"
        )
    if len(sizes) > _N_LISTED:
        lines.append(f"  ... and {len(sizes) - _N_LISTED} more")
    if metrics["n_skipped"]:
        ids = [image["image_id"] for image in metrics["skipped"]]
        lines.append(f"{metrics['n_skipped']} images could not be read{first_of(ids)}")
    lines += _describe_quality(folder)
    lines += _describe_scores(metrics)
    lines += [
        f"  look at     {folder / 'report.html'}, {folder / 'quality.html'}; unic explore {folder}",
        f"  clusters    {folder / PREDICTIONS}, contact sheets in {folder / 'clusters'}",
    ]
    if (folder / "model.safetensors").is_file():
        lines.append(f"  new images  unic predict {folder} NEW...")
    return "\n".join(lines)


def sort_images(folder: Path, photos: Path, target: Path, *, how: str) -> int:
    """Copy the images, or link to them, into a folder a cluster.

    Args:
        folder: ``results/NAME`` of a finished run.
        photos: Folder of the images.
        target: Folder to be made, or an empty one.
        how: ``copy`` or ``link``.

    Returns:
        How many images there are.

    Raises:
        ValueError: If the target is not empty, or lies among the images.
        OSError: If the disk has no room.
    """
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(f"--{how}-to must be a new or an empty folder, {target} is not empty")
    if target.absolute().is_relative_to(photos.absolute()):
        raise ValueError(f"--{how}-to must not lie among the images, {target} is in {photos}")
    rows = read_csv(folder / PREDICTIONS, columns=("path", "cluster", "name"))
    if how == COPY:
        check_room(target, sum((photos / row["path"]).stat().st_size for row in rows))
    width = len(str(max(int(row["cluster"]) for row in rows)))
    for row in rows:
        name = f"{int(row['cluster']):0{width}d}"
        if row["name"]:
            name += "_" + re.sub(r"[^\w.-]+", "_", row["name"])
        source = photos.absolute() / row["path"]
        place = target / name / row["path"].replace("/", "__")
        place.parent.mkdir(parents=True, exist_ok=True)
        if how == COPY:
            shutil.copy2(source, place)
        else:
            place.symlink_to(os.path.relpath(source, place.parent.absolute()))
    return len(rows)


def _describe_estimate(path: Path, n_clusters: int) -> list[str]:
    """How sure the number of clusters is, where it was estimated."""
    if not path.is_file():
        return []
    estimate = read_json(path)
    is_current = estimate["n_clusters"] == n_clusters  # and not of an earlier run
    return [format_estimate(estimate)] if is_current else []


def _describe_quality(folder: Path) -> list[str]:
    """What can be said without labels, in two lines, or three."""
    if not (folder / "quality.json").is_file():
        return []
    quality = read_json(folder / "quality.json")
    overall, featureless = quality["overall"], quality["featureless"]
    agreement, silhouette = overall["neighbor_agreement"], overall["silhouette"]
    duplicates = read_csv(folder / "duplicates.csv", columns=("group",))
    outliers = read_csv(folder / "outliers.csv", columns=("is_outlier",))
    suspects = read_csv(folder / "suspects.csv", columns=("path",))
    n_groups = len({row["group"] for row in duplicates})
    n_outliers = sum(row["is_outlier"] == "True" for row in outliers)
    told = f"{n_groups} groups of near-duplicates, {n_outliers} outliers"
    if suspects:
        told += f", {len(suspects)} labels that the neighbors contradict"
    lines = [
        f"without labels: {format_percent(agreement)} of neighbors are in the same cluster, "
        f"silhouette {silhouette:.2f}",
        told,
    ]
    if featureless:
        nothing = f"the backbone says nothing of {len(featureless)} images"
        lines.append(f"{nothing}{first_of(featureless)}, their features are all 0")
    return lines


def _describe_scores(metrics: dict[str, object]) -> list[str]:
    """Scores by true labels, where these were given."""
    splits = metrics["methods"]["unic"]  # type: ignore[index]
    lines = []
    for split, scores in splits.items():
        told = [
            f"{name} {format_percent(score['mean'])}"
            for name, score in scores.items()
            if name != "used_clusters"
        ]
        if told:
            lines.append(f"by the true labels, {split}: {', '.join(told)}")
    return lines
