"""What a frozen backbone says of images: features, cached views, sources of these."""
