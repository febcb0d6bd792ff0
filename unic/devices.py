"""The device that a job computes on."""

import logging

import torch

log = logging.getLogger(__name__)


def choose_device(device: str) -> torch.device:
    """Turn a setting into a device; ``auto`` takes CUDA where there is one, and logs it.

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
    chosen = torch.device("cuda" if has_cuda and device != "cpu" else "cpu")
    log.info("device %s (asked for %s)", chosen, device)
    return chosen
