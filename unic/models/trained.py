"""A trained model on disk: backbone and head in one safetensors file that describes itself."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unic.models.backbones import Backbone, load_backbone
from unic.models.heads import Head, make_head, reads_tokens
from unic.models.weights import load_weights
from unic.storage.files import first_line
from unic.storage.tensor_files import read_tensors, save_tensors


@dataclass(frozen=True)
class ModelDescription:
    """What a model is made of; a model on disk says it of itself.

    Args:
        name: Of the backbone, in timm.
        options: Further arguments of ``timm.create_model``.
        image_size: Side of the images, pixels.
        n_clusters: Outputs of the head.
        head: See :func:`unic.models.heads.make_head`, for these three.
        head_norm: Of the head.
        head_width: Of the head.
    """

    name: str
    options: Mapping[str, Any]
    image_size: int
    n_clusters: int
    head: str
    head_norm: str | None
    head_width: int


class Model(NamedTuple):
    """A backbone and the head on its features or tokens."""

    backbone: Backbone
    head: Head


def make_model(
    description: ModelDescription, *, weights: str, seed: int, network: str = "auto"
) -> Model:
    """Load the backbone and draw a new head; see :func:`make_backbone` and :func:`make_heads`."""
    backbone = make_backbone(description, weights=weights, network=network)
    return Model(backbone, make_heads(description, backbone, seed=seed)[0])


def make_backbone(
    description: ModelDescription,
    *,
    weights: str,
    network: str = "auto",
    is_frozen: bool = False,
) -> Backbone:
    """Load the backbone.

    Args:
        description: Of the model.
        weights: Of the backbone, see :func:`unic.models.backbones.load_backbone`.
        network: Of a checkpoint that holds several.
        is_frozen: Whether nothing of it is going to be trained.
    """
    return load_backbone(
        description.name,
        weights=weights,
        options=description.options,
        image_size=description.image_size,
        network=network,
        all_tokens=reads_tokens(description.head),
        is_frozen=is_frozen,
    )


def make_heads(
    description: ModelDescription, backbone: Backbone, *, seed: int, n_heads: int = 1
) -> Sequence[Head]:
    """Draw new heads for a backbone; :func:`unic.models.heads.fit_norms` fits their norms.

    Args:
        description: Of the model.
        backbone: Whose features or tokens the heads read.
        seed: Of the weights; the first head is the same for any number of heads.
        n_heads: At least 1.
    """
    kind, generator = description.head, torch.Generator().manual_seed(seed)
    return [
        make_head(
            kind,
            backbone.n_token_dims if reads_tokens(kind) else backbone.n_dims,
            description.n_clusters,
            width=description.head_width,
            generator=generator,
            norm=description.head_norm,
        )
        for _ in range(n_heads)
    ]


def save_model(path: str | Path, model: Model, *, description: ModelDescription) -> None:
    """Write a model, whole or not at all.

    Args:
        path: A ``.safetensors`` file.
        model: Backbone and head.
        description: What :func:`load_model` rebuilds the model from.
    """
    state = {f"backbone.{k}": v for k, v in model.backbone.model.state_dict().items()}
    state |= {f"head.{k}": v for k, v in model.head.state_dict().items()}
    save_tensors(path, state, about=asdict(description))


def load_model(path: str | Path) -> Model:
    """Read a model that :func:`save_model` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or describes no model, or the weights do not fit its
            description.
    """
    state, described = read_tensors(path)
    if not isinstance(described, dict):
        raise ValueError(f"{path} must be a model written by UNIC, it describes none")
    try:
        model = make_model(ModelDescription(**described), weights="random", seed=0)
    except Exception as error:  # timm raises all sorts on what it does not know
        raise ValueError(
            f"{path} must describe a model of this version, cannot make it of "
            f"{json.dumps(described)[:200]}: {first_line(error)}"
        ) from None
    for module, prefix in ((model.backbone.model, "backbone."), (model.head, "head.")):
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        load_weights(module, part, origin=str(path))
    return model
