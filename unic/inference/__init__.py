"""What a finished experiment is used for: clusters of new images, a model in other formats."""
