import logging

import pytest
import torch

from unic.devices import choose_device, choose_precision


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
