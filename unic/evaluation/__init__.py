"""Scores: with the report's figures, all that reads true labels."""
