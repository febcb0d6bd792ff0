"""Bundles: all that new images need of an experiment, in one file that describes itself."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from unic.images.views import View
from unic.models.backbones import Backbone, load_backbone
from unic.models.weights import load_weights
from unic.recipe.model import Model, put_together, take_apart
from unic.storage.digests import image_digest
from unic.storage.files import first_line
from unic.storage.tensor_files import read_tensors, save_tensors

FORMAT = "unic bundle 1"  # raised where one of before cannot be read
NAME = "model.safetensors"  # in the folder of an experiment
_IDS = "training_ids"


@dataclass(frozen=True)
class Description:
    """What a bundle says of itself.

    Args:
        experiment: Its name.
        version: Of the package that wrote it.
        backbone: Of the backbone, in timm.
        options: Further arguments of ``timm.create_model``.
        weights: Where those of the backbone were from: ``hub``, ``random``, ``pretrain``,
            ``bundled:NAME``, or the name of a file.
        license: Of these weights; None where it is not known.
        view: How images are prepared.
        decoded: Side of the square that is taken of images before; None where they are whole.
        n_clusters: K.
        names: Of the first clusters, which are those of labeled classes; empty without labels.
        seed: Which of the experiment's runs it is.
        quality: What was found of the clusters without true labels.
        digests: Of the training images' ids and of the backbone's weights.
    """

    experiment: str
    version: str
    backbone: str
    options: Mapping[str, Any]
    weights: str
    license: str | None
    view: View
    decoded: int | None
    n_clusters: int
    names: tuple[str, ...]
    seed: int
    quality: Mapping[str, float | bool]
    digests: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON, from which :meth:`parse` makes it again."""
        return asdict(self) | {"names": list(self.names)}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """Make it of its JSON.

        Raises:
            Exception: Any of Python's, if it is no such JSON.
        """
        view = View(**content["view"])
        view = View(view.image_size, view.crop_pct, tuple(view.mean), tuple(view.std))
        known = {field.name: content[field.name] for field in fields(cls)}
        return cls(**known | {"view": view, "names": tuple(content["names"])})

    def name_of(self, cluster: int) -> str:
        """The class of labeled images that a cluster is; empty where it is none."""
        return self.names[cluster] if cluster < len(self.names) else ""


class Bundle(NamedTuple):
    """Backbone, model, and the training images that new ones are neighbors of."""

    description: Description
    backbone: Backbone
    model: Model
    training_ids: Sequence[str]


def write_bundle(path: str | Path, bundle: Bundle) -> None:
    """Write a bundle, whole or not at all; equal ones are equal byte by byte."""
    tensors = {f"recipe.{name}": tensor for name, tensor in take_apart(bundle.model).items()}
    state = bundle.backbone.model.state_dict()
    tensors |= {f"backbone.{name}": tensor for name, tensor in state.items()}
    ids = json.dumps(list(bundle.training_ids), ensure_ascii=False).encode()
    tensors[_IDS] = torch.frombuffer(bytearray(ids), dtype=torch.uint8)
    about = {"format": FORMAT, "description": bundle.description.to_json()}
    save_tensors(path, tensors, about=about)


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle.

    Args:
        path: The file, or the folder of an experiment that holds it.

    Raises:
        FileNotFoundError: If there is none; says how to make it.
        ValueError: If it is none, of another format, damaged, or of a backbone that the installed
            timm does not have.
    """
    path = find_bundle(path)
    tensors, about = read_tensors(path)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise ValueError(f"{path} must be a model in the format {FORMAT!r}, got {found!r}")
    description = Description.parse(about["description"])
    return Bundle(
        description,
        _rebuild_backbone(path, description, _part(tensors, "backbone.")),
        put_together(_part(tensors, "recipe.")),
        json.loads(tensors[_IDS].numpy().tobytes()),
    )


def find_bundle(path: str | Path) -> Path:
    """The file of a bundle that is named by itself or by the folder of its experiment.

    Raises:
        FileNotFoundError: If there is none; says how to make it.
    """
    path = Path(path)
    file = path / NAME if path.is_dir() else path
    if file.is_file():
        return file
    if (path / "metrics.json").is_file():
        raise FileNotFoundError(
            f"{path} must hold {NAME}, which an experiment of method consensus has; run: "
            f"snakemake --cores 8 {file}"
        )
    raise FileNotFoundError(
        f"the model must be a file, or the folder of a finished experiment such as results/photos "
        f"that holds {NAME}; there is none at {path}"
    )


def digest_weights(backbone: Backbone) -> str:
    """Digest of the weights of a backbone, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def digest_parts(backbone: Backbone, training_ids: Sequence[str]) -> dict[str, str]:
    """What tells two bundles of equal descriptions apart."""
    return {"images": image_digest(training_ids), "weights": digest_weights(backbone)}


def _rebuild_backbone(path: Path, said: Description, state: Mapping[str, Tensor]) -> Backbone:
    try:
        backbone = load_backbone(
            said.backbone,
            weights="random",
            options=said.options,
            image_size=said.view.image_size,
        )
    except Exception as error:  # timm raises all sorts on what it does not know
        raise ValueError(
            f"{path} must be of a backbone that the installed timm has, cannot make "
            f"{said.backbone}: {first_line(error)}"
        ) from None
    load_weights(backbone.model, state, origin=str(path))
    return backbone


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
