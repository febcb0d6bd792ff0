"""Neighbors of single images, and of all in figures, for people and for programs."""
