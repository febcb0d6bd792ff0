"""What can be said of clusters and images without true labels."""
