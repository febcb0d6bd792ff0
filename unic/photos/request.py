"""What somebody asks of their images, and the experiment that this is."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unic.images.readers.folders import list_folder
from unic.images.readers.known_labels import read_known_labels
from unic.models.pretrained import Pretrained
from unic.steering.continuation import ENTRY
from unic.storage.files import read_json, write_text

QUICK, STANDARD, THOROUGH = "quick", "standard", "thorough"
EFFORTS = {
    QUICK: "the recipe without settings, on the features as they are",
    STANDARD: "the recipe, then the last block is trained from its clusters on 4 cached views",
    THOROUGH: "the recipe, then the last block is trained from its clusters on fresh views",
}
BATCH_SIZE = 256
N_VIEWS = 4
_STEPS = {STANDARD: 1000, THOROUGH: 2000}
_MAX_EPOCHS = {STANDARD: 20, THOROUGH: 40}
FOLDERS = "folders"  # of truth: class folders
LOCK = ".unic.lock"  # held by a run, beside the entry


@dataclass(frozen=True)
class Request:
    """A folder of images, and what is known and wanted of it."""

    photos: Path
    output: Path  # results/NAME
    n_clusters: int | str  # or auto
    known_labels: tuple[Path, ...]  # CSV files
    truth: str | None  # CSV file, or `folders`: for scores alone
    effort: str
    seeds: tuple[int, ...]
    device: str
    cores: int

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.output.name

    @property
    def base(self) -> Path:
        """Folder in which the workflow runs: it holds results/ and logs/."""
        return self.output.absolute().parent.parent


@dataclass(frozen=True)
class Found:
    """What there is in the folder."""

    ids: dict[str, list[str]]
    n_others: dict[str, int]  # suffix to number of files that are no images
    n_labeled: int
    labeled_classes: tuple[str, ...]


def check_request(request: Request) -> Found:
    """Look at the images and at what is said of them.

    Raises:
        FileNotFoundError: If the folder or a file is missing.
        ValueError: If there is no image, K does not fit, labels contradict themselves, or the
            results of other images lie where these are to go; says which and where.
    """
    if request.photos.is_file():
        raise ValueError(f"PHOTOS must be a folder of images, {request.photos} is a file")
    if not request.photos.is_dir():
        raise FileNotFoundError(f"PHOTOS must be a folder, there is none at {request.photos}")
    if request.output.absolute().parent.name != "results":
        raise ValueError(
            f"--output must be a folder within one named results, such as results/photos, got "
            f"{request.output}"
        )
    ids = list_folder(request.photos)
    n_images = len(ids["train"])
    if n_images < 4:
        raise ValueError(
            f"there must be at least 4 images to cluster, {request.photos} has {n_images}"
        )
    truth = request.truth
    if truth not in (None, FOLDERS) and not Path(str(truth)).is_file():
        raise FileNotFoundError(
            f"--truth must be a CSV file or {FOLDERS}, there is none at {truth}"
        )
    known = read_known_labels(
        [str(path) for path in request.known_labels],
        ids["train"],
        root=str(request.photos),
        ignored=ids.get("test", []),
    )
    classes = tuple(sorted(set(known.values())))
    check_n_clusters(request.n_clusters, n_images=n_images, n_labeled=len(classes))
    _check_output(request)
    return Found(ids, _count_others(request.photos, ids), len(known), classes)


def check_n_clusters(n_clusters: int | str, *, n_images: int, n_labeled: int) -> None:
    """Refuse a number of clusters that does not fit the images, or the classes that have labels.

    Args:
        n_clusters: K, or ``auto``.
        n_images: Training images.
        n_labeled: Classes that have labels.

    Raises:
        ValueError: Says what must hold.
    """
    least = max(2, n_labeled)
    if isinstance(n_clusters, int) and not least <= n_clusters <= n_images:
        named = f"; {n_labeled} classes have labels" if n_labeled else ""
        raise ValueError(
            f"-k must be in {least} to the number of images, {n_images}, or auto, got "
            f"{n_clusters}{named}"
        )


def check_name(name: str) -> None:
    """Refuse a name that results cannot have, since that of an experiment is part of paths.

    Raises:
        ValueError: Says what must hold.
    """
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is None:
        raise ValueError(
            "the name of the results must be of letters, digits, - and _, got "
            f"{name!r}; set it with --output results/NAME"
        )


def make_entry(request: Request, backbone: Pretrained, *, n_images: int) -> dict[str, Any]:
    """The configuration of the run: one experiment, with what differs from the defaults.

    Args:
        request: What is asked.
        backbone: Of the features.
        n_images: Training images, on which the length of a training depends.
    """
    data: dict[str, Any] = {
        "name": "folder",
        "root": str(request.photos.absolute()),
        "class_folders": request.truth == FOLDERS,
        "bad_images": "skip",
        "image_size": backbone.image_size,
        "crop_pct": backbone.crop_pct,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
    }
    if request.known_labels:
        data["known_labels"] = [str(path.absolute()) for path in request.known_labels]
    if request.truth not in (None, FOLDERS):
        data["label_file"] = str(Path(str(request.truth)).absolute())
    network: dict[str, Any] = {"name": backbone.name, "weights": backbone.weights}
    if backbone.options:
        network["options"] = backbone.options
    is_quick = request.effort == QUICK
    settings = {
        "method": "consensus" if is_quick else "finetuning",
        "n_clusters": request.n_clusters,
        "seeds": list(request.seeds),
        "data": data,
        "backbone": network,
        "neighbors": {"metric": "cosine"},
        "machine": {"device": request.device, "threads": request.cores},
    }
    if not is_quick:
        settings |= _train(request, n_images)
    return {"experiments": {request.name: settings}}


def has_features(request: Request, entry: Mapping[str, Any]) -> bool:
    """Whether an earlier run has embedded the images as this one would."""
    path = request.output / ENTRY
    if not path.is_file() or not (request.output / "features.zarr" / "zarr.json").is_file():
        return False
    before = read_json(path)["experiments"].get(request.name, {})
    now = entry["experiments"][request.name]
    aside = ("known_labels", "label_file", "class_folders")  # of the data, to no effect on features
    views = [
        {k: v for k, v in each.get("data", {}).items() if k not in aside} for each in (before, now)
    ]
    return views[0] == views[1] and before.get("backbone") == now["backbone"]


def count_epochs(effort: str, n_images: int) -> int:
    """Passes over the images: 1,000 steps, or 2,000 of a thorough run, but not many passes.

    Example:
        >>> count_epochs("standard", 3_000), count_epochs("thorough", 60_000)
        (20, 9)
    """
    steps_of_epoch = max(1, n_images // BATCH_SIZE)
    return min(_MAX_EPOCHS[effort], max(2, round(_STEPS[effort] / steps_of_epoch)))


def _train(request: Request, n_images: int) -> dict[str, Any]:
    """Settings of the training that follows the recipe."""
    fresh = request.effort == THOROUGH
    return {
        "negatives": {"draw": "in_batch"},
        "views": {"augmentation": "gcd", "n_views": "fresh" if fresh else N_VIEWS},
        "finetuning": {
            "start": "consensus",
            "head": "linear",
            "head_norm": "standardize",
            "epochs": count_epochs(request.effort, n_images),
            "batch_size": min(BATCH_SIZE, n_images),
        },
    }


def write_entry(output: Path, entry: Mapping[str, Any]) -> Path:
    """Write the configuration beside the results to come, in which a later run finds it."""
    path = output / ENTRY
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(entry, indent=2) + "\n")
    return path


def format_yaml(content: Mapping[str, Any], indent: int = 0) -> str:
    """A configuration as YAML, to be read and copied.

    Example:
        >>> print(format_yaml({"experiments": {"photos": {"n_clusters": 3, "seeds": [0]}}}))
        experiments:
          photos:
            n_clusters: 3
            seeds: [0]
    """
    lines = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines.append(f"{' ' * indent}{key}:")
            lines.append(format_yaml(value, indent + 2))
        else:
            lines.append(f"{' ' * indent}{key}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    """JSON is YAML; words that can be nothing else go without quotes."""
    is_plain = isinstance(value, str) and value.replace("_", "").isalpha() and value.islower()
    is_word = is_plain and value not in (
        "yes",
        "no",
        "on",
        "off",
        "true",
        "false",
        "null",
        "n",
        "y",
    )
    return str(value) if is_word else json.dumps(value)


def _check_output(request: Request) -> None:
    """Refuse results that are of other images, or of something else."""
    path = request.output / ENTRY
    if not path.is_file() and request.output.is_dir() and _holds_something(request.output):
        raise ValueError(
            f"--output must be new or of an earlier run of this command, {request.output} holds "
            "something else; choose another"
        )
    if not path.is_file():
        return
    settings = read_json(path).get("experiments", {}).get(request.name, {})
    if "base" in settings:
        raise ValueError(
            f"{request.output} continues {settings['base']} by what was said of that; choose "
            "another --output"
        )
    root = settings.get("data", {}).get("root")
    if root != str(request.photos.absolute()):
        raise ValueError(
            f"{request.output} has the results of {root}, not of {request.photos.absolute()}; "
            "choose another --output"
        )


def _holds_something(folder: Path) -> bool:
    """Whether there is more than a run leaves that was killed before its first file."""
    begun = f".{ENTRY}.tmp-"  # see `temporary_sibling`
    names = (path.name for path in folder.iterdir())
    return any(name != LOCK and not name.startswith(begun) for name in names)


def _count_others(photos: Path, ids: Mapping[str, list[str]]) -> dict[str, int]:
    """Files of the folder that are no images, by suffix."""
    listed = {image_id for found in ids.values() for image_id in found}
    counts: dict[str, int] = {}
    for folder, _, names in os.walk(photos):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(photos).as_posix() not in listed:
                suffix = path.suffix.lower() or "no suffix"
                counts[suffix] = counts.get(suffix, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
