"""UNIC: image clustering and generalized category discovery from neighbor information."""

__version__ = "0.1.0"
