"""One run: checks, preparation, waves and summary."""
