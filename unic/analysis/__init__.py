"""Figures, contact sheets and tables of a finished experiment."""
