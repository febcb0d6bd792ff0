"""Named tensors on disk: a safetensors file with a checksum."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unic.storage.files import whole_file

_KEY = "unic"  # a single one: safetensors writes several in any order


class Tensors(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]  # on the CPU
    about: Any  # JSON, None in a file that is not ours


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], *, about: Any = None) -> None:
    """Write tensors by name, whole or not at all.

    Args:
        path: A ``.safetensors`` file.
        tensors: Of any shapes, dtypes and devices.
        about: JSON that comes back with them.
    """
    written = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = json.dumps({"about": about, "checksum": _checksum(written, about)}, sort_keys=True)
    with whole_file(path) as temporary:
        save_file(written, temporary, metadata={_KEY: described})


def read_tensors(path: str | Path) -> Tensors:
    """Read a safetensors file; one that :func:`save_tensors` wrote is checked.

    Returns:
        Its tensors, and the JSON that was saved with them; None for that in other files.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, is cut short, or its checksum differs.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no safetensors file at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            described = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, cannot read it: {error}") from None
    if described is None:
        return Tensors(tensors, None)
    try:
        content = json.loads(described)
        about, checksum = content["about"], content["checksum"]
    except (ValueError, TypeError, KeyError, RecursionError):
        checksum = about = None
    if checksum != _checksum(tensors, about):
        raise ValueError(f"{path} is damaged: its checksum differs; delete it and make it again")
    return Tensors(tensors, about)


def _checksum(tensors: Mapping[str, Tensor], about: Any) -> str:
    checksum = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        head = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        content = tensor.reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(content.data, zlib.crc32(head, checksum))
    return f"{checksum:08x}"
