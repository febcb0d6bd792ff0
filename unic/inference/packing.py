"""Packing: a bundle and its card, of what the stages of an experiment have left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import unic
from unic.images.index import read_index
from unic.images.views import View
from unic.inference.bundle import Bundle, Description, digest_parts
from unic.models.backbones import load_backbone
from unic.models.licenses import find_license
from unic.recipe.model import read_model

QUALITY = ("silhouette", "disagreement", "is_balanced")  # of what a model says of itself


def pack(
    metrics: Mapping[str, Any],
    *,
    models: Sequence[str | Path],
    images: str | Path,
    view: View,
    decoded: int | None,
    name: str,
    weights: str,
    weights_file: str | Path | None,
    network: str,
    options: Mapping[str, Any],
) -> Bundle:
    """Put together what new images need of an experiment: of the seed that its report shows.

    Args:
        metrics: Of the experiment.
        models: Files of what the recipe has learned, in the order of the seeds in ``metrics``.
        images: Index of the images.
        view: How images are prepared.
        decoded: Side of the square that is taken of images before; None where they are whole.
        name: Of the backbone, in timm.
        weights: Of the backbone, as the settings say.
        weights_file: Of these, where they are a file.
        network: Key of the network in a checkpoint of several.
        options: Further arguments of ``timm.create_model``.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or the model is of other images.
    """
    seed = metrics["shown"]["seed"]
    path = dict(zip(metrics["seeds"], models, strict=True))[seed]
    model, about = read_model(path)
    training_ids = read_index(images)["train"]
    if len(model.points) != len(training_ids):
        raise ValueError(
            f"{path} must be of the {len(training_ids)} training images of {images}, got "
            f"{len(model.points)}; run the workflow again"
        )
    given = weights if weights_file is None else str(weights_file)
    backbone = load_backbone(
        name, weights=given, network=network, options=options, image_size=view.image_size
    )
    is_own = weights == "pretrain"  # by a stage of the workflow
    description = Description(
        experiment=metrics["experiment"],
        version=unic.__version__,
        backbone=name,
        options=dict(options),
        weights=weights if weights_file is None or is_own else Path(weights_file).name,
        license=None if is_own else find_license(name, weights),
        view=view,
        decoded=decoded,
        n_clusters=model.n_clusters,
        names=tuple(about["names"]),
        seed=seed,
        quality={key: about[key] for key in QUALITY},
        digests=digest_parts(backbone, training_ids),
    )
    return Bundle(description, backbone, model, training_ids)
