"""Scores: all that reads true labels but the report's figures."""
