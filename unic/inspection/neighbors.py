"""The neighbors of single images, and those of all in figures, from what the stages have made."""

import difflib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unic.images.index import Source, read_index, read_source
from unic.neighbors.metric import to_euclidean
from unic.storage.digests import image_digest
from unic.storage.files import read_json
from unic.storage.stores import MANIFEST, Store, check_same_images, open_store

QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1}

_INDEX = "images.parquet"
_STAGES = {  # what a look at neighbors reads, and the stage that makes it
    _INDEX: "index_images",
    "features": "extract_features",
    "known_labels": "split_labels",
    "neighbors": "mine_neighbors",
    "positives": "clean_neighbors",
    "negatives": "index_negatives",
}


ByImage = dict[str, tuple[Store, str]]  # column to the array (n,) that says it of every image


class Artifacts(NamedTuple):
    """What the stages of an experiment have made; None where one has not run."""

    experiment: str
    images: Path  # images.parquet
    image_ids: list[str]  # of the training images
    neighbors: Store
    positives: Store | None
    negatives: Store | None
    known_labels: Store | None
    features: Store | None

    @property
    def far_rank(self) -> int:
        """tau_2 of the paper, the rank of ``far_radius``."""
        return int(self.neighbors.parameters("neighbors")["far_rank"])

    @property
    def max_union_size(self) -> int | None:
        """Eta of the paper, None before cleaning."""
        if self.positives is None:
            return None
        return int(self.positives.parameters("positives")["max_union_size"])


class Anchor(NamedTuple):
    """An image, its neighbors and its negatives.

    ``neighbors`` has the columns ``rank`` (0 is the image itself), ``row``, ``image_id``,
    ``distance`` (Euclidean), ``is_mutual``; after cleaning ``union_size`` and ``is_clean`` of the
    neighbor; where some labels are known ``known_label``. ``negatives`` has ``row`` and
    ``image_id``; where there are features ``distance``; ``known_label`` as above.
    """

    row: int
    image_id: str
    known_label: int | None
    far_radius: float
    reciprocity: float  # share of its neighbors that have it among theirs
    union_size: int | None
    is_clean: bool | None
    neighbors: pd.DataFrame
    negatives: pd.DataFrame
    n_negatives: int  # stored, of which ``negatives`` are the first


