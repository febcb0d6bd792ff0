"""Data sets on disk: which images there are and, apart from these, their true classes."""
