"""The device of a benchmark: where there is none, how time is taken on it, and what it can do.

As a command: the rate of the largest products, measured, which other benchmarks state shares of.
"""

import argparse
import platform
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from unic.runtime.devices import choose_device

NOT_RUN = 77  # exit status where a benchmark could not be run, as of automake
SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the peak
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark ``--device``."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")


def take_device(asked: str) -> torch.device:
    """The device that was asked for; where there is none the benchmark ends and says so."""
    try:
        return choose_device(asked)
    except ValueError as error:
        print(f"not run: {error}")
        raise SystemExit(NOT_RUN) from None


def describe(device: torch.device) -> str:
    """Name of a device."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"a CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Time of a call, the best of some: of the processor on a CPU, else until the GPU is done."""
    best = float("inf")
    for _ in range(repeats):
        if device.type == "cpu":
            start = time.process_time()
            call()
            best = min(best, time.process_time() - start)
        else:
            torch.cuda.synchronize(device)
            start = time.perf_counter()
            call()
            torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start)
    return best


def peak(device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 5) -> float:
    """FLOP a second of ``torch.mm`` of two large matrices, the best of some."""
    side = SIDES[device.type]
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    torch.mm(left, right, out=product)
    return 2 * side**3 / seconds(lambda: torch.mm(left, right, out=product), device, repeats)


def count_flops(call: Callable[[], object]) -> int:
    """FLOP of the products of a call, those of autograd included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_device(parser)
    arguments = parser.parse_args()
    device = take_device(arguments.device)
    torch.set_num_threads(1)
    side = SIDES[device.type]
    print(f"{describe(device)}; torch {torch.__version__}, CUDA {torch.version.cuda}")
    for name, dtype in DTYPES.items():
        print(f"  {name}: {peak(device, dtype) / 1e12:.3g} TFLOP/s, measured, {side} x {side}")


if __name__ == "__main__":
    main()
