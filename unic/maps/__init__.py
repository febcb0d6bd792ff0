"""All images in two dimensions, from the neighbors that were mined."""
