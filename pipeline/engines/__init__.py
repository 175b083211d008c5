"""Inference engines: images in, vectors out."""
