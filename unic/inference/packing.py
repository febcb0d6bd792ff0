"""Packing: a bundle and its card, of what the stages of an experiment have left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

import unic
from unic.images.index import read_index
from unic.images.views import View
from unic.inference.bundle import Bundle, Description, Learned, digest_parts
from unic.inference.consensus import Consensus
from unic.inference.finetuned import Finetuned
from unic.models.backbones import Backbone, load_backbone
from unic.models.licenses import find_license
from unic.models.trained import load_model
from unic.neighbors.metric import to_euclidean
from unic.neighbors.mining import mine_neighbors
from unic.quality.outliers import OutlierReference, measure_reference
from unic.quality.scores import measure_neighbor_agreement, measure_silhouette
from unic.recipe.model import N_NEIGHBORS, measure_distances, read_model
from unic.storage.prediction_tables import read_clusters
from unic.storage.stores import check_images, open_store
from unic.storage.tensor_files import read_tensors

QUALITY = ("silhouette", "disagreement", "is_balanced")  # of what a model says of itself
HEAD = ("head", "head_norm", "head_width")  # of what a trained one does


@dataclass(frozen=True)
class Stages:
    """Files that the stages of an experiment have left.

    Args:
        images: Index of the images.
        known_labels: Store of known labels.
        models: What was learned with each seed, in the order of the seeds in the metrics.
        features: Stores of the features that the trained backbones give, likewise; none where the
            recipe clustered, whose models hold what they need.
        predictions: Tables of the clusters of all images, likewise.
        weights: Of the backbone, where they are a file.
    """

    images: str
    known_labels: str
    models: Sequence[str]
    features: Sequence[str]
    predictions: Sequence[str]
    weights: str | None

    @classmethod
    def parse(cls, inputs: Mapping[str, Any]) -> Self:
        """Take them from the inputs of a rule, by the names that they have there."""
        return cls(
            images=inputs["images"],
            known_labels=inputs["known_labels"],
            models=inputs["models"],
            features=inputs.get("features", ()),
            predictions=inputs.get("predictions", ()),
            weights=inputs.get("backbone"),
        )


@dataclass(frozen=True)
class Origin:
    """What the settings say of the backbone, and of how images come to it.

    Args:
        name: Of the backbone, in timm.
        weights: Of the backbone.
        network: Key of the network in a checkpoint of several.
        options: Further arguments of ``timm.create_model``.
        view: How images are prepared.
        decoded: Side of the square that is taken of images before; None where they are whole.
        trained: What of the backbone is trained with a head; None for nothing.
        is_named: Whether the first clusters are those of labeled classes.
    """

    name: str
    weights: str
    network: str
    options: Mapping[str, Any]
    view: View
    decoded: int | None
    trained: str | None
    is_named: bool

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Self:
        """Take it from the parameters of a rule, by the names that they have there."""
        known = {name: params[name] for name in cls.__dataclass_fields__}
        return cls(**known | {"view": View(**params["view"])})


class _Taken(NamedTuple):
    """What is packed of one seed."""

    learned: Learned
    backbone: Backbone
    head: dict[str, Any] | None
    trained: str | None
    names: Sequence[str]
    quality: dict[str, float | bool]
    distances: NDArray[np.float32]  # (n, k), of the training images to those next to them


def pack(metrics: Mapping[str, Any], stages: Stages, origin: Origin) -> Bundle:
    """Put together what new images need of an experiment: of the seed that its report shows.

    Args:
        metrics: Of the experiment.
        stages: Files of what was learned.
        origin: Of the backbone.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or the model is of other images.
    """
    seed = metrics["shown"]["seed"]
    place = metrics["seeds"].index(seed)
    training_ids = read_index(stages.images)["train"]
    take = _take_training if stages.features else _take_recipe
    taken = take(place, stages, origin, training_ids)
    is_own = origin.weights == "pretrain"  # by a stage of the workflow
    is_given = stages.weights is not None and not is_own
    description = Description(
        experiment=metrics["experiment"],
        version=unic.__version__,
        backbone=origin.name,
        options=dict(origin.options),
        weights=Path(str(stages.weights)).name if is_given else origin.weights,
        license=None if is_own else find_license(origin.name, origin.weights),
        view=origin.view,
        decoded=origin.decoded,
        n_clusters=taken.learned.n_clusters,
        head=taken.head,
        trained=taken.trained,
        names=tuple(taken.names),
        seed=seed,
        quality=taken.quality,
        outliers=_measure_outliers(taken.distances),
        digests=digest_parts(taken.backbone, training_ids),
    )
    return Bundle(description, taken.backbone, taken.learned, training_ids)


def _take_recipe(place: int, stages: Stages, origin: Origin, ids: Sequence[str]) -> _Taken:
    path = stages.models[place]
    model, about = read_model(path)
    if len(model.points) != len(ids):
        raise ValueError(
            f"{path} must be of the {len(ids)} training images of {stages.images}, got "
            f"{len(model.points)}; run the workflow again"
        )
    backbone = load_backbone(
        origin.name,
        weights=origin.weights if stages.weights is None else stages.weights,
        network=origin.network,
        options=origin.options,
        image_size=origin.view.image_size,
    )
    return _Taken(
        Consensus(model),
        backbone,
        None,
        None,
        about["names"],
        {key: about[key] for key in QUALITY},
        model.predict_training().distances,
    )


def _take_training(place: int, stages: Stages, origin: Origin, ids: Sequence[str]) -> _Taken:
    path = stages.models[place]
    store = open_store(stages.features[place], kind="features")
    known = open_store(stages.known_labels, kind="known_labels")
    check_images(store, ids)
    check_images(known, ids)
    model, said = load_model(path), read_tensors(path).about
    points = to_euclidean(store.read("features"), "cosine")  # (n, d)
    clusters = read_clusters(stages.predictions[place], ids)  # (n,)
    mined = mine_neighbors(points, n_neighbors=min(N_NEIGHBORS + 1, len(ids)), far_rank=None)
    near = mined.indices  # (n, k + 1)
    n_clusters = model.head.n_clusters
    agreement = measure_neighbor_agreement(clusters, near, n_clusters=n_clusters)
    silhouette = measure_silhouette(clusters, points, n_clusters=n_clusters)
    return _Taken(
        Finetuned(model.head, points, clusters, known.read("known_labels")),
        model.backbone,
        {key: said[key] for key in HEAD},
        origin.trained,
        known.parameters("known_labels")["class_names"] if origin.is_named else [],
        {"silhouette": silhouette.overall, "neighbor_agreement": agreement.overall},
        measure_distances(points, points, near[:, 1:]),
    )


def _measure_outliers(distances: NDArray[np.float32]) -> OutlierReference:
    """How far training images are from those next to them, ``(n, k)``."""
    themselves = np.zeros((len(distances), 1), dtype=distances.dtype)
    return measure_reference(np.hstack([themselves, np.sort(distances, axis=1)]))  # by rounding
