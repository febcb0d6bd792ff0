"""The device that a job computes on."""

import logging
from functools import cache
from typing import Any

import torch

MAX_INT8_DIMS = 2**16  # beyond, sums of products of int8 numbers may pass 2^31

logger = logging.getLogger(__name__)


def choose_device(device: str) -> torch.device:
    """Turn a setting into a device; ``auto`` takes CUDA where there is one, and logs it.

    From then on the process computes products of float32 in float32 on GPUs too: torch lets
    convolutions drop to TF32, whose 10 bits change features by 1e-3.

    Raises:
        ValueError: If it is not ``auto``, ``cpu`` or ``cuda``, or there is no CUDA to be asked for.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"machine.device must be auto, cpu or cuda, got {device}")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ValueError(
            "machine.device must be cpu or auto on a machine without a CUDA GPU, got cuda"
        )
    _keep_float32()
    chosen = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
    logger.info("device %s (asked for %s)", chosen, device)
    return chosen


def choose_precision(precision: str, device: torch.device, *, is_transformer: bool) -> torch.dtype:
    """Turn a setting into the dtype that a frozen trunk computes in, and log it.

    ``auto`` takes bfloat16 for vision transformers, whose gradients it changes by 1 % (6 % for a
    MobileNetV2), on a GPU and on processors that have units for it; else float32.

    Raises:
        ValueError: If it is not ``auto``, ``float32`` or ``bfloat16``.
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"precision must be auto, float32 or bfloat16, got {precision}")
    found = torch.cpu.get_capabilities()
    has_units = device.type == "cuda" or any(found.get(u) for u in ("avx512_bf16", "amx_bf16"))
    is_half = precision == "bfloat16" or (precision == "auto" and has_units and is_transformer)
    chosen = torch.bfloat16 if is_half else torch.float32
    logger.info("the frozen trunk computes in %s (asked for %s)", chosen, precision)
    return chosen


@cache
def has_int8() -> bool:
    """Whether the processor multiplies int8 matrices fast, and adds the products up exactly."""
    names = ("_is_vnni_supported", "_is_amx_tile_supported")
    if not any(getattr(torch.cpu, name, bool)() for name in names):
        return False
    largest = torch.full((16, 1024), 127, dtype=torch.int8)  # units without it saturate
    return bool((torch._int_mm(largest, -largest.T) == -1024 * 127**2).all())


def _keep_float32() -> None:
    """Turn TF32 off by the newer of torch's two interfaces, which are not to be mixed."""
    backends: Any = torch.backends  # whose parts are not typed
    for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
        part.fp32_precision = "ieee"
