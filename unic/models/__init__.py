"""Networks: backbones, heads, classifiers, and their weights."""
