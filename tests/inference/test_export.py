import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.inference.bundles import CPU, VIEW, make_bundle, make_trained_bundle
from unic.images.views import prepare_image
from unic.inference import export
from unic.inference.bundle import Bundle
from unic.inference.export import describe_graph, export_model
from unic.inference.predictor import Prediction, Predictor

Outputs = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]


def run_torch(path: Path, images: torch.Tensor) -> Outputs:
    with torch.no_grad():
        return tuple(each.numpy() for each in torch.export.load(path).module()(images))


def run_onnx(path: Path, images: torch.Tensor) -> Outputs:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return tuple(
        session.run(["cluster", "confidence", "probabilities"], {"images": images.numpy()})
    )


def needs(kind: str) -> None:
    if kind == "onnx":
        for name in ("onnx", "onnxscript"):
            pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture
def precision() -> Iterator[None]:
    """As :func:`unic.runtime.devices.choose_device` leaves it, which torch's exporter refuses."""
    parts = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "ieee"
    yield
    assert [part.fp32_precision for part in parts] == ["ieee", "ieee"]
    for part, value in zip(parts, before, strict=True):
        part.fp32_precision = value


def prepare(pixels: NDArray[np.uint8], dtype: str) -> torch.Tensor:
    images = torch.stack([prepare_image(image, VIEW) for image in pixels])
    return images if dtype == "uint8" else images.float() / 255


def assert_equal(found: Outputs, wanted: Prediction) -> None:
    clusters, confidences, probs = found
    n_images = len(clusters)
    assert clusters.tolist() == wanted.clusters[:n_images].tolist()
    np.testing.assert_allclose(confidences, wanted.confidence[:n_images], atol=1e-4)
    assert probs.shape == (n_images, 10)
    np.testing.assert_allclose(probs.max(1), confidences, atol=1e-6)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    best = np.sort(probs, axis=1)[:, -2]
    np.testing.assert_allclose(best, wanted.second_confidence[:n_images], atol=1e-4)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_graph_is_equal_to_the_predictor(
    kind: str, dtype: str, predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    needs(kind)
    path = tmp_path / f"model{export.SUFFIXES[kind]}"
    export_model(predictor.bundle, path, kind=kind, input_dtype=dtype)
    wanted, images = predictor.predict(pixels), prepare(pixels, dtype)
    run = run_onnx if kind == "onnx" else run_torch
    for n_images in (1, 3, len(pixels)):
        assert_equal(run(path, images[:n_images]), wanted)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_so_is_that_of_a_transformer_and_of_labeled_images(
    kind: str, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    needs(kind)
    bundle = make_bundle("test_vit", "random", names=("zero", "one"))
    assert bundle.learned.model.whitening.ndim == 2
    path = tmp_path / f"model{export.SUFFIXES[kind]}"
    export_model(bundle, path, kind=kind)
    run = run_onnx if kind == "onnx" else run_torch
    wanted = Predictor(bundle, device=CPU).predict(pixels)
    assert_equal(run(path, prepare(pixels, "uint8")), wanted)


@pytest.mark.parametrize(
    ("backbone", "head", "head_norm"),
    [
        ("test_resnet", "linear", "standardize"),
        ("test_resnet", "mlp", "rms"),
        ("test_resnet", "self_attention", None),
        ("test_vit", "linear", "center"),
        ("test_vit", "self_attention", None),
    ],
)
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_so_is_that_of_a_training(
    kind: str,
    backbone: str,
    head: str,
    head_norm: str | None,
    pixels: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    needs(kind)
    bundle = make_trained_bundle(backbone, head=head, head_norm=head_norm)
    path = tmp_path / f"model{export.SUFFIXES[kind]}"
    export_model(bundle, path, kind=kind)
    wanted = Predictor(bundle, device=CPU).predict(pixels)
    assert len(set(wanted.clusters.tolist())) > 1
    run = run_onnx if kind == "onnx" else run_torch
    for n_images in (1, len(pixels)):
        assert_equal(run(path, prepare(pixels, "uint8")[:n_images]), wanted)


def test_what_is_beside_it_says_how_to_use_it(bundle: Bundle, tmp_path: Path) -> None:
    said = export_model(bundle, tmp_path / "model.pt2", kind="torch", input_dtype="float32")
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt2", "model.pt2.json"}
    assert json.loads((tmp_path / "model.pt2.json").read_text()) == said
    assert said["input"]["shape"] == ["batch", 3, 32, 32]
    assert said["input"]["range"] == [0, 1]
    assert said["normalization"]["mean"] == list(VIEW.mean)
    assert "resize the shorter side to 36 pixels" in said["preprocessing"][1]
    assert said["preprocessing"][-1] == "divide by 255"
    kept = {"unic.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=kept)
    assert json.loads(kept["unic.json"]) == said


def test_onnx_has_it_in_its_metadata(bundle: Bundle, tmp_path: Path) -> None:
    needs("onnx")
    import onnx

    said = export_model(bundle, tmp_path / "model.onnx", kind="onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    assert {p.key: json.loads(p.value) for p in model.metadata_props if p.key == "unic"} == {
        "unic": said
    }
    (given,) = model.graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert [output.name for output in model.graph.output] == list(export.OUTPUTS)


def test_squares_and_names_are_said(labeled_bundle: Bundle) -> None:
    said: dict[str, Any] = describe_graph(make_bundle(decoded=40), input_dtype="uint8")
    assert said["preprocessing"][1].endswith("crop the central 40 x 40 pixels")
    assert len(said["preprocessing"]) == 4
    named = describe_graph(labeled_bundle, input_dtype="uint8")
    assert named["names"] == ["zero", "one", "two"]


def test_wrong_requests_are_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="the format must be onnx or torch, got tflite"):
        export_model(bundle, tmp_path / "a", kind="tflite")
    with pytest.raises(ValueError, match="the input must be uint8 or float32, got int8"):
        export_model(bundle, tmp_path / "a.pt2", kind="torch", input_dtype="int8")
    with pytest.raises(ValueError, match=r"the file must end in .pt2, got .*a\.onnx"):
        export_model(bundle, tmp_path / "a.onnx", kind="torch")
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ValueError, match=r"onnxscript is missing; pip install unic\[export\]"):
        export_model(bundle, tmp_path / "a.onnx", kind="onnx")
    monkeypatch.setattr(export, "find_spec", lambda name: name)
    monkeypatch.setattr(export, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"below 2 GB .* export it to torch"):
        export_model(bundle, tmp_path / "a.onnx", kind="onnx")
    assert not list(tmp_path.iterdir())


def test_a_backbone_that_cannot_be_traced_is_named(bundle: Bundle, tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward_features(self, images: torch.Tensor) -> torch.Tensor:
            return images if float(images.sum()) > 0 else -images

    class Network:
        model = Odd()

    odd = bundle._replace(backbone=Network())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the backbone Odd must be one that torch can export"):
        export_model(odd, tmp_path / "a.pt2", kind="torch")