def open_artifacts(folder: Path) -> Artifacts:
    """Open what a look at neighbors needs; true labels stay closed.

    A stage that an experiment shares lies in another folder beside it. ``metrics.json`` of a
    finished experiment names that folder; before, the experiment's own is all that is known.

    Args:
        folder: ``results/NAME``.

    Raises:
        FileNotFoundError: If there is no such folder, or nothing was mined; says what to run.
        ValueError: If a file is damaged, or the stores are of different images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} must be the folder of an experiment, there is none{_similar(folder)}"
        )
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    owners = _read_owners(folder)
    paths = {
        name: folder.with_name(owners.get(stage, folder.name)) / _file_name(name)
        for name, stage in _STAGES.items()
    }
    for name in ("neighbors", _INDEX):
        if not paths[name].is_file():
            raise FileNotFoundError(_missing(paths[name], name, is_finished=bool(owners)))
    index, neighbors = paths.pop(_INDEX), open_store(paths.pop("neighbors"), kind="neighbors")
    others = {
        name: open_store(path, kind=name) if path.is_file() else None
        for name, path in paths.items()
    }
    check_same_images(neighbors, *filter(None, others.values()))
    return Artifacts(folder.name, index, _read_image_ids(index, neighbors), neighbors, **others)


def find_source(index: Path) -> Source:
    """Where the images of an index are, wherever somebody stands.

    A relative root counts from where the workflow ran: the folder that holds ``results/``.

    Raises:
        ValueError: If the index does not say where they are.
    """
    source = read_source(index)
    if source.root is None:
        return source
    return source._replace(root=str(index.resolve().parents[2] / source.root))


def find_rows(images: Sequence[str], image_ids: Sequence[str]) -> list[int]:
    """Rows of images that are given by row number or by image id; each once.

    Args:
        images: A whole number is a row, all else an image id.
        image_ids: Those of the training images.

    Raises:
        ValueError: If there is no such row or training image; names what is near.
    """
    return list(dict.fromkeys(_find_row(image, image_ids) for image in images))


def inspect_images(
    artifacts: Artifacts, rows: Sequence[int], *, n_negatives: int = 10
) -> list[Anchor]:
    """Gather what is known of the neighbors and negatives of images.

    Args:
        artifacts: Of the experiment.
        rows: The images.
        n_negatives: How many of the negatives, at least 0; the first that are stored.

    Raises:
        ValueError: If ``n_negatives`` is below 0, or a store is damaged.
    """
    if n_negatives < 0:
        raise ValueError(f"n_negatives must be at least 0, got {n_negatives}")
    anchors = np.asarray(rows, dtype=np.int64)  # (a,)
    nearest, is_mutual = _read_nearest(artifacts.neighbors, anchors)  # (a, k), (a, k)
    distances = artifacts.neighbors.read_rows("distances", anchors)  # (a, k)
    far_radius = artifacts.neighbors.read_rows("far_radius", anchors)  # (a,)
    negatives = _read_negatives(artifacts, anchors)  # (a, m)
    by_image = _find_by_image(artifacts)
    of_anchors = {name: store.read_rows(key, anchors) for name, (store, key) in by_image.items()}
    found = []
    for i, row in enumerate(anchors.tolist()):
        neighbors = _tabulate(nearest[i], artifacts.image_ids, by_image)
        own = {name: values[i].item() for name, values in of_anchors.items()}
        neighbors.insert(0, "rank", np.arange(len(neighbors)))
        neighbors.insert(3, "distance", distances[i])
        neighbors.insert(4, "is_mutual", is_mutual[i])
        anchor = Anchor(
            row=row,
            image_id=artifacts.image_ids[row],
            known_label=own["known_label"] if own.get("known_label", -1) >= 0 else None,
            far_radius=far_radius[i].item(),
            reciprocity=float(is_mutual[i, 1:].mean()) if len(neighbors) > 1 else 1.0,
            union_size=own.get("union_size"),
            is_clean=own.get("is_clean"),
            neighbors=neighbors,
            negatives=_tabulate_negatives(artifacts, row, negatives[i, :n_negatives], by_image),
            n_negatives=negatives.shape[1],
        )
        found.append(anchor)
    return found


def summarize_neighbors(artifacts: Artifacts) -> dict[str, Any]:
    """Describe the neighbors of all images in figures.

    Returns:
        Sizes and settings; ``mining``, how the pass went; quantiles of the distances at each
        rank but 0, of the far radius, of the reciprocity and of the union sizes; means of the
        last two, ``mutual_fraction`` and ``clean_fraction``. None where a stage has not run.
    """
    mined = artifacts.neighbors.parameters("neighbors")
    distances = artifacts.neighbors.read("distances")  # (n, k)
    mutual = _read_reciprocity(artifacts)  # (n,)
    known, positives = artifacts.known_labels, artifacts.positives
    stores = {name: part for name, part in artifacts._asdict().items() if isinstance(part, Store)}
    return {
        "experiment": artifacts.experiment,
        "stores": {name: str(store.path) for name, store in stores.items()},
        "n_images": len(artifacts.image_ids),
        "n_labeled": None if known is None else int((known.read("known_labels") >= 0).sum()),
        "n_neighbors": distances.shape[1],
        "far_rank": artifacts.far_rank,
        "metric": mined["metric"],
        "backbone": artifacts.neighbors.parameters("features")["backbone"],
        "mining": mined.get("mining"),
        "distances": [
            {"rank": rank} | _quantiles(distances[:, rank]) for rank in range(1, distances.shape[1])
        ],
        "far_radius": _quantiles(artifacts.neighbors.read("far_radius")),
        "reciprocity": _quantiles(mutual),
        "mutual_fraction": float(mutual.mean()),
        "union_size": None if positives is None else _quantiles(positives.read("union_size")),
        "max_union_size": artifacts.max_union_size,
        "clean_fraction": None if positives is None else float(positives.read("is_clean").mean()),
        "n_negatives": _count_negatives(artifacts.negatives),
    }


def _read_owners(folder: Path) -> dict[str, str]:
    """Stage to the experiment that holds it, as a finished experiment knows."""
    path = folder / "metrics.json"
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path).get("stage_owners", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must hold the scores of an experiment: {error!r}") from None


def _file_name(name: str) -> str:
    return name if name == _INDEX else f"{name}.zarr/{MANIFEST}"


def _missing(path: Path, name: str, *, is_finished: bool) -> str:
    folder = path.parent if name == _INDEX else path.parents[1]
    return (
        f"{path} is missing; run: snakemake --cores 8 -- results/{folder.name}/{_file_name(name)}"
    ) + ("" if is_finished else ", or name the experiment that this one shares it with")


def _similar(folder: Path) -> str:
    names = [path.name for path in folder.parent.glob("*/")]
    close = difflib.get_close_matches(folder.name, names, n=1)
    return f"; did you mean {folder.with_name(close[0])}?" if close else ""


def _read_image_ids(index: Path, neighbors: Store) -> list[str]:
    try:
        image_ids = read_index(index)["train"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{index} is damaged: {error}; delete it and run the workflow") from None
    found, expected = image_digest(image_ids), neighbors.attributes["images"]["train"]
    if found != expected:
        raise ValueError(
            f"row i must mean the same image in {index} and {neighbors.path}, but their digests "
            f"of the train images differ: {found} and {expected}; run the workflow again"
        )
    return image_ids


def _find_row(image: str, image_ids: Sequence[str]) -> int:
    try:
        row = int(image)
    except ValueError:
        if image in image_ids:
            return image_ids.index(image)
        raise ValueError(
            "image must be a row number or the id of a training image, "
            f"got {image}; did you mean {_closest(image, image_ids)}?"
        ) from None
    if not 0 <= row < len(image_ids):
        raise ValueError(f"image must be from 0 to {len(image_ids) - 1}, got {row}")
    return row


def _closest(image: str, image_ids: Sequence[str]) -> str:
    """The most similar id, first by folder and then in it: a million would take minutes."""
    wanted, paths = PurePosixPath(image), [PurePosixPath(image_id) for image_id in image_ids]
    folders = {str(path.parent) for path in paths}
    folder = difflib.get_close_matches(str(wanted.parent), folders, n=1, cutoff=0.0)[0]
    names = [path.name for path in paths if str(path.parent) == folder]
    name = difflib.get_close_matches(wanted.name, names, n=1, cutoff=0.0)[0]
    return str(PurePosixPath(folder, name))


def _read_nearest(
    neighbors: Store, anchors: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Neighbors ``(a, k)`` of anchors, and which of them have the anchor among theirs."""
    nearest = neighbors.read_rows("indices", anchors)  # (a, k)
    listed, place = np.unique(nearest, return_inverse=True)  # (u,), (a, k)
    lists = neighbors.read_rows("indices", listed)  # (u, k)
    is_anchor = lists[place.reshape(nearest.shape)] == anchors[:, None, None]  # (a, k, k)
    return nearest, np.any(is_anchor, axis=2)


