"""The recipe without settings: heads that start from many partitions, and their consensus."""
