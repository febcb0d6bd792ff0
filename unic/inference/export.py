"""Models in formats of others: one graph from the pixels of images to their clusters."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unic.inference.bundle import Bundle
from unic.storage.files import first_line, whole_file, write_json

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
INPUTS = ("uint8", "float32")
OUTPUTS = ("cluster", "confidence", "probabilities")
KEY = "unic"  # of the metadata
OPSET = 20
_MAX_BYTES = 2**31 - 2**24  # of an ONNX file, with some room for the graph itself


class Graph(nn.Module):
    """From prepared images to clusters: backbone, and what was learned on its features.

    It computes what :meth:`unic.inference.predictor.Predictor.predict` does from where images are
    resized and cropped.

    Args:
        bundle: What an experiment has learned.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bundle: Bundle):
        super().__init__()
        view = bundle.description.view
        self.register_buffer("mean", torch.tensor(view.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(view.std).view(1, 3, 1, 1))
        self.backbone = bundle.backbone.model
        self.clustering = bundle.learned.graph(bundle.backbone)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clusters ``(b,)``, confidences ``(b,)`` and probabilities ``(b, c)`` of images.

        Args:
            images: Shape ``(b, 3, s, s)``, RGB: uint8, or float32 in [0, 1].
        """
        pixels = images if images.is_floating_point() else images.float() / 255
        tokens = self.backbone.forward_features((pixels - self.mean) / self.std)  # type: ignore[operator]
        features = self.backbone.forward_head(tokens, pre_logits=True)  # type: ignore[operator]
        probs = self.clustering(tokens, features)  # (b, c)
        best = probs.max(dim=1)
        return best.indices, best.values.clamp(0.0, 1.0), probs


def export_model(
    bundle: Bundle, path: str | Path, *, kind: str = "onnx", input_dtype: str = "uint8"
) -> dict[str, Any]:
    """Write a model as one graph, and beside it how images are prepared for it.

    The graph takes any number of images, ``(b, 3, s, s)``, and gives ``cluster`` ``(b,)``,
    ``confidence`` ``(b,)`` and ``probabilities`` ``(b, c)``. Normalization is part of it.

    Args:
        bundle: What an experiment has learned, as :func:`unic.inference.bundle.read_bundle` reads
            it.
        path: The file, ``.onnx`` or ``.pt2``. What :func:`describe_graph` says is in its metadata,
            and as JSON beside it, see :func:`beside`.
        kind: ``onnx``, or ``torch`` for a program of ``torch.export``.
        input_dtype: Of the pixels: ``uint8``, or ``float32`` for values in [0, 1].

    Returns:
        What was written beside it.

    Raises:
        ValueError: If format, input or suffix are others, packages for ONNX are missing, a
            backbone cannot be exported, or the model is too large for a file of ONNX.
    """
    if kind not in SUFFIXES:
        raise ValueError(f"the format must be {' or '.join(SUFFIXES)}, got {kind}")
    if input_dtype not in INPUTS:
        raise ValueError(f"the input must be {' or '.join(INPUTS)}, got {input_dtype}")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if kind == "onnx" and missing:
        raise ValueError(
            f"export to ONNX needs the packages onnx and onnxscript, {' and '.join(missing)} "
            "is missing; pip install unic[export]"
        )
    path = Path(path)
    if path.suffix != SUFFIXES[kind]:  # torch reads no other
        raise ValueError(f"the file must end in {SUFFIXES[kind]}, got {path}")
    about = describe_graph(bundle, input_dtype=input_dtype)
    graph = Graph(bundle).eval().to(memory_format=torch.contiguous_format)
    _check_size(graph, kind)
    with _exporting():
        program = _trace(graph, about["input"]["shape"][-1], input_dtype)
        write = _write_onnx if kind == "onnx" else _write_torch
        write(program, path, json.dumps(about, sort_keys=True))
    write_json(beside(path), about)
    return about


def beside(path: Path) -> Path:
    """Where it is said how images are prepared for a graph: ``FILE.json`` of ``FILE``."""
    return path.with_name(f"{path.name}.json")


def describe_graph(bundle: Bundle, *, input_dtype: str) -> dict[str, Any]:
    """What a program needs to know to give images to a graph, and to read what it gives."""
    said = bundle.description
    side, resized = said.view.image_size, round(said.view.image_size / said.view.crop_pct)
    squares = [] if said.decoded is None else [_square(said.decoded)]
    steps = [
        "decode to RGB of 8 bits, upright as EXIF says",
        *squares,
        f"resize the shorter side to {resized} pixels, bicubic with antialiasing, in 8 bits",
        f"crop the central {side} x {side} pixels, filling with 0 where there are fewer",
        *(["divide by 255"] if input_dtype == "float32" else []),
    ]
    return {
        "experiment": said.experiment,
        "version": said.version,
        "digests": dict(said.digests),
        "preprocessing": steps,
        "input": {
            "name": "images",
            "dtype": input_dtype,
            "shape": ["batch", 3, side, side],
            "range": [0, 255] if input_dtype == "uint8" else [0.0, 1.0],
            "channels": "RGB",
        },
        "normalization": {
            "where": "in the graph",
            "mean": list(said.view.mean),
            "std": list(said.view.std),
        },
        "outputs": {
            "cluster": {"dtype": "int64", "shape": ["batch"]},
            "confidence": {"dtype": "float32", "shape": ["batch"]},
            "probabilities": {"dtype": "float32", "shape": ["batch", said.n_clusters]},
        },
        "n_clusters": said.n_clusters,
        "names": list(said.names),
    }


def _square(size: int) -> str:
    return (
        f"resize the shorter side to {size} pixels, bicubic with antialiasing, in 8 bits, and crop "
        f"the central {size} x {size} pixels"
    )


def _trace(graph: Graph, side: int, input_dtype: str) -> torch.export.ExportedProgram:
    example = torch.zeros(2, 3, side, side, dtype=getattr(torch, input_dtype))
    try:
        return torch.export.export(
            graph, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:  # torch raises all sorts on what it cannot trace
        raise ValueError(
            f"the backbone {type(graph.backbone).__name__} must be one that torch can export, it "
            f"cannot: {first_line(error)}"
        ) from None


def _write_torch(program: torch.export.ExportedProgram, path: Path, about: str) -> None:
    with whole_file(path) as temporary:
        buffered = temporary.with_name(f"{temporary.name}.pt2")  # torch insists on the suffix
        try:
            torch.export.save(program, buffered, extra_files={f"{KEY}.json": about})
            buffered.replace(temporary)
        finally:
            buffered.unlink(missing_ok=True)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, about: str) -> None:
    converted = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if converted is None:
        raise ValueError("torch must give an ONNX program, it gave none")
    converted.model.metadata_props[KEY] = about
    with whole_file(path) as temporary:
        converted.save(temporary, external_data=False)


def _check_size(graph: Graph, kind: str) -> None:
    n_bytes = sum(t.numel() * t.element_size() for t in graph.state_dict().values())
    if kind == "onnx" and n_bytes > _MAX_BYTES:
        raise ValueError(
            f"a model must be below 2 GB for one file of ONNX, this one has {n_bytes / 1e9:.1f} "
            "GB; export it to torch"
        )


@contextmanager
def _exporting() -> Iterator[None]:
    """Leave out what exporters say to those who work on them, and let them read TF32's switch.

    Torch's exporter asks for it by the older of two interfaces, which refuses where the newer one
    has turned it off (:func:`unic.runtime.devices.choose_device`). Nothing is computed meanwhile.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    backends: Any = torch.backends  # whose parts are not typed
    parts = (backends.cudnn.conv, backends.cudnn.rnn)
    precisions = [part.fp32_precision for part in parts]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        for part in parts:
            part.fp32_precision = "tf32"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for part, precision in zip(parts, precisions, strict=True):
            part.fp32_precision = precision
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
