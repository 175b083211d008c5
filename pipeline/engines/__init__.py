"""Inference engines, which compute the vectors of images; one file for each engine."""
