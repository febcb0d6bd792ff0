"""Images: listed, split, decoded, prepared as views, batched."""
