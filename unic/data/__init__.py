"""Image sets: where the images come from, how they are split, changed and batched."""
