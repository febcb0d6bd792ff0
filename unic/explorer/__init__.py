"""The explorer: a page on this machine that shows images, neighbors and clusters of a run."""
