import logging

import pytest
import torch

from unic.runtime.devices import choose_device, choose_precision


@pytest.mark.parametrize(
    ("asked", "has_cuda", "expected"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
    ],
)
def test_chooses_and_logs_the_device(
    asked: str,
    has_cuda: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    with caplog.at_level(logging.INFO, logger="unic"):
        assert choose_device(asked) == torch.device(expected)
    assert f"device {expected} (asked for {asked})" in caplog.text


def test_refuses_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"must be cpu or auto on .* without .*, got cuda"):
        choose_device("cuda")


@pytest.mark.parametrize("device", ["gpu", "cuda:1", ""])
@pytest.mark.parametrize("has_cuda", [False, True])
def test_refuses_other_devices(
    device: str, has_cuda: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    with pytest.raises(ValueError, match=f"must be auto, cpu or cuda, got {device}"):
        choose_device(device)


def test_float32_is_float32_once_a_device_is_chosen() -> None:
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    for part in parts:
        part.fp32_precision = "tf32"
    choose_device("cpu")
    assert [part.fp32_precision for part in parts] == ["ieee"] * 3
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["convolution", "product"])
def test_products_on_a_gpu_are_those_of_float64(kind: str) -> None:
    device = choose_device("cuda")
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 3, 64, 64, generator=generator)
    weights = torch.randn(96, 3, 8, 8, generator=generator)

    def multiply(dtype: torch.dtype) -> torch.Tensor:
        a, b = images.to(device, dtype), weights.to(device, dtype)
        if kind == "product":
            return a.reshape(256, -1)[:, :192] @ b.reshape(96, 192).T
        return torch.nn.functional.conv2d(a, b, stride=8)

    exact, found = multiply(torch.float64), multiply(torch.float32)
    assert float((found - exact).norm() / exact.norm()) < 1e-6


@pytest.mark.parametrize(
    ("asked", "device", "units", "is_transformer", "expected"),
    [
        ("auto", "cuda", {}, True, torch.bfloat16),
        ("auto", "cpu", {"avx512_bf16": True}, True, torch.bfloat16),
        ("auto", "cpu", {"avx512_bf16": False, "amx_bf16": False}, True, torch.float32),
        ("auto", "cpu", {}, True, torch.float32),
        ("float32", "cuda", {"amx_bf16": True}, True, torch.float32),
        ("auto", "cuda", {"amx_bf16": True}, False, torch.float32),
        ("bfloat16", "cpu", {}, False, torch.bfloat16),
    ],
)
def test_chooses_and_logs_the_precision(
    asked: str,
    device: str,
    units: dict[str, bool],
    is_transformer: bool,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: units)
    with caplog.at_level(logging.INFO, logger="unic"):
        assert (
            choose_precision(asked, torch.device(device), is_transformer=is_transformer) == expected
        )
    assert f"computes in {expected} (asked for {asked})" in caplog.text


def test_refuses_other_precisions() -> None:
    with pytest.raises(ValueError, match="must be auto, float32 or bfloat16, got half"):
        choose_precision("half", torch.device("cpu"), is_transformer=True)
