"""Engines, against torch and against each other."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import Tensor, nn

from unic.models.engines import Engine, choose_engine, compile_network, count_operations

CPU = torch.device("cpu")
NETWORKS = {"resnet18": {}, "mobilenetv2_050": {}, "vit_tiny_patch16_224": {"img_size": 64}}


def images(n_images: int = 5, seed: int = 0) -> Tensor:
    return torch.rand(n_images, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def make_network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, **NETWORKS[name]).eval()


def choose(name: str, n_images: int, device: torch.device = CPU) -> str:
    network = make_network("resnet18")
    return choose_engine(
        name,
        network,
        images(2),
        n_images=n_images,
        precision=torch.float32,
        device=device,
    ).name


# Against torch


@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)]
)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_engines_compute_what_torch_does(
    name: str, engine: str, precision: torch.dtype, tolerance: float
) -> None:
    network = make_network(name)
    compute = compile_network(network, images(2), Engine(engine, precision, CPU))
    with torch.no_grad():
        expected = network(images(7, seed=1))
    found = compute(images(7, seed=1))
    assert (found.shape, found.dtype, found.requires_grad) == (expected.shape, torch.float32, False)
    assert float((found - expected).abs().max() / expected.abs().max()) < tolerance


def test_feature_maps_are_computed_too() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    compute = compile_network(network, images(2), Engine("openvino", torch.float32, CPU))
    with torch.no_grad():
        torch.testing.assert_close(compute(images()), network(images()))


def test_operations_are_counted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 62 * 62, 5))
    expected = 2 * (4 * 27 * 62 * 62 + 4 * 62 * 62 * 5)
    assert count_operations(network, images(3)) == expected


# Laws


def test_an_image_gets_the_same_bits_in_every_batch_and_with_any_threads() -> None:
    network, found = make_network("mobilenetv2_050"), []
    before = torch.get_num_threads()
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        compute = compile_network(network, images(2), Engine("openvino", torch.float32, CPU))
        found += [
            compute(images(9)),
            torch.cat([compute(images(9)[row, None]) for row in range(9)]),
        ]
    torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_converted_network_can_be_used_in_a_training() -> None:
    compute = compile_network(
        make_network("resnet18"), images(2), Engine("torch", torch.float32, CPU)
    )
    weight = torch.ones(1, requires_grad=True)
    (compute(images()) * weight).sum().backward()
    assert weight.grad is not None


def test_auto_takes_openvino_where_it_pays() -> None:
    assert choose("auto", 10) == "torch"
    assert choose("auto", 100_000) == "openvino"
    assert choose("auto", 100_000, torch.device("cuda")) == "torch"
    assert choose("torch", 100_000) == "torch"
    assert choose("openvino", 1) == "openvino"


def test_nobody_is_told_of_the_import() -> None:
    program = (
        "import unic.models.engines, sys, openvino\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__.endswith('telemetry_stub'), telemetry_utils.tm\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Refusals


class _Untraceable(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return torch.linalg.eigvals(pixels[:, 0]).real.sum(1, keepdim=True)


def test_refuses_a_network_that_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match="openvino cannot convert _Untraceable: "):
        compile_network(_Untraceable(), images(2), Engine("openvino", torch.float32, CPU))


class _Deceiving(nn.Module):
    """What tracing sees is not what it does."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3)) * (1.0 if torch.jit.is_tracing() else 2.0)


def test_refuses_a_network_that_is_another_when_converted() -> None:
    with pytest.raises(ValueError, match=r"what openvino computes differs by 5\.0e-01"):
        compile_network(_Deceiving(), images(2), Engine("openvino", torch.float32, CPU))


def test_refuses_openvino_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if there were none
    assert choose("auto", 10**9) == "torch"
    with pytest.raises(ValueError, match="must be torch or auto where openvino is not installed"):
        choose("openvino", 1)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("onnx", CPU, "machine.engine must be one of auto, torch, openvino, got onnx"),
        ("openvino", torch.device("cuda"), "openvino must run on a cpu, got device cuda"),
    ],
)
def test_refuses_engines_that_are_not_there(name: str, device: torch.device, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(name, 1, device)
