"""What a frozen backbone gives for images: features, cached views, sources of these."""
