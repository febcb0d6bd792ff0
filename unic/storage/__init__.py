"""Files that appear whole or not at all, their digests, and what each holds."""
