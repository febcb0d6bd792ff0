"""Experiments: their settings, the stages that share results between them, and what is refused."""
