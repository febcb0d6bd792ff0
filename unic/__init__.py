"""UNIC: image clustering and generalized category discovery from neighbor information."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Give ``unic.load``, for which torch is imported once it is asked for."""
    if name == "load":  # by its name: digests and layers follow import statements
        return import_module("unic.inference.predictor").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
