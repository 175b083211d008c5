"""The commands, `python -m pipeline.X`."""
