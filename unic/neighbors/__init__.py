"""Neighbors: mined, cleaned, and the far images that negatives are drawn from."""
