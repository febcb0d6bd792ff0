"""The exact pass over all distances, on a CPU and on GPUs."""
