"""Inference engines: images in, vectors out; one file for each engine."""
