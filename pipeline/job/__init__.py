"""One run: checking, preparing, running its waves, and its summary."""
