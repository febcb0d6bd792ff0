"""Neighbors of single images, and of all in figures, for the eye and for programs."""
