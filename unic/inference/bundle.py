"""Bundles: all that new images need of an experiment, in one file that describes itself."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unic.images.images import Images
from unic.images.views import View
from unic.inference.consensus import Consensus
from unic.inference.finetuned import Finetuned
from unic.models.backbones import Backbone, load_backbone
from unic.models.trained import ModelDescription, make_backbone, make_heads
from unic.models.weights import load_weights
from unic.quality.outliers import OutlierReference
from unic.recipe.model import Predictions, put_together
from unic.storage.digests import image_digest
from unic.storage.files import first_line
from unic.storage.tensor_files import read_tensors, save_tensors

FORMAT = "unic bundle 3"  # raised where one of before cannot be read
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
        head: What of a :class:`unic.models.trained.ModelDescription` says which head was trained;
            None where the recipe clustered.
        trained: What of the backbone was trained with it: ``last_block``, ``all`` or None.
        names: Of the first clusters, which are those of labeled classes; empty where none are.
        seed: Which of the experiment's runs it is.
        quality: What was found of the clusters without true labels.
        outliers: How far the training images are from each other, by which new ones are judged.
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
    head: Mapping[str, Any] | None
    trained: str | None
    names: tuple[str, ...]
    seed: int
    quality: Mapping[str, float | bool]
    outliers: OutlierReference
    digests: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON, from which :meth:`parse` makes it again."""
        return asdict(self) | {"names": list(self.names), "outliers": self.outliers._asdict()}

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """Make it of its JSON.

        Raises:
            Exception: Any of Python's, if it is no such JSON.
        """
        view = View(**content["view"])
        view = View(view.image_size, view.crop_pct, tuple(view.mean), tuple(view.std))
        known = {field.name: content[field.name] for field in fields(cls)}
        outliers = OutlierReference(**content["outliers"])
        parsed = {"view": view, "names": tuple(content["names"]), "outliers": outliers}
        return cls(**known | parsed)

    def name_of(self, cluster: int) -> str:
        """The class of labeled images that a cluster is; empty where it is none."""
        return self.names[cluster] if cluster < len(self.names) else ""


class Learned(Protocol):
    """What an experiment has learned of its ``n`` training images, by whatever method."""

    @property
    def n_clusters(self) -> int:
        """K."""

    @property
    def known_labels(self) -> NDArray[np.int64]:
        """Of the training images, ``(n,)``, -1 = unknown."""

    @property
    def clusters(self) -> NDArray[np.int64]:
        """Of the training images, ``(n,)``."""

    def look(
        self,
        backbone: Backbone,
        images: Images,
        view: View,
        *,
        batch_size: int,
        device: torch.device,
        n_workers: int,
    ) -> tuple[NDArray[np.float32], Predictions]:
        """Features ``(m, d)`` of new images, their clusters, and the training images near them.

        Args:
            backbone: On any device; moved to ``device``.
            images: The images.
            view: How they are prepared.
            batch_size: Images a batch.
            device: Where the backbone runs.
            n_workers: Threads that decode.

        Raises:
            ValueError: If an image cannot be decoded, or a feature is not finite (names the image).
        """

    def graph(self, backbone: Backbone) -> nn.Module:
        """From tokens of the last block and features ``(b, d)`` to probabilities ``(b, c)``.

        The same function as :meth:`look`, in parts that exporters know.
        """

    def take_apart(self) -> dict[str, Tensor]:
        """The tensors that it is made of, by name."""


class Bundle(NamedTuple):
    """The backbone, what was learned on its features, and of which images."""

    description: Description
    backbone: Backbone
    learned: Learned
    training_ids: Sequence[str]


def write_bundle(path: str | Path, bundle: Bundle) -> None:
    """Write a bundle, whole or not at all; equal ones are equal byte by byte."""
    tensors = {f"learned.{name}": part for name, part in bundle.learned.take_apart().items()}
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
    backbone = _rebuild_backbone(path, description, _part(tensors, "backbone."))
    learned = _rebuild_learned(path, description, backbone, _part(tensors, "learned."))
    return Bundle(description, backbone, learned, json.loads(tensors[_IDS].numpy().tobytes()))


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
            f"{path} must hold {NAME}, which is made on demand; run: snakemake --cores 8 {file}"
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
        backbone = _make_backbone(said)
    except Exception as error:  # timm raises all sorts on what it does not know
        raise ValueError(
            f"{path} must be of a backbone that the installed timm has, cannot make "
            f"{said.backbone}: {first_line(error)}"
        ) from None
    load_weights(backbone.model, state, origin=str(path))
    return backbone


def _make_backbone(said: Description) -> Backbone:
    if said.head is not None:
        return make_backbone(_describe_model(said, said.head), weights="random")
    return load_backbone(
        said.backbone, weights="random", options=said.options, image_size=said.view.image_size
    )


def _rebuild_learned(
    path: Path, said: Description, backbone: Backbone, tensors: Mapping[str, Tensor]
) -> Learned:
    if said.head is None:
        return Consensus(put_together(tensors))
    (head,) = make_heads(_describe_model(said, said.head), backbone, seed=0)
    return Finetuned.put_together(tensors, head, origin=str(path))


def _describe_model(said: Description, head: Mapping[str, Any]) -> ModelDescription:
    return ModelDescription(
        name=said.backbone,
        options=said.options,
        image_size=said.view.image_size,
        n_clusters=said.n_clusters,
        **head,
    )


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
