"""Resumption: what tells whether work that was interrupted may be taken up again."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Fingerprinted(Protocol):
    """What tells by itself whether it may have changed, such as images."""

    def fingerprint(self) -> str:
        """A digest that differs where the content may have changed."""


def resumption_key(
    settings: Mapping[str, Any],
    *,
    files: Iterable[str | Path] = (),
    images: Iterable[Fingerprinted] = (),
    network: nn.Module | None = None,
) -> str:
    """Digest of all that an interrupted piece of work depends on.

    Scratch is taken up under the same key alone. The key decides nothing else, so a change that
    changes no result costs a new start and no more.

    Args:
        settings: Of the work, with the digest of its code.
        files: That it reads, by their content.
        images: That it reads, by their fingerprints.
        network: That it begins with, by its weights, wherever these are from.

    Returns:
        64 hexadecimal digits.

    Raises:
        FileNotFoundError: If a file or an image is missing.
    """
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True, default=str).encode())
    for path in files:
        with Path(path).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for part in images:
        digest.update(part.fingerprint().encode())
    if network is not None:
        digest.update(_weights_digest(network))
    return digest.hexdigest()


def _weights_digest(network: nn.Module) -> bytes:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.digest()
