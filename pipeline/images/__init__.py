"""Encoded images to pixels, and pixels to the input of a network."""