def _read_reciprocity(artifacts: Artifacts) -> NDArray[np.float32]:
    """What cleaning has stored; counted anew where it has not run."""
    if artifacts.positives is None:
        from unic.neighbors.cleaning import reciprocity  # importing its compiler takes seconds

        return reciprocity(artifacts.neighbors.read("indices"))
    stored: NDArray[np.float32] = artifacts.positives.read("reciprocity")
    return stored


def _read_negatives(artifacts: Artifacts, anchors: NDArray[np.int64]) -> NDArray[np.int64]:
    if artifacts.negatives is None:
        return np.empty((len(anchors), 0), dtype=np.int64)
    negatives: NDArray[np.int64] = artifacts.negatives.read_rows("indices", anchors)  # (a, m)
    return negatives


def _count_negatives(negatives: Store | None) -> int | None:
    if negatives is None:
        return None
    return int(negatives.read_rows("indices", np.zeros(1, dtype=np.int64)).shape[1])


def _find_by_image(artifacts: Artifacts) -> ByImage:
    by_image: ByImage = {}
    if artifacts.positives is not None:
        names = ("union_size", "is_clean")
        by_image |= {name: (artifacts.positives, name) for name in names}
    known = artifacts.known_labels
    if known is not None and (known.read("known_labels") >= 0).any():
        by_image["known_label"] = known, "known_labels"
    return by_image


def _tabulate(rows: NDArray[np.int64], image_ids: Sequence[str], by_image: ByImage) -> pd.DataFrame:
    """A table of images; a label that is not known is missing."""
    table = pd.DataFrame({"row": rows, "image_id": [image_ids[row] for row in rows]})
    for name, (store, key) in by_image.items():
        table[name] = store.read_rows(key, rows)
    if "known_label" in table:
        known = table["known_label"].astype("Int64")
        table["known_label"] = known.where(known >= 0)
    return table


def _tabulate_negatives(
    artifacts: Artifacts, anchor: int, rows: NDArray[np.int64], by_image: ByImage
) -> pd.DataFrame:
    labels = {name: array for name, array in by_image.items() if name == "known_label"}
    table = _tabulate(rows, artifacts.image_ids, labels)
    if artifacts.features is not None:
        metric = artifacts.neighbors.parameters("neighbors")["metric"]
        read = artifacts.features.read_rows("features", np.append(rows, anchor))  # (m + 1, d)
        features = to_euclidean(read, metric).astype(np.float64)
        distances = np.linalg.norm(features[:-1] - features[-1], axis=1)  # (m,)
        table.insert(2, "distance", distances.astype(np.float32))
    return table


def _quantiles(values: NDArray[Any]) -> dict[str, float]:
    found = np.quantile(values, list(QUANTILES.values())).tolist()
    return dict(zip(QUANTILES, found, strict=True))
