"""The loop with a person in it: what they say of clusters and images, and what to ask them next."""
