"""Turns image data sets into embeddings with Apache Beam."""
