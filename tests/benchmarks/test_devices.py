"""What benchmarks ask of a device."""

import pytest
import torch

from benchmarks.devices import NOT_RUN, count_flops, describe, peak, seconds, take_device

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_gpu_a_benchmark_ends_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        take_device("cuda")
    assert raised.value.code == NOT_RUN
    assert capsys.readouterr().out.startswith("not run: machine.device must be cpu or auto")


def test_products_are_counted_forward_and_backward() -> None:
    left = torch.rand(3, 5, requires_grad=True)
    right = torch.rand(5, 7, requires_grad=True)
    assert count_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    assert count_flops(lambda: (left @ right).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_the_best_of_the_repetitions_counts(device: str) -> None:
    calls: list[int] = []
    chosen = torch.device(device)
    assert seconds(lambda: calls.append(1), chosen, 3) >= 0
    assert len(calls) == 3
    assert describe(chosen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_peak_is_a_rate(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.devices.SIDES", {"cpu": 64})
    assert 0 < peak(take_device("cpu"), dtype) < float("inf")
