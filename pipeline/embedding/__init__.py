"""The embedder that a worker shares, and what its vectors are."""
