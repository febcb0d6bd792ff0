"""One command for one's own images: plan, run, tell."""
